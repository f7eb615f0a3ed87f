"""Grouping: old instances in the history become one for each period and key ("Agrupar datos").

It rewrites the files of a day as compaction does: the new file is named by its inputs, and one transaction of the manifest
lets it stand for the old ones, so a crash at any point leaves every instance counted once. A grouped instance says in
``contextData.grouped`` how many it stands for; instances that come late are merged into it with the right weights.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from itertools import groupby
from typing import Any

from sib.errors import LimitError
from sib.ontology import Ontology
from sib.query.extended import EPOCH
from storage.bdc.history import HistoryManifest
from storage.bdc.records import HistoryFileRecord
from storage.bdh import layout, parts
from storage.bdh.columns import Layout, fingerprint, layout_of
from storage.bdh.files import HistoryFiles, PartExistsError
from storage.bdh.fitting import restore
from storage.bdh.groups import Group, GroupBy, is_group, value_at

GROUPS_MAX = 500_000
"""Periods and keys of one day that are held in memory."""
ROWS_AT_ONCE = 10_000
_GROUPED_NAME = re.compile(r"-g[0-9a-f]{10}\.parquet$")


@dataclass(slots=True)
class GroupingResult:
    """What one run did: so many instances of so many days are now so many groups."""

    n_days: int = 0
    n_instances: int = 0
    n_groups: int = 0


class Grouping:
    """Groups the history of one ontology. Under the lock of its transfer.

    Files with the columns of an older version of the ontology stay as they are.
    """

    def __init__(
        self,
        ontology: Ontology,
        group: GroupBy,
        files: HistoryFiles,
        manifest: HistoryManifest,
        *,
        groups_max: int = GROUPS_MAX,
    ) -> None:
        self._name = ontology.name
        self._group = group
        self._columns: Layout = layout_of(ontology)
        self._fingerprint = fingerprint(self._columns.arrow())
        self._files = files
        self._manifest = manifest
        self._groups_max = groups_max

    def run(self, before: datetime, *, should_stop: Callable[[], bool] = lambda: False) -> GroupingResult:
        """Group what lies in periods that have ended before a moment (naive UTC): nothing older is in the BDTR any more.

        Raises:
            StoreUnavailableError: a database or file system does not answer; run it again.
            LimitError: a day has more groups than ``groups_max``.
        """
        result = GroupingResult()
        limit = self._group.period_of(before)
        records = self._manifest.files(self._name, until=limit.date())
        present = [record for record in records if record.layout == self._fingerprint and record.day != layout.NO_DAY]
        for day, group in groupby(present, key=lambda record: record.day):
            if should_stop():
                break
            members = list(group)
            if any(_is_due(record, limit) for record in members):
                self._group_day(day, members, limit, result)
        return result

    def _group_day(self, day: date, members: list[HistoryFileRecord], limit: datetime, result: GroupingResult) -> None:
        groups: dict[Any, Group] = {}
        rest: list[dict[str, Any]] = []
        n_instances = 0
        for document in self._documents(members):
            moment = layout.moment_of(document)
            if moment is None or moment >= limit:
                rest.append(document)
                continue
            n_instances += not is_group(document)
            key = self._group.period_of(moment), tuple(_hashable(value_at(document, path)) for path in self._group.by)
            found = groups.get(key)
            if found is None:
                if len(groups) >= self._groups_max:
                    raise LimitError(
                        f"The day {day} of {self._name!r} has more than {self._groups_max} groups: group by longer periods "
                        "or fewer fields."
                    )
                found = groups[key] = Group(self._group, key[0], document, moment)
            found.add(document, moment)
        grouped = [group.document() for group in groups.values()]
        if not n_instances:
            return
        digest = self._digest(members, limit)
        new = [
            self._written(day, members, documents, f"{kind}{digest}")
            for kind, documents in (("g", grouped), ("r", rest))
            if documents
        ]
        self._manifest.replace(members, new)
        result.n_days += 1
        result.n_instances += n_instances
        result.n_groups += len(grouped)

    def _documents(self, members: Sequence[HistoryFileRecord]) -> Iterator[dict[str, Any]]:
        for record in members:
            table = parts.read_table(self._files, layout.record_path(record))
            stale = set(record.stale_rows)
            row = 0
            for batch in table.to_batches(max_chunksize=ROWS_AT_ONCE):
                for document in restore(iter(batch.to_pylist()), self._columns):
                    if row not in stale:
                        yield document
                    row += 1

    def _digest(self, members: Sequence[HistoryFileRecord], limit: datetime) -> str:
        inputs = [f"{record.name} {sorted(record.stale_rows)}" for record in members]
        inputs += [limit.isoformat(), repr(self._group)]
        return hashlib.blake2b("\n".join(inputs).encode(), digest_size=5).hexdigest()

    def _written(
        self, day: date, members: Sequence[HistoryFileRecord], documents: list[dict[str, Any]], suffix: str
    ) -> HistoryFileRecord:
        ends = [record.name.removeprefix("part-").removesuffix(".parquet").split("-") for record in members]
        name = layout.part_name(min(end[0] for end in ends), max(end[1] for end in ends), suffix)
        path = layout.path_of(self._name, day, name)
        documents.sort(key=lambda document: layout.moment_of(document) or EPOCH)
        try:
            size_bytes = parts.write_documents(self._files, self._name, day, name, documents, self._columns)
        except PartExistsError:  # of an attempt that a crash ended: the manifest does not have it
            self._files.delete(path)
            size_bytes = parts.write_documents(self._files, self._name, day, name, documents, self._columns)
        moments = [moment for moment in map(layout.moment_of, documents) if moment is not None]
        is_complete = len(moments) == len(documents)
        return replace(
            members[0],
            name=name,
            n_rows=len(documents),
            size_bytes=size_bytes,
            first_at=moments[0] if is_complete else None,
            last_at=moments[-1] if is_complete else None,
            stale_rows=(),
        )


def is_grouped(name: str) -> bool:
    """Whether a file holds groups only."""
    return _GROUPED_NAME.search(name) is not None


def _is_due(record: HistoryFileRecord, limit: datetime) -> bool:
    return not is_grouped(record.name) and (record.first_at is None or record.first_at < limit)


def _hashable(value: Any) -> Any:
    return repr(value) if isinstance(value, dict | list) else value
