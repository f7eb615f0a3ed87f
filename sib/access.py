"""Who may do what: roles, permissions and rights, and the order in which a request is checked.

The order of checks for every operation: the session is alive (the session shard's work), the ontology exists, the KP is
registered for it, it is active, the user has the right; the schema comes last and belongs to ``sib.ontology``.
Source: Sofia2 documentation, "Modelo de seguridad" (order and permissions) and "Conceptos" (role powers).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntFlag, StrEnum

from sib.errors import AuthenticationError, AuthorizationError, OntologyNotFoundError


class Role(StrEnum):
    """What a user is on the platform, spelled as in the configuration database."""

    ADMINISTRADOR = "ADMINISTRADOR"
    COLABORADOR = "COLABORADOR"
    USUARIO = "USUARIO"


class Permission(StrEnum):
    """What the owner of an ontology grants to another user."""

    ALL = "ALL"
    INSERT = "INSERT"
    QUERY = "QUERY"


class Rights(IntFlag):
    """What a user may do with one ontology. UPDATE and DELETE come only with ALL."""

    NONE = 0
    INSERT = 1
    QUERY = 2
    CHANGE = 4
    ALL = 7


_RIGHTS_OF_PERMISSION = {Permission.ALL: Rights.ALL, Permission.INSERT: Rights.INSERT, Permission.QUERY: Rights.QUERY}

_RIGHT_FOR_OPERATION = {
    "INSERT": Rights.INSERT,
    "QUERY": Rights.QUERY,
    "SUBSCRIBE": Rights.QUERY,
    "UPDATE": Rights.CHANGE,
    "DELETE": Rights.CHANGE,
}


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a JOIN turned out to be.

    ``user`` is the owner of the KP (token) or the user that joined. ``credential`` names what was shown
    (``token:<digest>`` or ``user:<digest>``) without being a secret: a session can be checked again by it when the
    configuration changes.
    """

    kp: str
    user: str
    role: Role
    cipher_key: str = field(repr=False)
    cipher_only: bool
    credential: str = ""

    @property
    def is_administrator(self) -> bool:
        return self.role is Role.ADMINISTRADOR


def rights_of(user: str, role: Role, *, owner: str, is_public: bool, permission: Permission | None) -> Rights:
    """What ``user`` may do with an ontology of ``owner`` to which he was granted ``permission``."""
    if user == owner or role is Role.ADMINISTRADOR:
        return Rights.ALL
    granted = Rights.NONE if permission is None else _RIGHTS_OF_PERMISSION[permission]
    return granted | Rights.QUERY if is_public else granted


def permission_name(rights: Rights) -> str:
    """The permission that CONFIG reports for these rights (``tipopermiso``): ALL, INSERT, QUERY or ""."""
    for permission in (Permission.ALL, Permission.INSERT, Permission.QUERY):
        if _RIGHTS_OF_PERMISSION[permission] in rights:
            return permission.value
    return ""


def right_for(operation: str) -> Rights:
    """The right that an operation on an ontology needs; ``operation`` is the SSAP message type.

    Raises:
        KeyError: the message type is not an operation on an ontology.
    """
    return _RIGHT_FOR_OPERATION[operation]


def authorize(operation: str, ontology: str, rights: Mapping[str, Rights], *, is_known: bool, is_active: bool) -> None:
    """Refuse an operation that the session's KP or user may not do. Does nothing if it may.

    Args:
        operation: INSERT, UPDATE, DELETE, QUERY or SUBSCRIBE.
        ontology: the ontology named in the statement, else the envelope's.
        rights: the ontologies registered with the KP, and what its user may do there.
        is_known: whether the platform has this ontology at all.
        is_active: whether the ontology is active.

    Raises:
        OntologyNotFoundError: the platform has no such ontology.
        AuthorizationError: it is not registered with the KP, not active, or the user lacks the right.
    """
    if not is_known:
        raise OntologyNotFoundError(f"There is no ontology {ontology!r}: check its name (it is case-sensitive).")
    granted = rights.get(ontology)
    if granted is None:
        raise AuthorizationError(
            f"The KP is not registered for the ontology {ontology!r}: add it to the KP's ontologies."
        )
    if not is_active:
        raise AuthorizationError(f"The ontology {ontology!r} is not active: its owner can activate it.")
    if right_for(operation) not in granted:
        raise AuthorizationError(
            f"The user may not {operation} in the ontology {ontology!r}: ask its owner for the permission."
        )


def check_may_join(kp: str, kp_owner: str, user: str, role: Role) -> None:
    """Refuse a JOIN by user and password for a KP of somebody else.

    Raises:
        AuthenticationError: the user neither owns the KP nor is ADMINISTRADOR.
    """
    if user != kp_owner and role is not Role.ADMINISTRADOR:
        raise AuthenticationError(f"The user may not join as KP {kp!r}: only its owner or an ADMINISTRADOR may.")


def may_create_ontologies(role: Role) -> bool:
    """USUARIO may create KPs, but no ontologies."""
    return role is not Role.USUARIO


def may_hear(makers: Iterable[tuple[str, Iterable[str]]], user: str, may_query: Callable[[str], bool]) -> bool:
    """Whether ``user`` may be told what CEP rules put out: he owns one of them, or may QUERY all that one of them reads.

    Args:
        makers: of each rule that puts it out its owner and the ontologies that it reads.
        user: the user.
        may_query: whether he may QUERY an ontology.
    """
    return any(owner == user or all(map(may_query, read)) for owner, read in makers)


def may_manage(user: str, role: Role, *, owner: str) -> bool:
    """Whether ``user`` may see the tokens of, and change, something that belongs to ``owner``."""
    return user == owner or role is Role.ADMINISTRADOR
