"""Ontologies with their versions and permissions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row, delete, insert, select
from sqlalchemy.orm import aliased

from sib.access import Permission
from sib.errors import NotFoundError, StoreError
from storage.bdc.cep_models import CepEventRow
from storage.bdc.configuration import Configuration
from storage.bdc.models import DefinedQuery, Ontology, OntologyPermission, OntologyVersion, User
from storage.bdc.process_models import Process
from storage.bdc.records import IndexDeclaration, OntologyRecord, Outcome
from storage.bdc.rule_models import ScriptRule

_PARENT = aliased(Ontology)
_SELECT = (
    select(
        Ontology.__table__,
        User.name.label("owner"),
        _PARENT.name.label("parent"),
        OntologyVersion.schema_text.label("schema_text"),
    )
    .join(User, User.id == Ontology.owner_id)
    .join(
        OntologyVersion,
        (OntologyVersion.ontology_id == Ontology.id) & (OntologyVersion.version == Ontology.version),
    )
    .outerjoin(_PARENT, _PARENT.id == Ontology.parent_id)
)


class OntologyRepository:
    """The ontologies, as one transaction sees them."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration

    def all(self) -> list[OntologyRecord]:
        rows = self._configuration.connection.execute(_SELECT.order_by(Ontology.name)).all()
        permissions = self._permissions()
        return [_record(row, permissions.get(row.id, {})) for row in rows]

    def get(self, name: str) -> OntologyRecord | None:
        row = self._configuration.connection.execute(_SELECT.where(Ontology.name == name)).first()
        return None if row is None else _record(row, self._permissions(row.id).get(row.id, {}))

    def versions(self, name: str) -> dict[int, str]:
        """The schema texts of all versions, oldest first."""
        rows = self._configuration.connection.execute(
            select(OntologyVersion.version, OntologyVersion.schema_text)
            .where(OntologyVersion.ontology_id == self._configuration.ontology_id(name))
            .order_by(OntologyVersion.version)
        )
        return {row.version: row.schema_text for row in rows}

    def put(self, record: OntologyRecord) -> Outcome:
        """Make this ontology what the record says. A changed schema text becomes a new version; old ones stay.

        Raises:
            NotFoundError: its owner, its parent or a user of its permissions does not exist.
        """
        current = self.get(record.name)
        if current == record:
            return Outcome.UNCHANGED
        is_new_schema = current is None or current.schema_text != record.schema_text
        version = 1 if current is None else current.version + is_new_schema
        values: dict[str, Any] = {
            "owner_id": self._configuration.user_id(record.owner),
            "description": record.description,
            "template": record.template,
            "version": version,
            "is_active": record.active,
            "is_public": record.public,
            "parent_id": None if record.parent is None else self._configuration.ontology_id(record.parent),
            "index_list": [index.to_json() for index in record.indexes],
            "window_s": record.window_s,
        }
        if current is None:
            values["created_at"] = self._configuration.now()
        self._configuration.store(Ontology, {"name": record.name}, values, is_new=current is None)
        ontology_id = self._configuration.ontology_id(record.name)
        if is_new_schema:
            self._add_version(ontology_id, version, record.schema_text)
        if current is None or current.permissions != record.permissions:
            self._replace_permissions(ontology_id, record.permissions)
        return Outcome.CREATED if current is None else Outcome.CHANGED

    def grant(self, name: str, user: str, permission: Permission | None) -> None:
        """Give a user a permission on an ontology, or take it (None). Idempotent.

        Raises:
            NotFoundError: there is no such ontology or user.
        """
        ontology_id, user_id = self._configuration.ontology_id(name), self._configuration.user_id(user)
        connection = self._configuration.connection
        connection.execute(delete(OntologyPermission).filter_by(ontology_id=ontology_id, user_id=user_id))
        if permission is not None:
            row = {"ontology_id": ontology_id, "user_id": user_id, "permission": permission.value}
            connection.execute(insert(OntologyPermission).values(row))
        self._configuration.is_changed = True

    def delete(self, name: str) -> None:
        """Delete an ontology from the configuration; its instances in the BDTR are not touched.

        Raises:
            NotFoundError: there is no such ontology.
            StoreError: another ontology extends it, or a predefined query, CEP event, process or script rule names it.
        """
        connection = self._configuration.connection
        ontology_id = self._configuration.ontology_id(name)
        if connection.execute(select(Ontology.id).where(Ontology.parent_id == ontology_id).limit(1)).first():
            raise StoreError(f"Another ontology extends {name!r}: change or delete that one first.")
        if connection.execute(select(DefinedQuery.id).where(DefinedQuery.ontology_id == ontology_id).limit(1)).first():
            raise StoreError(f"A predefined query reads the ontology {name!r}: delete the query first.")
        needed_by = self._needed_by(name, ontology_id)
        if needed_by is not None:
            raise StoreError(f"The {needed_by} needs the ontology {name!r}: change or remove it first.")
        connection.execute(delete(Ontology).where(Ontology.id == ontology_id))
        self._configuration.is_changed = True

    def require(self, name: str) -> OntologyRecord:
        """Like ``get``, for an ontology that must exist.

        Raises:
            NotFoundError: there is no such ontology.
        """
        record = self.get(name)
        if record is None:
            raise NotFoundError(f"There is no ontology {name!r} (names are case-sensitive).")
        return record

    def _needed_by(self, name: str, ontology_id: int) -> str | None:
        """An event, process or rule that says nothing without this ontology."""
        connection = self._configuration.connection
        event = connection.execute(select(CepEventRow.name).where(CepEventRow.ontology_id == ontology_id)).scalar()
        if event is not None:
            return f"CEP event {event!r}"
        process = connection.execute(select(Process.name).where(Process.ontology == name)).scalar()
        if process is not None:
            return f"process {process!r}"
        rules = connection.execute(select(ScriptRule.name, ScriptRule.definition).order_by(ScriptRule.name))
        return next((f"rule {rule!r}" for rule, definition in rules if name in definition["ontologies"]), None)

    def _permissions(self, ontology_id: int | None = None) -> dict[int, dict[str, Permission]]:
        statement = select(OntologyPermission.ontology_id, OntologyPermission.permission, User.name).join(
            User, User.id == OntologyPermission.user_id
        )
        if ontology_id is not None:
            statement = statement.where(OntologyPermission.ontology_id == ontology_id)
        found: dict[int, dict[str, Permission]] = {}
        for row in self._configuration.connection.execute(statement.order_by(User.name)):
            found.setdefault(row.ontology_id, {})[row.name] = Permission(row.permission)
        return found

    def _add_version(self, ontology_id: int, version: int, schema_text: str) -> None:
        self._configuration.connection.execute(
            insert(OntologyVersion).values(
                ontology_id=ontology_id, version=version, schema_text=schema_text, created_at=self._configuration.now()
            )
        )

    def _replace_permissions(self, ontology_id: int, permissions: Mapping[str, Permission]) -> None:
        connection = self._configuration.connection
        connection.execute(delete(OntologyPermission).where(OntologyPermission.ontology_id == ontology_id))
        rows = [
            {"ontology_id": ontology_id, "user_id": self._configuration.user_id(user), "permission": permission.value}
            for user, permission in permissions.items()
        ]
        if rows:
            connection.execute(insert(OntologyPermission), rows)


def _record(row: Row[Any], permissions: Mapping[str, Permission]) -> OntologyRecord:
    return OntologyRecord(
        name=row.name,
        owner=row.owner,
        schema_text=row.schema_text,
        version=row.version,
        active=row.is_active,
        public=row.is_public,
        parent=row.parent,
        indexes=tuple(IndexDeclaration.from_json(index) for index in row.index_list),
        window_s=row.window_s,
        description=row.description,
        template=row.template,
        permissions=permissions,
        created_at=row.created_at,
    )
