"""Who joins, and what he may do: the reads behind JOIN and behind every check of a session."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, Select, and_, bindparam, select
from sqlalchemy.orm import aliased

from sib.access import Identity, Permission, Rights, Role, check_may_join, rights_of
from sib.errors import AuthenticationError, NotFoundError
from storage.bdc.credentials import is_token_credential, password_credential, token_credential
from storage.bdc.engine import Database
from storage.bdc.models import Kp, KpOntology, Ontology, OntologyPermission, Token, User
from storage.bdc.passwords import PasswordChecker
from storage.bdc.types import is_set

KEYS_A_STATEMENT = 500
"""How many names go into one IN list; Oracle allows 1000."""

_NOT_A_KP = "The token is not valid for this KP: check the instance (KP:instance) and the token, then JOIN again."
_USER_REFUSED = "User or password are wrong, or the KP does not exist: check them, then JOIN again."

_IDENTIFY = (
    select(Kp.cipher_key, Kp.is_cipher_only, User.name.label("user"), User.user_role)
    .join(Token, Token.kp_id == Kp.id)
    .join(User, User.id == Kp.owner_id)
    .where(
        Token.token == bindparam("token"), Kp.name == bindparam("kp"), is_set(Token.is_active), is_set(User.is_active)
    )
)
_IDENTIFY_USER = select(User.name, User.password_hash, User.user_role, User.is_active).where(
    User.name == bindparam("user")
)
_KP = select(Kp.cipher_key, Kp.is_cipher_only, User.name.label("owner")).join(User, User.id == Kp.owner_id)
_KP_BY_NAME = _KP.where(Kp.name == bindparam("kp"))

_OWNER = aliased(User)
_JOINED = aliased(User)
_RIGHTS = (
    select(
        Ontology.name,
        Ontology.is_public,
        _OWNER.name.label("owner"),
        _JOINED.user_role,
        OntologyPermission.permission,
    )
    .select_from(Kp)
    .join(KpOntology, KpOntology.kp_id == Kp.id)
    .join(Ontology, Ontology.id == KpOntology.ontology_id)
    .join(_OWNER, _OWNER.id == Ontology.owner_id)
    .join(_JOINED, and_(_JOINED.name == bindparam("user"), is_set(_JOINED.is_active)))
    .outerjoin(
        OntologyPermission,
        and_(OntologyPermission.ontology_id == Ontology.id, OntologyPermission.user_id == _JOINED.id),
    )
    .where(Kp.name == bindparam("kp"))
)

Item = TypeVar("Item")


def chunks(items: Iterable[Item], size: int = KEYS_A_STATEMENT) -> Iterator[list[Item]]:
    """The items in lists of at most ``size``."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size)):
        yield chunk


