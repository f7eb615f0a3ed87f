"""KPs with their ontologies, tokens and instances."""

from __future__ import annotations

import secrets
import uuid
from dataclasses import replace
from typing import Any

from sqlalchemy import Row, delete, insert, select

from sib.errors import NotFoundError, StoreError
from storage.bdc.configuration import Configuration
from storage.bdc.credentials import token_credential
from storage.bdc.models import Kp, KpInstance, KpOntology, Ontology, Token, User
from storage.bdc.records import InstanceRecord, KpRecord, Outcome, TokenRecord

_SELECT_KP = select(Kp.__table__, User.name.label("owner")).join(User, User.id == Kp.owner_id)
_SELECT_TOKEN = select(Token.__table__, Kp.name.label("kp")).join(Kp, Kp.id == Token.kp_id)
_SELECT_INSTANCE = select(KpInstance.__table__, Kp.name.label("kp")).join(Kp, Kp.id == KpInstance.kp_id)


def new_token() -> str:
    """A token as the platform generates them: 32 hexadecimal digits."""
    return secrets.token_hex(16)


class KpRepository:
    """The KPs, as one transaction sees them."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration

    def all(self) -> list[KpRecord]:
        rows = self._configuration.connection.execute(_SELECT_KP.order_by(Kp.name)).all()
        ontologies = self._ontologies()
        return [_kp_record(row, ontologies.get(row.id, set())) for row in rows]

    def get(self, name: str) -> KpRecord | None:
        row = self._configuration.connection.execute(_SELECT_KP.where(Kp.name == name)).first()
        return None if row is None else _kp_record(row, self._ontologies(row.id).get(row.id, set()))

    def require(self, name: str) -> KpRecord:
        """Like ``get``, for a KP that must exist.

        Raises:
            NotFoundError: there is no such KP.
        """
        record = self.get(name)
        if record is None:
            raise NotFoundError(f"There is no KP {name!r} (names are case-sensitive).")
        return record

    def put(self, record: KpRecord) -> Outcome:
        """Make this KP what the record says. An empty ``cipher_key`` keeps the present one or generates a UUID.

        Raises:
            NotFoundError: its owner or one of its ontologies does not exist.
        """
        current = self.get(record.name)
        if not record.cipher_key:
            record = replace(record, cipher_key=current.cipher_key if current else str(uuid.uuid4()))
        if current == record:
            return Outcome.UNCHANGED
        values: dict[str, Any] = {
            "owner_id": self._configuration.user_id(record.owner),
            "description": record.description,
            "cipher_key": record.cipher_key,
            "is_cipher_only": record.cipher_only,
            "meta": dict(record.meta),
        }
        if current is None:
            values["created_at"] = self._configuration.now()
        self._configuration.store(Kp, {"name": record.name}, values, is_new=current is None)
        if current is None or current.ontologies != record.ontologies:
            self._replace_ontologies(self._configuration.kp_id(record.name), record.ontologies)
        return Outcome.CREATED if current is None else Outcome.CHANGED

    def delete(self, name: str) -> None:
        """Delete a KP with its tokens and instances; its sessions end at the next check of the session shards.

        Raises:
            NotFoundError: there is no such KP.
        """
        kp_id = self._configuration.kp_id(name)
        self._configuration.connection.execute(delete(Kp).where(Kp.id == kp_id))
        self._configuration.is_changed = True

    def _ontologies(self, kp_id: int | None = None) -> dict[int, set[str]]:
        statement = select(KpOntology.kp_id, Ontology.name).join(Ontology, Ontology.id == KpOntology.ontology_id)
        if kp_id is not None:
            statement = statement.where(KpOntology.kp_id == kp_id)
        found: dict[int, set[str]] = {}
        for row in self._configuration.connection.execute(statement):
            found.setdefault(row.kp_id, set()).add(row.name)
        return found

    def _replace_ontologies(self, kp_id: int, ontologies: frozenset[str]) -> None:
        connection = self._configuration.connection
        connection.execute(delete(KpOntology).where(KpOntology.kp_id == kp_id))
        rows = [{"kp_id": kp_id, "ontology_id": self._configuration.ontology_id(name)} for name in sorted(ontologies)]
        if rows:
            connection.execute(insert(KpOntology), rows)


class TokenRepository:
    """The tokens, as one transaction sees them."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration

    def all(self, kp: str | None = None) -> list[TokenRecord]:
        """The tokens of one KP, or of all, in the order they were made."""
        statement = _SELECT_TOKEN if kp is None else _SELECT_TOKEN.where(Kp.name == kp)
        return [_token_record(row) for row in self._configuration.connection.execute(statement.order_by(Token.id))]

    def get(self, token: str) -> TokenRecord | None:
        row = self._configuration.connection.execute(_SELECT_TOKEN.where(Token.token == token)).first()
        return None if row is None else _token_record(row)

    def add(self, kp: str) -> str:
        """Generate one active token for a KP and give it.

        Raises:
            NotFoundError: there is no such KP.
        """
        token = new_token()
        self.put(TokenRecord(token=token, kp=kp))
        return token

    def put(self, record: TokenRecord) -> Outcome:
        """Make this token active or not.

        Raises:
            NotFoundError: there is no such KP.
            StoreError: the token belongs to another KP.
        """
        current = self.get(record.token)
        if current == record:
            return Outcome.UNCHANGED
        if current is not None and current.kp != record.kp:
            raise StoreError(f"The token belongs to the KP {current.kp!r}: a token belongs to exactly one KP.")
        values: dict[str, Any] = {"is_active": record.active}
        if current is None:
            values |= {
                "kp_id": self._configuration.kp_id(record.kp),
                "credential": token_credential(record.token),
                "created_at": self._configuration.now(),
            }
        self._configuration.store(Token, {"token": record.token}, values, is_new=current is None)
        return Outcome.CREATED if current is None else Outcome.CHANGED

    def delete(self, token: str) -> None:
        """Delete a token. Idempotent."""
        if self._configuration.connection.execute(delete(Token).where(Token.token == token)).rowcount:
            self._configuration.is_changed = True


