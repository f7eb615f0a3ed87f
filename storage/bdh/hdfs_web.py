"""History on HDFS through WebHDFS (the ``hdfs`` package), for clusters that open only HTTP."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import requests
from hdfs import HdfsError, InsecureClient  # type: ignore[import-untyped]

from sib.errors import SibError, StoreError, StoreUnavailableError
from storage.bdh.files import (
    CALL_TIMEOUT_S,
    CHUNK_BYTES,
    DATA_TIMEOUT_S,
    Address,
    Entry,
    PartExistsError,
    PartMissingError,
    new_attempt,
)

_UNAVAILABLE = {
    "Name node is in safe mode": "its NameNode is in safe mode; wait until it has left it",
    "startup mode": "its NameNode is starting",
    "Failed to find datanode": "it has no DataNode that answers; check them",
    "No active": "it has no DataNode that answers; check them",
    "could only be written to 0": "it has no DataNode that answers; check them",
    "EOFException": "its DataNode has lost its NameNode",
    "java.net.": "its DataNode does not reach its NameNode",
    "StandbyException": "its NameNode is on standby",
    "RetriableException": "its NameNode is starting",
    "Could not obtain block": "it has no DataNode that answers; check them",
}


class WebFiles:
    """A folder of HDFS. See ``HistoryFiles``. The user is the URL's, else that of ``HADOOP_USER_NAME``."""

    def __init__(self, url: str, address: Address) -> None:
        self.url = url
        self._root = address.root
        self._address = f"http://{address.host}:{address.port}"
        user = address.user or os.environ.get("HADOOP_USER_NAME")
        self._client = InsecureClient(self._address, user=user, timeout=(CALL_TIMEOUT_S, DATA_TIMEOUT_S))
        self._folders: set[str] = set()

    def put(self, path: str, tmp_path: str, data: memoryview) -> None:
        with self._errors(path):
            for each in (path, tmp_path):
                folder = self._full(each).rpartition("/")[0]
                if folder not in self._folders:
                    self._client.makedirs(folder)
                    self._folders.add(folder)
        attempt = new_attempt(self, tmp_path)
        self._write(attempt, data)
        try:
            with self._errors(path):
                self._client.rename(self._full(attempt), self._full(path))
        except SibError:
            if not self.exists(path):
                raise
            self.delete(attempt)
            raise PartExistsError(f"The history has a file {path!r} already.") from None

    def _write(self, path: str, data: memoryview) -> None:
        chunks = (bytes(data[at : at + CHUNK_BYTES]) for at in range(0, len(data), CHUNK_BYTES))
        try:
            with self._errors(path):
                self._client.write(self._full(path), data=chunks, overwrite=True)
                size_bytes = self._client.status(self._full(path))["length"]
        except PartMissingError:
            raise StoreUnavailableError("HDFS lost a file that was being written; it is tried again.") from None
        if size_bytes != len(data):
            raise StoreUnavailableError(f"HDFS at {self._address} kept only a part of a file; it is tried again.")

    def exists(self, path: str) -> bool:
        with self._errors(path):
            return self._client.status(self._full(path), strict=False) is not None

    def size_bytes(self, path: str) -> int:
        with self._errors(path):
            return int(self._client.status(self._full(path))["length"])

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        if length == 0:
            return b""
        with self._errors(path), self._client.read(self._full(path), offset=offset, length=length) as reader:
            return bytes(reader.read())

    def entries(self, folder: str) -> list[Entry]:
        try:
            with self._errors(folder):
                found = self._client.list(self._full(folder), status=True)
        except PartMissingError:
            return []
        return sorted((_entry(name, status) for name, status in found), key=lambda entry: entry.name)

    def delete(self, path: str) -> None:
        with self._errors(path):
            self._client.delete(self._full(path))

    def duckdb_path(self, path: str) -> str:
        return f"bdh://{path}"

    def close(self) -> None:
        self._client._session.close()
        self._folders.clear()

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root or "/"

    @contextmanager
    def _errors(self, path: str) -> Iterator[None]:
        try:
            yield
        except HdfsError as error:
            raise self._translated(error, path) from error
        except (requests.RequestException, OSError) as error:
            raise StoreUnavailableError(
                f"HDFS at {self._address} does not answer ({type(error).__name__}): check that it runs."
            ) from error

    def _translated(self, error: HdfsError, path: str) -> SibError:
        text, name = str(error), str(error.exception or "")
        if name == "FileNotFoundException" or "not found" in text or "does not exist" in text:
            return PartMissingError(f"The history has no file {path!r}.")
        if name == "AccessControlException":
            return StoreError(f"HDFS at {self._address} refuses: the platform's user may not use the folder.")
        for part, advice in _UNAVAILABLE.items():
            if part in text or part == name:
                return StoreUnavailableError(f"HDFS at {self._address} cannot be used now: {advice}.")
        return StoreError(f"HDFS at {self._address} refused {path!r}: {text[:200]}.")


def _entry(name: str, status: dict[str, Any]) -> Entry:
    modified = datetime.fromtimestamp(status["modificationTime"] / 1000, UTC).replace(tzinfo=None)
    return Entry(name, status["type"] == "DIRECTORY", status["length"], modified)
