"""DuckDB as the history uses it: shut off from everything else, its failures as the platform's errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from sib.errors import LimitError, QueryError, QueryTimeoutError, SqlSyntaxError, StoreError, StoreUnavailableError
from storage.bdh.adapter import HistoryFileSystem
from storage.bdh.files import HistoryFiles, PartMissingError
from storage.bdh.local import LocalFiles
from storage.bdh.scan import literal

TOO_LONG = "The query took longer than it may: narrow its conditions, or raise query.time_limit_s."


def open_engine(files: HistoryFiles, memory_bytes: int, threads: int) -> duckdb.DuckDBPyConnection:
    """A DuckDB in memory that can read the history and nothing else of this machine or any other."""
    database = duckdb.connect(
        config={
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "memory_limit": f"{memory_bytes >> 20}MiB",
            "python_enable_replacements": False,
            "temp_directory": "",  # what does not fit into the memory is refused, not written somewhere
            "threads": threads,
        }
    )
    allowed = "bdh://"
    if isinstance(files, LocalFiles):
        allowed = f"{files.root}/"
    else:
        database.register_filesystem(HistoryFileSystem(files.url, files))
    for statement in (
        f"SET allowed_directories = [{literal(allowed)}]",
        "SET parquet_metadata_cache = true",
        "SET enable_external_access = false",
        "SET TimeZone = 'UTC'",
        "SET lock_configuration = true",
    ):
        database.execute(statement)
    return database


@contextmanager
def translated() -> Iterator[None]:
    """Within the block, failures of DuckDB come out as the platform's errors."""
    try:
        yield
    except duckdb.InterruptException:
        raise QueryTimeoutError(TOO_LONG) from None
    except duckdb.OutOfMemoryException:
        raise LimitError("The query needs more memory than it may have: narrow its conditions.") from None
    except (duckdb.IOException, PartMissingError) as error:
        raise StoreUnavailableError(f"The history cannot be read now: {_first_line(error)}") from error
    except (duckdb.ParserException, duckdb.BinderException, duckdb.CatalogException) as error:
        raise SqlSyntaxError(f"The query cannot be carried out: {_first_line(error)}") from error
    except duckdb.InvalidInputException as error:
        kind = StoreError if "Failed to read file" in str(error) else QueryError  # it names the file
        raise kind(f"The query failed: {_first_line(error)}") from error
    except duckdb.Error as error:
        raise QueryError(f"The query failed: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:300]
