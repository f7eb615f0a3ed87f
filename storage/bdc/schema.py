"""Bring a BDC to the tables of this version, in process: no ``alembic.ini``, no current directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from sib.errors import ConfigurationError
from storage.bdc.models import SCHEMA_REVISION

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"


def current_revision(connection: Connection) -> str | None:
    """The migration this database stands at; None for an empty database."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if revision is None else str(revision)


def alembic_config(connection: Connection) -> Config:
    """An alembic configuration that works on this connection only."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def upgrade(connection: Connection) -> None:
    """Run the missing migrations inside the connection's transaction. Idempotent.

    Raises:
        ConfigurationError: the database was written by a newer version.
    """
    revision = current_revision(connection)
    if revision == SCHEMA_REVISION:
        return
    from alembic import command

    config = alembic_config(connection)
    _refuse_newer(config, revision)
    command.upgrade(config, "head")


def check(connection: Connection) -> None:
    """Refuse a database that is not at this version.

    Raises:
        ConfigurationError: it is empty, older or newer.
    """
    revision = current_revision(connection)
    if revision == SCHEMA_REVISION:
        return
    _refuse_newer(alembic_config(connection), revision)
    raise ConfigurationError("The configuration database has no tables of this version yet: `sofia2 start` makes them.")


def _refuse_newer(config: Config, revision: str | None) -> None:
    from alembic.script import ScriptDirectory

    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        raise ConfigurationError(
            f"The configuration database was written by a newer version of sofia2 (its migration is {revision}, this "
            f"version knows up to {SCHEMA_REVISION}): install that version, or use the backup made before the update."
        )
