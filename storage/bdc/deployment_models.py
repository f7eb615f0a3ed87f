"""The tables of KPs that run inside the platform."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKeyConstraint, Identity, Integer, PrimaryKeyConstraint, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from storage.bdc.models import Base
from storage.bdc.types import Blob, Json, LongText, key_type, moment_type, name_type


class KpBundle(Base):
    """The files of a KP, packed; named by what they are, so that the same files are kept once."""

    __tablename__ = "kp_bundles"
    __table_args__ = (PrimaryKeyConstraint("digest", name="pk_kp_bundles"),)
    digest: Mapped[str] = mapped_column(name_type(64))
    content: Mapped[bytes] = mapped_column(Blob, nullable=True)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(moment_type())


class KpDeployment(Base):
    """One instance of a KP that the platform runs, the release that it runs, and whether it shall run."""

    __tablename__ = "kp_deployments"
    __table_args__ = (
        UniqueConstraint("kp_id", "instance_name", name="uq_kp_deployments"),
        ForeignKeyConstraint(["kp_id"], ["kps.id"], name="fk_kp_deployments_kp", ondelete="CASCADE"),
    )
    id: Mapped[int] = mapped_column(key_type(), Identity(), primary_key=True)
    kp_id: Mapped[int] = mapped_column(BigInteger)
    instance_name: Mapped[str] = mapped_column(name_type())
    run_state: Mapped[str] = mapped_column(name_type(16))
    detail_text: Mapped[str] = mapped_column(LongText, nullable=True)
    release_no: Mapped[int] = mapped_column(Integer)
    starts: Mapped[int] = mapped_column(Integer)
    changed_at: Mapped[datetime] = mapped_column(moment_type())


class KpRelease(Base):
    """What was deployed, once a time: the files and what ``kp.toml`` said."""

    __tablename__ = "kp_releases"
    __table_args__ = (
        PrimaryKeyConstraint("deployment_id", "release_no", name="pk_kp_releases"),
        ForeignKeyConstraint(["deployment_id"], ["kp_deployments.id"], name="fk_kp_releases", ondelete="CASCADE"),
    )
    deployment_id: Mapped[int] = mapped_column(BigInteger)
    release_no: Mapped[int] = mapped_column(Integer, autoincrement=False)
    bundle_digest: Mapped[str] = mapped_column(name_type(64))
    manifest: Mapped[Any] = mapped_column(Json, nullable=False)
    deployed_by: Mapped[str] = mapped_column(name_type())
    created_at: Mapped[datetime] = mapped_column(moment_type())


class KpSecret(Base):
    """A text that the program of a KP may ask for and that nothing else shows."""

    __tablename__ = "kp_secrets"
    __table_args__ = (
        PrimaryKeyConstraint("kp_id", "secret_name", name="pk_kp_secrets"),
        ForeignKeyConstraint(["kp_id"], ["kps.id"], name="fk_kp_secrets_kp", ondelete="CASCADE"),
    )
    kp_id: Mapped[int] = mapped_column(BigInteger)
    secret_name: Mapped[str] = mapped_column(name_type())
    secret_text: Mapped[str] = mapped_column(LongText, nullable=True)