class Identities:
    """Answers who somebody is. Every call is one transaction; safe for threads."""

    def __init__(self, database: Database, monotonic: Callable[[], float]) -> None:
        self._database = database
        self._passwords = PasswordChecker(monotonic)

    def identify(self, kp: str, token: str) -> Identity:
        """The identity of a JOIN by token: the owner of the KP.

        Raises:
            AuthenticationError: no such KP, not its token, the token is off, or the owner is not active; all in
                the same words.
        """
        row = self._first(_IDENTIFY, kp=kp, token=token)
        if row is None:
            raise AuthenticationError(_NOT_A_KP)
        return Identity(kp, row.user, Role(row.user_role), row.cipher_key, row.is_cipher_only, token_credential(token))

    def identify_user(self, kp: str, user: str, password: str) -> Identity:
        """The identity of a JOIN by user and password, who owns the KP or is ADMINISTRADOR.

        Raises:
            AuthenticationError: user, password or KP are wrong, the user is not active or may not join as this KP.
        """
        joining = self._log_in(user, password)
        row = self._first(_KP_BY_NAME, kp=kp)
        if row is None:
            raise AuthenticationError(_USER_REFUSED)
        role = Role(joining.user_role)
        check_may_join(kp, row.owner, user, role)
        return Identity(kp, user, role, row.cipher_key, row.is_cipher_only, password_credential(joining.password_hash))

    def log_in(self, user: str, password: str) -> Role:
        """Check user and password alone (REST with Basic authentication, the console).

        Raises:
            AuthenticationError: no such user, wrong password, or not active.
        """
        return Role(self._log_in(user, password).user_role)

    def _log_in(self, user: str, password: str) -> Any:
        row = self._first(_IDENTIFY_USER, user=user)
        if not self._passwords.is_right(row.password_hash if row else "", password) or row is None or not row.is_active:
            raise AuthenticationError(_USER_REFUSED)
        return row

    def recheck(self, holders: Sequence[tuple[str, str, str]]) -> list[Identity | None]:
        """Check sessions again after a change of the configuration.

        Args:
            holders: (kp, user, credential) of each session.

        Returns:
            In the same order what each is now; None for one that could no longer join.
        """
        with self._database.read() as connection:
            now = _load_holders(connection, holders)
        return [now.identity(*holder) for holder in holders]

    def cipher_keys(self) -> dict[str, str]:
        """The cipher key of every KP. Never to be logged."""
        with self._database.read() as connection:
            return {row.name: row.cipher_key for row in connection.execute(select(Kp.name, Kp.cipher_key))}

    def owner_of(self, kp: str) -> str:
        """The owner of a KP.

        Raises:
            NotFoundError: there is no such KP.
        """
        row = self._first(_KP_BY_NAME, kp=kp)
        if row is None:
            raise NotFoundError(f"There is no KP {kp!r} (names are case-sensitive).")
        return str(row.owner)

    def rights(self, kp: str, user: str) -> dict[str, Rights]:
        """The ontologies registered with the KP, active or not, and what the user may do there (possibly nothing)."""
        with self._database.read() as connection:
            rows = connection.execute(_RIGHTS, {"kp": kp, "user": user}).all()
        return {row.name: _row_rights(user, row) for row in rows}

    def _first(self, statement: Select[*tuple[Any, ...]], **names: str) -> Any:
        try:
            for name in names.values():
                name.encode()
        except UnicodeEncodeError:  # half a character: nobody is called so, and no driver could ask for it
            return None
        with self._database.read() as connection:
            return connection.execute(statement, names).first()


@dataclass(frozen=True, slots=True)
class _Holders:
    """What the BDC says now about the KPs, users and tokens of some sessions."""

    kps: dict[str, Any]
    users: dict[str, Any]
    tokens: set[tuple[str, str]]

    def identity(self, kp: str, user: str, credential: str) -> Identity | None:
        row, joined = self.kps.get(kp), self.users.get(user)
        if row is None or joined is None:
            return None
        role = Role(joined.user_role)
        if is_token_credential(credential):
            is_good = user == row.owner and (kp, credential) in self.tokens
        else:
            may_join = user == row.owner or role is Role.ADMINISTRADOR
            is_good = may_join and credential == password_credential(joined.password_hash)
        return Identity(kp, user, role, row.cipher_key, row.is_cipher_only, credential) if is_good else None


def _load_holders(connection: Connection, holders: Sequence[tuple[str, str, str]]) -> _Holders:
    kps: dict[str, Any] = {}
    users: dict[str, Any] = {}
    tokens: set[tuple[str, str]] = set()
    for names in chunks({kp for kp, _, _ in holders}):
        kps |= {row.name: row for row in connection.execute(_KP.add_columns(Kp.name).where(Kp.name.in_(names)))}
    for names in chunks({user for _, user, _ in holders}):
        statement = select(User.name, User.user_role, User.password_hash)
        rows = connection.execute(statement.where(User.name.in_(names), is_set(User.is_active)))
        users |= {row.name: row for row in rows}
    for credentials in chunks({credential for _, _, credential in holders if is_token_credential(credential)}):
        good_tokens = select(Kp.name, Token.credential).join(Kp, Kp.id == Token.kp_id).where(is_set(Token.is_active))
        rows_of_tokens = connection.execute(good_tokens.where(Token.credential.in_(credentials)))
        tokens |= {(row.name, row.credential) for row in rows_of_tokens}
    return _Holders(kps, users, tokens)


def _row_rights(user: str, row: Row[*tuple[Any, ...]]) -> Rights:
    permission = None if row.permission is None else Permission(row.permission)
    return rights_of(user, Role(row.user_role), owner=row.owner, is_public=row.is_public, permission=permission)
