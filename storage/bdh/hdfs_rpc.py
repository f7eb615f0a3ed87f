"""History on HDFS through its own protocol (hdfs-native, without a JVM).

That library waits for ever for a NameNode that is frozen, so every call runs on an event loop of our own under a time
limit. Its objects are never freed (``_keep``): that would wait for the answers of a frozen server without releasing Python,
or cancel what other threads are reading. So there is one client for each NameNode, replaced seldom.
"""

from __future__ import annotations

import asyncio
import atexit
import ctypes
import os
import re
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

from hdfs_native import AsyncClient, WriteOptions

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

READERS_KEPT = 256
"""Files whose block locations are remembered."""
CLIENT_AGE_S = 60.0
"""A client whose NameNode does not answer is replaced when it is older: its connection may be a dead one."""
ENDING_S = 0.5
"""How long the end of a process waits for the library to notice that calls were given up."""
CLIENTS_MAX = 100
"""Clients that one process makes; after that the last one of a NameNode stays."""

_SETTINGS = {
    "dfs.client.socket-timeout": "3000",
    "dfs.client.failover.max.attempts": "1",
    "dfs.client.failover.sleep.base.millis": "50",
    "dfs.client.failover.sleep.max.millis": "500",
}
_JAVA_CLASS = re.compile(r'RPCError\("(?:[\w.$]*\.)?([\w$]+)"')
_UNAVAILABLE = {
    "SafeModeException": "its NameNode is in safe mode; wait until it has left it",
    "StandbyException": "its NameNode is on standby",
    "RetriableException": "its NameNode is starting",
    "NotReplicatedYetException": "its DataNodes have not stored the data yet",
    "EOFException": "one of its servers has lost another",
    "ConnectException": "one of its servers does not reach another",
    "SocketTimeoutException": "one of its servers does not reach another",
    "LeaseExpiredException": "the file being written was taken away",
    "AlreadyBeingCreatedException": "another process is writing the same file",
}
_REFUSED = {
    "AccessControlException": "the platform's user (HADOOP_USER_NAME) may not use the folder; give it the right",
    "DSQuotaExceededException": "the space quota of the folder is used up",
    "NSQuotaExceededException": "the name quota of the folder is used up",
}
Result = TypeVar("Result")


def _keep(thing: Any) -> None:
    """Make an object immortal, also when the interpreter ends."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


class _Clients:
    """The clients of this process, by NameNode and user."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: dict[tuple[str, str, int], tuple[AsyncClient, float]] = {}
        self._n_made = 0

    def get(self, name_node: str, user: str) -> AsyncClient:
        key = name_node, user, os.getpid()
        with self._lock:
            found = self._clients.get(key)
            if found is None:
                client = AsyncClient(name_node, _SETTINGS)
                _keep(client.inner)
                self._n_made += 1
                found = self._clients[key] = client, time.monotonic()
            return found[0]

    def replace(self, name_node: str, user: str) -> None:
        """The NameNode did not answer: its next call gets a new connection, if this one is not new itself."""
        key = name_node, user, os.getpid()
        with self._lock:
            found = self._clients.get(key)
            is_old = found is not None and time.monotonic() - found[1] > CLIENT_AGE_S
            if is_old and self._n_made < CLIENTS_MAX:
                del self._clients[key]


_CLIENTS = _Clients()


