"""The state of the CEP shards in the configuration database. Apart from the rules, whose language takes long to load."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import insert, select, update

from storage.bdc.cep_models import CepSnapshot
from storage.bdc.engine import Database


class CepStore:
    """The state of the shards. Each call is one transaction; safe for threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def save(self, shard: str, positions: Mapping[str, int], state: bytes, now: datetime) -> None:
        """Keep the state of a shard and up to which change of each partition it goes, instead of what was kept before."""
        values = {"taken_at": now, "positions": dict(positions), "state": state}
        with self._database.write() as connection:
            changed = connection.execute(update(CepSnapshot).where(CepSnapshot.shard_name == shard).values(**values))
            if not changed.rowcount:
                connection.execute(insert(CepSnapshot).values(shard_name=shard, **values))

    def load(self, shard: str) -> tuple[dict[str, int], bytes] | None:
        """The last state of a shard: (positions by partition, state); None if there is none."""
        statement = select(CepSnapshot.positions, CepSnapshot.state).where(CepSnapshot.shard_name == shard)
        with self._database.read() as connection:
            row = connection.execute(statement).first()
        return None if row is None else (dict(row.positions), row.state)
