"""The file systems that history can lie on, behind one small interface: whole files in, ranges out, all in bounded time."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, unquote, urlsplit

from sib.errors import ConfigurationError, StoreError

CALL_TIMEOUT_S = 5.0
"""Longest wait for one answer of a NameNode, and for the connection to a DataNode."""
DATA_TIMEOUT_S = 10.0
"""Longest wait for one chunk of data to be read or written."""
CHUNK_BYTES = 1 << 20
DEFAULT_PORTS = {"hdfs": 8020, "libhdfs": 8020, "webhdfs": 9870}


class PartExistsError(StoreError):
    """A file of this name is there already; it was not touched."""

    code = "history.exists"


class PartMissingError(StoreError):
    """The file is not there (any more)."""

    code = "history.missing"


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder inside a folder. ``modified_at`` is naive UTC."""

    name: str
    is_folder: bool
    size_bytes: int
    modified_at: datetime


class HistoryFiles(Protocol):
    """A root folder of history. Paths are relative to it, with ``/``. Safe for threads.

    Every call ends within a few multiples of ``DATA_TIMEOUT_S``, also when a server has stopped answering, and raises
    StoreUnavailableError when the file system cannot be used now, StoreError when it refuses.
    """

    url: str

    def put(self, path: str, tmp_path: str, data: memoryview) -> None:
        """Write a whole file: under ``tmp_path`` first (or a name that begins with it), durable, then named ``path``.

        What an interrupted attempt left under ``tmp_path`` is replaced or deleted.

        Raises:
            PartExistsError: there is a file of this name; it is as it was.
        """

    def exists(self, path: str) -> bool:
        """Whether there is a file."""

    def size_bytes(self, path: str) -> int:
        """The size of a file. Raises PartMissingError."""

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        """A range of a file, to its end by default. Raises PartMissingError."""

    def entries(self, folder: str) -> list[Entry]:
        """What is in a folder; empty if there is no such folder."""

    def delete(self, path: str) -> None:
        """Delete a file. Idempotent."""

    def duckdb_path(self, path: str) -> str:
        """How DuckDB names a file; other paths than those of the local folder go through ``adapter``."""

    def close(self) -> None:
        """Close connections; the object opens new ones if it is used again."""


def new_attempt(files: HistoryFiles, tmp_path: str) -> str:
    """A path for one attempt to write a file; deletes what attempts before have left.

    A server that was frozen carries out late what its client has given up: a name of its own for each attempt keeps that
    from the file that a later attempt writes.
    """
    folder, _, name = tmp_path.rpartition("/")
    for entry in files.entries(folder):
        if entry.name == name or entry.name.startswith(f"{name}."):
            files.delete(f"{folder}/{entry.name}")
    return f"{tmp_path}.{secrets.token_hex(6)}"


def open_files(url: str) -> HistoryFiles:
    """The file system that a BDH URL names. Nothing is contacted yet.

    Args:
        url: ``file:PATH``, ``hdfs://[USER@]HOST[:PORT]/PATH`` (RPC), ``webhdfs://…`` (HTTP) or ``libhdfs://…`` (pyarrow
            with Hadoop's native library).

    Raises:
        ConfigurationError: the URL is of no such kind, or a library for it is missing.
    """
    scheme = url.partition(":")[0].lower()
    try:
        if scheme == "file":
            from storage.bdh.local import LocalFiles

            return LocalFiles(_local_path(url))
        if scheme == "hdfs":
            from storage.bdh.hdfs_rpc import RpcFiles

            return RpcFiles(url, _parsed(url))
        if scheme == "webhdfs":
            from storage.bdh.hdfs_web import WebFiles

            return WebFiles(url, _parsed(url))
        if scheme == "libhdfs":
            from storage.bdh.hdfs_jvm import JvmFiles

            return JvmFiles(url, _parsed(url))
    except ImportError as error:
        raise ConfigurationError(f"The library for a BDH on {scheme} is not installed: {error.name}.") from None
    raise ConfigurationError(_unknown(scheme))


def check_url(url: str) -> str:
    """Refuses a BDH URL that cannot be used, without asking the file system. Returns it; a local folder absolute.

    Raises:
        ConfigurationError: what is wrong, without showing the URL.
    """
    scheme = url.partition(":")[0].lower()
    if scheme == "file":
        return f"file:{_local_path(url)}"
    if scheme not in DEFAULT_PORTS:
        raise ConfigurationError(_unknown(scheme))
    _parsed(url)
    return url


def _unknown(scheme: str) -> str:
    return f"No BDH has URLs of the kind {scheme[:20]!r}; use file:FOLDER, hdfs://HOST:PORT/FOLDER or webhdfs://…"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a Hadoop file system is: NameNode, folder and the user that acts there."""

    host: str
    port: int
    root: str
    user: str | None


def _parsed(url: str) -> Address:
    try:
        parts: SplitResult = urlsplit(url)
        port = parts.port or DEFAULT_PORTS[parts.scheme.lower()]
    except ValueError:
        raise ConfigurationError("The BDH URL cannot be read: write hdfs://HOST:PORT/FOLDER.") from None
    if not parts.hostname or parts.query or parts.fragment or parts.password:
        raise ConfigurationError("A BDH URL has a host, a port and a folder: hdfs://HOST:PORT/FOLDER.")
    root = "/" + unquote(parts.path).strip("/")
    return Address(parts.hostname, port, root.rstrip("/"), parts.username)


def _local_path(url: str) -> Path:
    rest = url.partition(":")[2]
    if rest.startswith("//"):
        rest = unquote(urlsplit(url).path) if rest.startswith("///") else ""
    if not rest:
        raise ConfigurationError("A BDH in a local folder is file:FOLDER, for example file:/var/lib/sofia2/bdh.")
    return Path(rest).expanduser().absolute()
