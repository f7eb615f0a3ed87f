"""SUBSCRIBECOMMANDs with a REST endpoint: no connection tells how long their client is there."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, insert, select

from storage.bdc.engine import Database
from storage.bdc.identities import chunks
from storage.bdc.models import CommandListener
from storage.bdc.records import CommandListenerRecord


class CommandListenerStore:
    """The listeners of all gateways. Every call is one transaction; safe for threads and processes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def save(self, listener: CommandListenerRecord) -> None:
        """Write a new listener. Durable when it returns."""
        row = {
            "listener_id": listener.listener_id,
            "kp": listener.kp,
            "instance": listener.instance,
            "command_type": listener.command_type,
            "user_name": listener.user,
            "credential": listener.credential,
            "gateway": listener.gateway,
            "dialect": listener.dialect,
            "endpoint": listener.endpoint,
            "created_at": listener.created_at,
        }
        with self._database.write() as connection:
            connection.execute(insert(CommandListener), [row])

    def load(self) -> list[CommandListenerRecord]:
        """All listeners in the order they were made, as far as the clock tells."""
        table = CommandListener.__table__
        statement = select(table).order_by(CommandListener.created_at, CommandListener.listener_id)
        with self._database.read() as connection:
            return [
                CommandListenerRecord(
                    row.listener_id,
                    row.kp,
                    row.instance,
                    row.command_type,
                    row.user_name,
                    row.credential,
                    row.gateway,
                    row.dialect,
                    row.endpoint,
                    row.created_at,
                )
                for row in connection.execute(statement)
            ]

    def delete(self, ids: Sequence[str]) -> None:
        """Remove listeners. Idempotent."""
        if not ids:
            return
        with self._database.write() as connection:
            for chunk in chunks(ids):
                connection.execute(delete(CommandListener).where(CommandListener.listener_id.in_(chunk)))
