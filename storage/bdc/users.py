"""Users."""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import Any

from sqlalchemy import Row, delete, select

from sib.access import Role
from sib.errors import NotFoundError, StoreError
from storage.bdc.cep_models import CepEventRow, CepRuleRow
from storage.bdc.configuration import Configuration
from storage.bdc.models import Asset, Kp, Ontology, User
from storage.bdc.records import Outcome, UserRecord
from storage.bdc.rule_models import ScriptRule

_OWNED = (
    (Kp, "a KP"),
    (Ontology, "an ontology"),
    (Asset, "an asset"),
    (ScriptRule, "a script rule"),
    (CepRuleRow, "a CEP rule"),
    (CepEventRow, "a CEP event"),
)


class UserRepository:
    """The users, as one transaction sees them."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration

    def all(self) -> list[UserRecord]:
        rows = self._configuration.connection.execute(select(User.__table__).order_by(User.name))
        return [_record(row) for row in rows]

    def get(self, name: str) -> UserRecord | None:
        rows = self._configuration.connection.execute(select(User.__table__).where(User.name == name))
        return next((_record(row) for row in rows), None)

    def put(self, record: UserRecord) -> Outcome:
        """Make this user what the record says. An empty ``api_key`` keeps the present one or generates one."""
        current = self.get(record.name)
        if not record.api_key:
            record = replace(record, api_key=current.api_key if current else secrets.token_hex(16))
        if current == record:
            return Outcome.UNCHANGED
        values: dict[str, Any] = {
            "password_hash": record.password_hash,
            "user_role": record.role.value,
            "email": record.email,
            "is_active": record.active,
            "api_key": record.api_key,
        }
        if current is None:
            values["created_at"] = self._configuration.now()
        self._configuration.store(User, {"name": record.name}, values, is_new=current is None)
        return Outcome.CREATED if current is None else Outcome.CHANGED

    def delete(self, name: str) -> None:
        """Delete a user who owns nothing; the permissions granted to him go too.

        Raises:
            NotFoundError: there is no such user.
            StoreError: he still owns something.
        """
        connection = self._configuration.connection
        user_id = self._configuration.user_id(name)
        for table, kind in _OWNED:
            columns = table.__table__.c
            if connection.execute(select(columns.id).where(columns.owner_id == user_id).limit(1)).first():
                raise StoreError(
                    f"The user {name!r} still owns {kind}: give it to somebody else, or deactivate the user."
                )
        connection.execute(delete(User).where(User.id == user_id))
        self._configuration.is_changed = True

    def by_api_key(self, api_key: str) -> UserRecord:
        """The active user of an API key.

        Raises:
            NotFoundError: no active user has it.
        """
        rows = self._configuration.connection.execute(select(User.__table__).where(User.api_key == api_key))
        user = next((_record(row) for row in rows), None)
        if user is None or not user.active:
            raise NotFoundError("No active user has this API key.")
        return user


def _record(row: Row[Any]) -> UserRecord:
    return UserRecord(
        name=row.name,
        role=Role(row.user_role),
        email=row.email,
        active=row.is_active,
        password_hash=row.password_hash,
        api_key=row.api_key,
        created_at=row.created_at,
    )
