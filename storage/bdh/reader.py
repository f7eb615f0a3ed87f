"""Reading files of the history in another process: a read task of a Ray Dataset, for example."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from sib.ontology import Ontology
from storage.bdc.records import HistoryFileRecord
from storage.bdh.files import open_files
from storage.bdh.intervals import Intervals
from storage.bdh.query import HistoryQueries
from storage.bdh.sql import read_condition


@dataclass(frozen=True, slots=True)
class FileReader:
    """What a process must know to read some files as ``HistoryQueries.table`` does. Can be pickled; holds no secret."""

    url: str
    ontology: Ontology
    needed: Intervals
    where: str | None
    columns: tuple[str, ...] | None
    time_limit_s: float

    def read(self, files: Sequence[HistoryFileRecord]) -> pa.Table:
        """The rows of these files.

        Raises:
            SibError: as ``HistoryQueries.table``.
        """
        condition = None if self.where is None else read_condition(self.where, self.ontology)
        files_of_root = open_files(self.url)
        queries = HistoryQueries(files_of_root, None, lambda _: self.ontology, threads=1)
        try:
            return queries.table(
                self.ontology.name,
                needed=self.needed,
                condition=condition,
                columns=self.columns,
                files=list(files),
                time_limit_s=self.time_limit_s,
            )
        finally:
            queries.close()
            files_of_root.close()
