"""Whose KPs the platform runs, and what such a KP may use."""

from __future__ import annotations

from collections.abc import Collection

from actors.kp.manifest import Manifest
from sib.access import Role
from sib.errors import AuthorizationError
from storage.bdc.records import KpRecord, UserRecord


def check_may_deploy(user: UserRecord | None, deployers: Collection[str]) -> None:
    """Whether the platform runs the KPs of this user: an active ADMINISTRADOR, or a COLABORADOR among ``deployers``.

    Raises:
        AuthorizationError: it does not; the message says what would change that.
    """
    if user is None or not user.active:
        raise AuthorizationError("the KP's owner does not exist or is not active")
    if user.role is Role.ADMINISTRADOR or (user.role is Role.COLABORADOR and user.name in deployers):
        return
    if user.role is Role.COLABORADOR:
        raise AuthorizationError(
            f"the user {user.name!r} may not have KPs run by the platform: an administrator can add him to kp.deployers"
        )
    raise AuthorizationError(f"the platform does not run the KPs of a {user.role.value}, such as {user.name!r}")


def unregistered(manifest: Manifest, kp: KpRecord) -> list[str]:
    """The ontologies that ``kp.toml`` names and that are not the KP's."""
    return [name for name in manifest.ontologies or () if name not in kp.ontologies]


def ontologies_of(manifest: Manifest) -> frozenset[str] | None:
    """What a KP is confined to."""
    return None if manifest.ontologies is None else frozenset(manifest.ontologies)