class _Loop:
    """One event loop in a daemon thread for all clients of the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._given_up_at = -ENDING_S

    def run(self, coroutine: Coroutine[Any, Any, Result], timeout_s: float) -> Result:
        try:
            return asyncio.run_coroutine_threadsafe(asyncio.wait_for(coroutine, timeout_s), self._started()).result()
        except TimeoutError:
            self._given_up_at = time.monotonic()
            raise

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None or self._pid != os.getpid():
                self._loop, self._pid = asyncio.new_event_loop(), os.getpid()
                self._thread = threading.Thread(target=self._loop.run_forever, name="hdfs", daemon=True)
                self._thread.start()
                atexit.register(self._end)
            return self._loop

    def _end(self) -> None:
        """Before the interpreter ends: a thread of the library that reports to Python later would crash the process."""
        with self._lock:
            loop, thread, self._loop = self._loop, self._thread, None
        if loop is None or thread is None or self._pid != os.getpid():
            return
        loop.call_soon_threadsafe(self._give_up, loop)
        time.sleep(0.01)
        time.sleep(max(0.0, self._given_up_at + ENDING_S - time.monotonic()))
        loop.call_soon_threadsafe(loop.stop)
        thread.join(ENDING_S)

    def _give_up(self, loop: asyncio.AbstractEventLoop) -> None:
        for task in asyncio.all_tasks(loop):
            task.cancel()
            self._given_up_at = time.monotonic()


_LOOP = _Loop()


class RpcFiles:
    """A folder of HDFS. See ``HistoryFiles``. The user is the URL's, else that of ``HADOOP_USER_NAME``.

    The library knows users only by that variable and looks at it when it connects: a URL's user is put there, for the
    whole process.
    """

    def __init__(self, url: str, address: Address) -> None:
        self.url = url
        self._root = address.root
        self._user = address.user or os.environ.get("HADOOP_USER_NAME", "")
        self._name_node = f"hdfs://{address.host}:{address.port}"
        self._folders: set[str] = set()
        self._readers: dict[str, Any] = {}
        if address.user:
            os.environ["HADOOP_USER_NAME"] = address.user

    def put(self, path: str, tmp_path: str, data: memoryview) -> None:
        self._make_folder(tmp_path)
        self._make_folder(path)
        attempt = new_attempt(self, tmp_path)
        self._write(attempt, data)
        try:
            self._call(lambda client: client.rename(self._full(attempt), self._full(path)), path)
        except PartExistsError:
            self.delete(attempt)
            raise

    def _write(self, path: str, data: memoryview) -> None:
        options = WriteOptions(overwrite=True)
        writer = self._call(lambda client: client.create(self._full(path), options), path)
        try:
            for at in range(0, len(data), CHUNK_BYTES):
                self._await(writer.write(bytes(data[at : at + CHUNK_BYTES])), DATA_TIMEOUT_S, path)
            self._await(writer.close(), 3 * DATA_TIMEOUT_S, path)
        except SibError as error:
            # Closing a writer that failed would wait once more for what did not answer; the file is replaced next time.
            _keep(writer.inner)
            if isinstance(error, PartMissingError):
                raise StoreUnavailableError(
                    "Another process writes the same file to HDFS; it is tried again."
                ) from None
            raise

    def exists(self, path: str) -> bool:
        try:
            self.size_bytes(path)
        except PartMissingError:
            return False
        return True

    def size_bytes(self, path: str) -> int:
        return int(self._call(lambda client: client.get_file_info(self._full(path)), path).length)

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        try:
            return self._read(path, offset, length)
        except StoreError:
            if self._readers.pop(path, None) is None:
                raise
        return self._read(path, offset, length)  # its blocks may lie elsewhere by now

    def _read(self, path: str, offset: int, length: int | None) -> bytes:
        reader = self._readers.get(path)
        if reader is None:
            reader = self._call(lambda client: client.read(self._full(path)), path)
            while len(self._readers) >= READERS_KEPT:
                self._readers.pop(next(iter(self._readers)), None)
            self._readers[path] = reader
        end = len(reader) if length is None else min(len(reader), offset + length)
        if offset >= end:
            return b""
        timeout_s = DATA_TIMEOUT_S * (1 + (end - offset) // (64 * CHUNK_BYTES))
        try:
            return bytes(self._await(reader.read_range(offset, end - offset), timeout_s, path))
        except StoreUnavailableError:
            _keep(reader.inner)
            self._readers.pop(path, None)
            raise

    def entries(self, folder: str) -> list[Entry]:
        async def collect(client: AsyncClient) -> list[Any]:
            return [status async for status in client.list_status(self._full(folder))]

        try:
            found = self._call(collect, folder)
        except PartMissingError:
            return []
        return sorted((_entry(status) for status in found), key=lambda entry: entry.name)

    def delete(self, path: str) -> None:
        self._readers.pop(path, None)
        try:
            self._call(lambda client: client.delete(self._full(path)), path)
        except PartMissingError:
            return

    def duckdb_path(self, path: str) -> str:
        return f"bdh://{path}"

    def close(self) -> None:
        """The client stays, for others and for the next call."""
        self._readers.clear()
        self._folders.clear()

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root or "/"

    def _make_folder(self, path: str) -> None:
        folder = self._full(path).rpartition("/")[0]
        if folder not in self._folders:
            self._call(lambda client: client.mkdirs(folder, 0o755, create_parent=True), path)
            self._folders.add(folder)

    def _call(self, call: Callable[[AsyncClient], Coroutine[Any, Any, Result]], path: str) -> Result:
        async def run() -> Result:
            return await call(_CLIENTS.get(self._name_node, self._user))

        result: Result = self._await(run(), CALL_TIMEOUT_S, path)
        return result

    def _await(self, awaitable: Any, timeout_s: float, path: str) -> Any:
        async def run() -> Any:
            return await awaitable

        with self._errors(path):
            return _LOOP.run(run(), timeout_s)

    @contextmanager
    def _errors(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise PartMissingError(f"The history has no file {path!r}.") from None
        except FileExistsError:
            raise PartExistsError(f"The history has a file {path!r} already.") from None
        except TimeoutError:
            _CLIENTS.replace(self._name_node, self._user)
            raise StoreUnavailableError(f"HDFS at {self._name_node} does not answer: check that it runs.") from None
        except (OSError, RuntimeError) as error:
            raise self._translated(error, path) from error
        except BaseException as error:
            if type(error).__name__ != "PanicException":
                raise
            self._readers.clear()
            raise StoreUnavailableError(f"The HDFS client failed inside ({error}); it is tried again.") from None

    def _translated(self, error: Exception, path: str) -> SibError:
        text = str(error)
        found = _JAVA_CLASS.search(text)
        name = found.group(1) if found else ""
        if name in _REFUSED:
            return StoreError(f"HDFS at {self._name_node} refuses: {_REFUSED[name]}.")
        if name in _UNAVAILABLE:
            return StoreUnavailableError(f"HDFS at {self._name_node} cannot be used now: {_UNAVAILABLE[name]}.")
        if "could only be written to 0" in text or "DataNode" in text:
            return StoreUnavailableError(f"HDFS at {self._name_node} has no DataNode that answers: check them.")
        if isinstance(error, OSError) or not name:
            return StoreUnavailableError(f"HDFS at {self._name_node} cannot be reached: {text[:200]}.")
        return StoreError(f"HDFS at {self._name_node} refused {path!r}: {name}.")


def _entry(status: Any) -> Entry:
    modified = datetime.fromtimestamp(status.modification_time / 1000, UTC).replace(tzinfo=None)
    return Entry(status.path.rpartition("/")[2], status.isdir, status.length, modified)
