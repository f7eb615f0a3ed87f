"""What was seen: instances, tokens and the process log. None of it changes the configuration version."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, func, insert, select, update

from storage.bdc.engine import Database
from storage.bdc.identities import chunks
from storage.bdc.models import Kp, KpInstance, ProcessLog, Token
from storage.bdc.records import LogRecord
from storage.bdc.types import NAME_CHARS_MAX, is_set

LOG_ROWS_MAX = 100_000
"""The process log keeps the newest lines; older ones are forgotten."""
INSTANCES_A_KP_MAX = 10_000
"""Devices that name themselves at random must not fill the database: those seen longest ago are forgotten."""
SUMMARY_CHARS_MAX = 4_000
ADDRESS_CHARS_MAX = 255


class Activity:
    """Notes what was seen. Every call is one transaction; safe for threads and processes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def instances_seen(self, seen: Sequence[tuple[str, str, str, datetime]]) -> None:
        """Note (kp, instance, address, time) of instances that joined; new ones are registered, unknown KPs ignored."""
        if not seen:
            return
        latest = {(kp, name[:NAME_CHARS_MAX]): (address[:ADDRESS_CHARS_MAX], at) for kp, name, address, at in seen}
        with self._database.write() as connection:
            ids = _kp_ids(connection, {kp for kp, _ in latest})
            rows = {
                (ids[kp], name): {"kp_key": ids[kp], "instance": name, "address": address, "seen": at}
                for (kp, name), (address, at) in latest.items()
                if kp in ids
            }
            present = _present_instances(connection, list(rows))
            _update_instances(connection, [row for key, row in rows.items() if key in present])
            _insert_instances(connection, [row for key, row in rows.items() if key not in present])

    def tokens_seen(self, seen: Sequence[tuple[str, datetime]]) -> None:
        """Note when tokens were last used. Unknown ones are ignored."""
        if not seen:
            return
        statement = update(Token).where(Token.token == bindparam("shown")).values(used_at=bindparam("seen"))
        with self._database.write() as connection:
            connection.execute(statement, [{"shown": token, "seen": at} for token, at in seen])

    def log(self, records: Sequence[LogRecord]) -> None:
        """Add lines to the process log; the oldest go when there are more than 100,000."""
        if not records:
            return
        with self._database.write() as connection:
            connection.execute(insert(ProcessLog), [log_row(record) for record in records])
            newest = connection.execute(select(func.max(ProcessLog.id))).scalar_one()
            connection.execute(delete(ProcessLog).where(ProcessLog.id <= newest - LOG_ROWS_MAX))

    def read_log(self, limit: int, *, kind: str | None = None) -> list[LogRecord]:
        """The newest ``limit`` lines, newest first."""
        statement = select(ProcessLog.__table__).order_by(ProcessLog.id.desc()).limit(limit)
        if kind is not None:
            statement = statement.where(ProcessLog.kind == kind)
        with self._database.read() as connection:
            return [_log_record(row) for row in connection.execute(statement)]


def _kp_ids(connection: Connection, names: set[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for chunk in chunks(names):
        found |= {row.name: row.id for row in connection.execute(select(Kp.name, Kp.id).where(Kp.name.in_(chunk)))}
    return found


def _present_instances(connection: Connection, keys: list[tuple[int, str]]) -> set[tuple[int, str]]:
    present: set[tuple[int, str]] = set()
    for chunk in chunks(keys):
        statement = select(KpInstance.kp_id, KpInstance.name).where(
            KpInstance.kp_id.in_({kp_id for kp_id, _ in chunk}), KpInstance.name.in_({name for _, name in chunk})
        )
        present |= {(row.kp_id, row.name) for row in connection.execute(statement)}
    return present


def _update_instances(connection: Connection, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    statement = (
        update(KpInstance)
        .where(KpInstance.kp_id == bindparam("kp_key"), KpInstance.name == bindparam("instance"))
        .values(last_address=bindparam("address"), last_seen_at=bindparam("seen"))
    )
    connection.execute(statement, rows)


def _insert_instances(connection: Connection, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    values = [
        {
            "kp_id": row["kp_key"],
            "name": row["instance"],
            "is_static": False,
            "last_address": row["address"],
            "last_seen_at": row["seen"],
        }
        for row in rows
    ]
    connection.execute(insert(KpInstance), values)
    for kp_id in {row["kp_key"] for row in rows}:
        _forget_oldest_instances(connection, kp_id)


def _forget_oldest_instances(connection: Connection, kp_id: int) -> None:
    mine = KpInstance.kp_id == kp_id
    surplus = connection.execute(select(func.count()).where(mine)).scalar_one() - INSTANCES_A_KP_MAX
    if surplus <= 0:
        return
    oldest = connection.execute(
        select(KpInstance.name)
        .where(mine, ~is_set(KpInstance.is_static))
        .order_by(KpInstance.last_seen_at)
        .limit(surplus)
    ).scalars()
    for names in chunks(list(oldest)):
        connection.execute(delete(KpInstance).where(mine, KpInstance.name.in_(names)))


def log_row(record: LogRecord) -> dict[str, Any]:
    """The row of the process log for a record; over-long texts of devices are cut."""
    return {
        "logged_at": record.at,
        "kind": record.kind,
        "user_name": record.user[:NAME_CHARS_MAX],
        "kp": record.kp[:NAME_CHARS_MAX],
        "instance": record.instance[:NAME_CHARS_MAX],
        "summary": record.summary[:SUMMARY_CHARS_MAX],
        "details": record.details,
    }


def _log_record(row: Row[Any]) -> LogRecord:
    return LogRecord(
        kind=row.kind,
        at=row.logged_at,
        summary=row.summary,
        user=row.user_name,
        kp=row.kp,
        instance=row.instance,
        details=row.details,
    )
