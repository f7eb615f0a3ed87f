"""One look into a BDC on SQLite without SQLAlchemy, whose import alone takes longer than a short command may.

Invariant: reads only, and gives what the repositories give; a test compares them. Whatever cannot be read so quickly is None:
then ask the BDC itself.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import quote

BUSY_TIMEOUT_S = 5.0

_SCHEMA = """
    SELECT versions.schema_text, ontologies.version FROM ontologies
    JOIN ontology_versions AS versions
      ON versions.ontology_id = ontologies.id AND versions.version = ontologies.version
    WHERE ontologies.name = ?
"""


def read_schema(url: str, ontology: str) -> tuple[str, int] | None:
    """The schema text in force of an ontology, and its version.

    None: this BDC is on another database or of another version, or has no such ontology.
    """
    if not url.startswith("sqlite:///"):
        return None
    path = Path(url.removeprefix("sqlite:///"))
    try:
        uri = f"file:{quote(str(path.resolve()))}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S)) as connection:
            row = connection.execute(_SCHEMA, (ontology,)).fetchone()
    except (OSError, sqlite3.Error):
        return None
    return None if row is None or row[0] is None else (str(row[0]), int(row[1]))
