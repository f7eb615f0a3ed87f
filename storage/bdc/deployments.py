"""KPs that run inside the platform: what was deployed, and whether it shall run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Row, delete, func, select, update

from sib.errors import LimitError, NotFoundError
from storage.bdc.configuration import Configuration
from storage.bdc.deployment_models import KpBundle, KpDeployment, KpRelease, KpSecret
from storage.bdc.models import Kp, User

RELEASES_KEPT = 10
"""Of one deployment; older ones go, and with them the files that nobody uses any more."""

SECRETS_MAX, SECRET_CHARS_MAX = 100, 64 * 1024
"""Of one KP, and of one of them."""


class RunState(StrEnum):
    """Whether a deployed KP shall run."""

    RUNNING = "running"
    STOPPED = "stopped"
    """It was told to stop, or has ended by itself as it should."""
    PAUSED = "paused"
    """It failed so often that it is not started again until somebody does."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """One deployed KP instance and its release in force."""

    kp: str
    instance: str
    owner: str
    """Of the KP, whose rights it has."""
    state: RunState
    detail: str
    release: int
    starts: int
    """Counted up each time that it is deployed or told to start: a worker that knows another number starts anew."""
    bundle: str
    manifest: Mapping[str, Any]
    deployed_by: str
    deployed_at: datetime
    changed_at: datetime


_SELECT = (
    select(
        KpDeployment.__table__,
        Kp.name.label("kp"),
        User.name.label("owner"),
        KpRelease.bundle_digest,
        KpRelease.manifest,
        KpRelease.deployed_by,
        KpRelease.created_at,
    )
    .join(Kp, Kp.id == KpDeployment.kp_id)
    .join(User, User.id == Kp.owner_id)
    .join(
        KpRelease,
        (KpRelease.deployment_id == KpDeployment.id) & (KpRelease.release_no == KpDeployment.release_no),
    )
)


class DeploymentRepository:
    """The deployed KPs, as one transaction sees them."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration

    def all(self, kp: str | None = None) -> list[Deployment]:
        """All, or those of one KP, by KP and instance."""
        statement = _SELECT if kp is None else _SELECT.where(Kp.name == kp)
        rows = self._configuration.connection.execute(statement.order_by(Kp.name, KpDeployment.instance_name))
        return [_record(row) for row in rows]

    def get(self, kp: str, instance: str) -> Deployment | None:
        statement = _SELECT.where(Kp.name == kp, KpDeployment.instance_name == instance)
        row = self._configuration.connection.execute(statement).first()
        return None if row is None else _record(row)

    def deploy(self, kp: str, instance: str, content: bytes, manifest: Mapping[str, Any], *, user: str) -> int:
        """Keep these files as the newest release, which shall run. Returns its number, counted from 1.

        Raises:
            NotFoundError: there is no such KP.
        """
        digest = self._put_bundle(content)
        id_ = self._id(kp, instance)
        release = 1
        if id_ is None:
            key = {"kp_id": self._configuration.kp_id(kp), "instance_name": instance}
            values = {"run_state": RunState.RUNNING.value, "detail_text": "", "release_no": 1, "starts": 1}
            self._configuration.store(
                KpDeployment, key, {**values, "changed_at": self._configuration.now()}, is_new=True
            )
            id_ = self._id(kp, instance)
        else:
            newest = select(func.max(KpRelease.release_no)).where(KpRelease.deployment_id == id_)
            release = int(self._configuration.connection.execute(newest).scalar() or 0) + 1
        key = {"deployment_id": id_, "release_no": release}
        values = {"bundle_digest": digest, "manifest": dict(manifest), "deployed_by": user}
        self._configuration.store(KpRelease, key, {**values, "created_at": self._configuration.now()}, is_new=True)
        if release > 1:
            self._start(id_, release)
        self._tidy(id_, release)
        return release

    def start(self, kp: str, instance: str, *, release: int | None = None) -> None:
        """It shall run (anew, if it runs), with the release in force or this one.

        Raises:
            NotFoundError: it is not deployed, or has no such release (any more).
        """
        present = self._require(kp, instance)
        id_ = self._id(kp, instance)
        wanted = present.release if release is None else release
        if wanted not in self.releases(kp, instance):
            raise NotFoundError(f"{kp}:{instance} has no release {wanted} (any more).")
        self._start(id_, wanted)

    def set_state(
        self, kp: str, instance: str, state: RunState, detail: str = "", *, starts: int | None = None
    ) -> bool:
        """Note that it shall not run (any more). With ``starts``: only if nobody has started it since. Says whether it did.

        Raises:
            NotFoundError: it is not deployed.
        """
        present = self._require(kp, instance)
        if (present.state, present.detail) == (state, detail) or starts not in (None, present.starts):
            return False
        self._update(self._id(kp, instance), run_state=state.value, detail_text=detail)
        return True

    def releases(self, kp: str, instance: str) -> list[int]:
        """The numbers of the releases that are kept."""
        statement = select(KpRelease.release_no).where(KpRelease.deployment_id == self._id(kp, instance))
        return sorted(int(row[0]) for row in self._configuration.connection.execute(statement))

    def delete(self, kp: str, instance: str) -> None:
        """Remove a deployment with its releases.

        Raises:
            NotFoundError: it is not deployed.
        """
        self._require(kp, instance)
        id_ = self._id(kp, instance)
        connection = self._configuration.connection
        connection.execute(delete(KpRelease).where(KpRelease.deployment_id == id_))
        connection.execute(delete(KpDeployment).where(KpDeployment.id == id_))
        self._configuration.is_changed = True
        self._forget_bundles()

    def bundle(self, digest: str) -> bytes:
        """The packed files of a digest.

        Raises:
            NotFoundError: there are none.
        """
        statement = select(KpBundle.content).where(KpBundle.digest == digest)
        row = self._configuration.connection.execute(statement).first()
        if row is None:
            raise NotFoundError(f"There is no KP bundle {digest!r}.")
        return bytes(row[0])

    def put_secret(self, kp: str, name: str, text: str) -> None:
        """Keep a text for the programs of a KP.

        Raises:
            NotFoundError: there is no such KP. LimitError: the KP has too many, or a name or text is too long.
        """
        names = self.secret_names(kp)
        if len(text) > SECRET_CHARS_MAX or (name not in names and len(names) >= SECRETS_MAX):
            raise LimitError(f"A KP has at most {SECRETS_MAX} secrets of at most {SECRET_CHARS_MAX} characters.")
        key = {"kp_id": self._configuration.kp_id(kp), "secret_name": name}
        self._configuration.store(KpSecret, key, {"secret_text": text}, is_new=name not in names)

    def secret_names(self, kp: str) -> list[str]:
        """The names of a KP's secrets.

        Raises:
            NotFoundError: there is no such KP.
        """
        statement = select(KpSecret.secret_name).where(KpSecret.kp_id == self._configuration.kp_id(kp))
        return sorted(row[0] for row in self._configuration.connection.execute(statement))

    def secret(self, kp: str, name: str) -> str:
        """A secret. Never to be logged.

        Raises:
            NotFoundError: the KP has none of this name.
        """
        statement = select(KpSecret.secret_text).join(Kp, Kp.id == KpSecret.kp_id)
        statement = statement.where(Kp.name == kp, KpSecret.secret_name == name)
        row = self._configuration.connection.execute(statement).first()
        if row is None:
            raise NotFoundError(f"The KP {kp!r} has no secret of this name: 'sofia2 kp secret set' gives it one.")
        return str(row[0])

    def delete_secret(self, kp: str, name: str) -> None:
        """Forget a secret. Idempotent."""
        found = delete(KpSecret).where(KpSecret.kp_id == self._configuration.kp_id(kp), KpSecret.secret_name == name)
        if self._configuration.connection.execute(found).rowcount:
            self._configuration.is_changed = True

    def _require(self, kp: str, instance: str) -> Deployment:
        present = self.get(kp, instance)
        if present is None:
            raise NotFoundError(f"{kp}:{instance} is not deployed.")
        return present

    def _id(self, kp: str, instance: str) -> Any:
        statement = (
            select(KpDeployment.id)
            .join(Kp, Kp.id == KpDeployment.kp_id)
            .where(Kp.name == kp, KpDeployment.instance_name == instance)
        )
        return self._configuration.connection.execute(statement).scalar()

    def _put_bundle(self, content: bytes) -> str:
        digest = hashlib.sha256(content).hexdigest()
        connection = self._configuration.connection
        if connection.execute(select(KpBundle.digest).where(KpBundle.digest == digest)).first() is None:
            values = {"content": content, "size_bytes": len(content), "created_at": self._configuration.now()}
            self._configuration.store(KpBundle, {"digest": digest}, values, is_new=True)
        return digest

    def _start(self, id_: Any, release: int) -> None:
        starts = KpDeployment.starts + 1
        self._update(id_, run_state=RunState.RUNNING.value, detail_text="", release_no=release, starts=starts)

    def _update(self, id_: Any, **values: Any) -> None:
        values["changed_at"] = self._configuration.now()
        self._configuration.connection.execute(update(KpDeployment).where(KpDeployment.id == id_).values(**values))
        self._configuration.is_changed = True

    def _tidy(self, id_: Any, release: int) -> None:
        old = delete(KpRelease).where(KpRelease.deployment_id == id_, KpRelease.release_no <= release - RELEASES_KEPT)
        if self._configuration.connection.execute(old).rowcount:
            self._forget_bundles()

    def _forget_bundles(self) -> None:
        used = select(KpRelease.bundle_digest)
        self._configuration.connection.execute(delete(KpBundle).where(KpBundle.digest.not_in(used)))


def _record(row: Row[Any]) -> Deployment:
    return Deployment(
        kp=row.kp,
        instance=row.instance_name,
        owner=row.owner,
        state=RunState(row.run_state),
        detail=row.detail_text,
        release=row.release_no,
        starts=row.starts,
        bundle=row.bundle_digest,
        manifest=row.manifest,
        deployed_by=row.deployed_by,
        deployed_at=row.created_at,
        changed_at=row.changed_at,
    )
