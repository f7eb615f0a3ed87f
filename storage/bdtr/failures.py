"""What a failure of a relational database means: whether the same may succeed later, and what a person must do."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import exc

from sib.errors import ConfigurationError, SibError, StoreError, StoreUnavailableError


@contextmanager
def store_errors() -> Iterator[None]:
    """Turns failures of the database into the platform's errors.

    Raises:
        StoreUnavailableError: the database cannot decide now; the same may succeed later.
        StoreError: the database refused.
    """
    try:
        yield
    except SibError:
        raise
    except (exc.DBAPIError, sqlite3.Error) as error:
        original = error.orig if isinstance(error, exc.DBAPIError) else error
        is_lost = isinstance(error, exc.DBAPIError) and error.connection_invalidated
        raise _translated(original, is_lost) from error
    except exc.TimeoutError as error:
        raise StoreUnavailableError(
            "The BDTR has as many queries of this process at work as it may have; try again."
        ) from error
    except (exc.NoSuchModuleError, ModuleNotFoundError) as error:
        raise ConfigurationError(f"The driver of this BDTR is not installed: {error}.") from error


_BUSY = "another process is writing to the BDTR; it will be tried again"
_FULL = "the disk of the BDTR is full; free some space"
_READ_ONLY = "the BDTR is read-only; make it writable, and give the platform's user the right to write"
_PASSWORD = "it refuses the user or the password; check the URL and the rights of the user"  # noqa: S105
_NO_DATABASE = "it has no such database; check the URL or create the database"
_GONE = "it cannot be reached or has closed the connection; check that it runs, it will be tried again"
_SLOW = "it took too long; look for what keeps it busy, it will be tried again"
_NO_TABLE = "the BDTR has not been set up or its tables are gone; restart the platform or restore a backup"

_SQLITE = {
    "is locked": _BUSY,
    "is busy": _BUSY,
    "is full": _FULL,
    "readonly": "the BDTR's file or folder is read-only; give the platform's user the right to write there",
    "unable to open": "the BDTR's file cannot be opened; check that its folder exists and the platform's user may use it",
    "malformed": "the BDTR's file is damaged; stop the platform and restore it from a backup",
    "not a database": "the BDTR's file is no SQLite database; check the URL or restore it from a backup",
    "disk i/o error": "the disk of the BDTR reports errors; check the disk",
    "no such table": _NO_TABLE,
}

# Source: https://mariadb.com/docs/server/reference/error-codes and the client errors (2000 and more) of MySQL.
_MYSQL = {
    **dict.fromkeys((1205, 1213, 1412, 3572), _BUSY),
    **dict.fromkeys((1021, 1114, 1041), _FULL),
    **dict.fromkeys((1036, 1290, 1792, 1836, 3100, 1142), _READ_ONLY),
    **dict.fromkeys((1044, 1045, 1130, 1698, 1862), _PASSWORD),
    1049: _NO_DATABASE,
    **dict.fromkeys((1146, 1932), _NO_TABLE),
    **dict.fromkeys((1969, 3024), _SLOW),
    **dict.fromkeys((1040, 1053, 1077, 1080, 1152, 1158, 1159, 1160, 1161, 1203, 1226, 1927, 4031), _GONE),
}

# Source: https://www.postgresql.org/docs/current/errcodes-appendix.html
_POSTGRESQL = {
    **dict.fromkeys(("40001", "40P01", "55P03"), _BUSY),
    **dict.fromkeys(("53100", "53200"), _FULL),
    **dict.fromkeys(("25006", "42501"), _READ_ONLY),
    **dict.fromkeys(("28000", "28P01"), _PASSWORD),
    "3D000": _NO_DATABASE,
    **dict.fromkeys(("42P01", "3F000"), _NO_TABLE),
    "57014": _SLOW,
    **dict.fromkeys(("53300", "57P01", "57P02", "57P03", "57P05", "08000", "08003", "08006"), _GONE),
}

# Source: https://docs.oracle.com/error-help/db/
_ORACLE = {
    **dict.fromkeys(("ORA-00054", "ORA-00060", "ORA-08177", "ORA-30006"), _BUSY),
    **dict.fromkeys(("ORA-01536", "ORA-01652", "ORA-01653", "ORA-01654", "ORA-01691", "ORA-19809"), _FULL),
    **dict.fromkeys(("ORA-16000", "ORA-01031", "ORA-01456", "ORA-01647"), _READ_ONLY),
    **dict.fromkeys(("ORA-01017", "ORA-28000", "ORA-28001", "ORA-01045"), _PASSWORD),
    **dict.fromkeys(("ORA-12154", "ORA-12505", "ORA-12514"), _NO_DATABASE),
    "ORA-00942": _NO_TABLE,
    **dict.fromkeys(("DPY-4024", "ORA-03136", "ORA-01013"), _SLOW),
    **dict.fromkeys(("DPY-6005", "DPY-4011", "DPY-1001", "ORA-03113", "ORA-03114", "ORA-12541", "ORA-01033"), _GONE),
}


def explained(original: Any, database: str) -> str | None:
    """What a failure of a driver means for a database of this name, and what to do; None if we do not know it."""
    sentence = _meaning(original, _shortened(str(original)))
    return None if sentence is None else sentence.replace("the BDTR", f"the {database}")


def unavailable(sentence: str, text: str) -> StoreUnavailableError:
    """The error for a sentence of ours, which names neither paths nor people, and a text of a driver, which may."""
    return StoreUnavailableError(f"The database did not answer: {sentence} ({text}).", sentence.partition(";")[0])


def _translated(original: Any, is_lost: bool) -> SibError:
    text = _shortened(str(original))
    sentence = _meaning(original, text)
    if sentence is None and is_lost:
        sentence = _GONE
    if sentence is not None:
        return unavailable(sentence, text)
    return StoreError(f"The database refused the operation: {text}.")


def _meaning(original: Any, text: str) -> str | None:
    driver = type(original).__module__.partition(".")[0]
    if driver == "pymysql":
        code = original.args[0] if original.args else 0
        if code in (1028, 3) or (code in (1030, 1026, 1005) and "28" in text.partition("errno")[2][:6]):
            return _FULL
        return _MYSQL.get(code, _GONE if isinstance(code, int) and (2000 <= code < 2100 or code == 0) else None)
    if driver == "psycopg":
        state = getattr(original, "sqlstate", None)
        return _POSTGRESQL.get(state) if state else _of_connection(text)
    if driver == "oracledb":
        return next((sentence for code, sentence in _ORACLE.items() if code in text), None)
    lowered = text.lower()
    return next((sentence for part, sentence in _SQLITE.items() if part in lowered), None)


def _of_connection(text: str) -> str:
    """Psycopg gives no code when there was no connection to ask over."""
    lowered = text.lower()
    if "authentication failed" in lowered or "no pg_hba" in lowered:
        return _PASSWORD
    if "does not exist" in lowered:
        return _NO_DATABASE
    return _GONE


def _shortened(text: str) -> str:
    """One line: drivers add the statement or advice on further lines."""
    line = text.strip().partition("\n")[0].rstrip(".")
    return line if len(line) <= 300 else line[:300] + "…"
