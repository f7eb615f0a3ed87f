"""Predefined queries, assets, settings and templates."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row, delete, select

from storage.bdc.configuration import Configuration
from storage.bdc.models import Asset, Kp, Ontology, Setting, Template, User
from storage.bdc.models import DefinedQuery as DefinedQueryTable
from storage.bdc.records import AssetRecord, DefinedQuery, Outcome, TemplateRecord

_SELECT_QUERY = select(DefinedQueryTable.__table__, Ontology.name.label("ontology")).join(
    Ontology, Ontology.id == DefinedQueryTable.ontology_id
)
_SELECT_ASSET = (
    select(Asset.__table__, User.name.label("owner"), Kp.name.label("kp"))
    .join(User, User.id == Asset.owner_id)
    .outerjoin(Kp, Kp.id == Asset.kp_id)
)


class QueryRepository:
    """The predefined queries, as one transaction sees them."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration

    def all(self) -> list[DefinedQuery]:
        rows = self._configuration.connection.execute(_SELECT_QUERY.order_by(DefinedQueryTable.name))
        return [_query_record(row) for row in rows]

    def get(self, name: str) -> DefinedQuery | None:
        row = self._configuration.connection.execute(_SELECT_QUERY.where(DefinedQueryTable.name == name)).first()
        return None if row is None else _query_record(row)

    def put(self, record: DefinedQuery) -> Outcome:
        """Make this query what the record says.

        Raises:
            NotFoundError: its ontology does not exist.
        """
        current = self.get(record.name)
        if current == record:
            return Outcome.UNCHANGED
        values: dict[str, Any] = {
            "ontology_id": self._configuration.ontology_id(record.ontology),
            "query_type": record.type,
            "query_text": record.text,
            "params": dict(record.params),
        }
        self._configuration.store(DefinedQueryTable, {"name": record.name}, values, is_new=current is None)
        return Outcome.CREATED if current is None else Outcome.CHANGED

    def delete(self, name: str) -> None:
        """Delete a query. Idempotent."""
        if self._configuration.connection.execute(delete(DefinedQueryTable).filter_by(name=name)).rowcount:
            self._configuration.is_changed = True


class AssetRepository:
    """The assets, as one transaction sees them."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration

    def all(self, owner: str | None = None) -> list[AssetRecord]:
        """The assets of one user, or of all."""
        statement = _SELECT_ASSET if owner is None else _SELECT_ASSET.where(User.name == owner)
        rows = self._configuration.connection.execute(statement.order_by(Asset.identificacion))
        return [_asset_record(row) for row in rows]

    def get(self, identificacion: str) -> AssetRecord | None:
        statement = _SELECT_ASSET.where(Asset.identificacion == identificacion)
        row = self._configuration.connection.execute(statement).first()
        return None if row is None else _asset_record(row)

    def put(self, record: AssetRecord) -> Outcome:
        """Make this asset what the record says.

        Raises:
            NotFoundError: its owner or its KP does not exist.
        """
        current = self.get(record.identificacion)
        if current == record:
            return Outcome.UNCHANGED
        values: dict[str, Any] = {
            "owner_id": self._configuration.user_id(record.owner),
            "descripcion": record.descripcion,
            "tipo": record.tipo,
            "kp_id": None if record.kp is None else self._configuration.kp_id(record.kp),
            "properties": dict(record.properties),
        }
        if current is None:
            values["created_at"] = self._configuration.now()
        self._configuration.store(Asset, {"identificacion": record.identificacion}, values, is_new=current is None)
        return Outcome.CREATED if current is None else Outcome.CHANGED

    def delete(self, identificacion: str) -> None:
        """Delete an asset. Idempotent."""
        if self._configuration.connection.execute(delete(Asset).filter_by(identificacion=identificacion)).rowcount:
            self._configuration.is_changed = True


class SettingRepository:
    """The applied settings, as one transaction sees them."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration

    def all(self) -> dict[str, Any]:
        rows = self._configuration.connection.execute(select(Setting.__table__).order_by(Setting.name))
        return {row.name: row.value_json for row in rows}

    def put(self, name: str, value: Any) -> Outcome:
        """Set a setting to a JSON value; its meaning is the caller's to check."""
        current = self.all()
        # True == 1 in Python, but they are different settings.
        if name in current and current[name] == value and type(current[name]) is type(value):
            return Outcome.UNCHANGED
        self._configuration.store(Setting, {"name": name}, {"value_json": value}, is_new=name not in current)
        return Outcome.CHANGED if name in current else Outcome.CREATED

    def delete(self, name: str) -> None:
        """Go back to the settings file or the default. Idempotent."""
        if self._configuration.connection.execute(delete(Setting).filter_by(name=name)).rowcount:
            self._configuration.is_changed = True


class TemplateRepository:
    """Templates beside the built-in catalogue, as one transaction sees them."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration

    def all(self) -> list[TemplateRecord]:
        statement = select(Template.__table__).order_by(Template.name, Template.version)
        return [_template_record(row) for row in self._configuration.connection.execute(statement)]

    def get(self, name: str, version: int | None = None) -> TemplateRecord | None:
        """A template, in its newest version unless one is told."""
        statement = select(Template.__table__).where(Template.name == name)
        if version is not None:
            statement = statement.where(Template.version == version)
        row = self._configuration.connection.execute(statement.order_by(Template.version.desc()).limit(1)).first()
        return None if row is None else _template_record(row)

    def put(self, record: TemplateRecord) -> Outcome:
        """Make this version of a template what the record says."""
        current = self.get(record.name, record.version)
        if current == record:
            return Outcome.UNCHANGED
        key = {"name": record.name, "version": record.version}
        values = {
            "category": record.category,
            "description": record.description,
            "schema_text": record.schema_text,
        }
        self._configuration.store(Template, key, values, is_new=current is None)
        return Outcome.CREATED if current is None else Outcome.CHANGED


def _query_record(row: Row[Any]) -> DefinedQuery:
    return DefinedQuery(
        name=row.name, ontology=row.ontology, type=row.query_type, text=row.query_text, params=row.params
    )


def _asset_record(row: Row[Any]) -> AssetRecord:
    return AssetRecord(
        identificacion=row.identificacion,
        owner=row.owner,
        descripcion=row.descripcion,
        tipo=row.tipo,
        kp=row.kp,
        properties=row.properties,
    )


def _template_record(row: Row[Any]) -> TemplateRecord:
    return TemplateRecord(
        name=row.name,
        version=row.version,
        category=row.category,
        description=row.description,
        schema_text=row.schema_text,
    )