class InstanceRepository:
    """The KP instances, as one transaction sees them."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration

    def all(self, kp: str | None = None) -> list[InstanceRecord]:
        """The instances of one KP, or of all, by name."""
        statement = _SELECT_INSTANCE if kp is None else _SELECT_INSTANCE.where(Kp.name == kp)
        rows = self._configuration.connection.execute(statement.order_by(Kp.name, KpInstance.name))
        return [_instance_record(row) for row in rows]

    def put_static(self, kp: str, names: frozenset[str]) -> Outcome:
        """Make exactly these the static instances of a KP; others that were seen stay, as ordinary ones.

        Raises:
            NotFoundError: there is no such KP.
        """
        kp_id = self._configuration.kp_id(kp)
        present = {instance.name: instance.static for instance in self.all(kp)}
        wanted = {name: name in names for name in present.keys() | names}
        if wanted == present:
            return Outcome.UNCHANGED
        for name, is_static in wanted.items():
            if present.get(name) != is_static:
                key = {"kp_id": kp_id, "name": name}
                self._configuration.store(KpInstance, key, {"is_static": is_static}, is_new=name not in present)
        return Outcome.CHANGED


def _kp_record(row: Row[Any], ontologies: set[str]) -> KpRecord:
    return KpRecord(
        name=row.name,
        owner=row.owner,
        ontologies=frozenset(ontologies),
        description=row.description,
        cipher_key=row.cipher_key,
        cipher_only=row.is_cipher_only,
        meta=row.meta,
        created_at=row.created_at,
    )


def _token_record(row: Row[Any]) -> TokenRecord:
    return TokenRecord(token=row.token, kp=row.kp, active=row.is_active, created_at=row.created_at, used_at=row.used_at)


def _instance_record(row: Row[Any]) -> InstanceRecord:
    return InstanceRecord(
        kp=row.kp, name=row.name, static=row.is_static, last_address=row.last_address, last_seen_at=row.last_seen_at
    )
