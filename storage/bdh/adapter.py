"""History as a file system of fsspec: what DuckDB and pyarrow read files of HDFS through, with our time limits."""

from __future__ import annotations

import io
import threading
from datetime import UTC, datetime
from typing import Any

from fsspec.spec import AbstractFileSystem  # type: ignore[import-untyped]

from storage.bdh.files import HistoryFiles, PartMissingError, open_files

_NEVER = datetime(2000, 1, 1, tzinfo=UTC)


class HistoryFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """Read only. Made from a BDH URL, so that it can be pickled to other processes."""

    protocol = "bdh"
    cachable = False

    def __init__(self, url: str, files: HistoryFiles | None = None, **_: Any) -> None:
        super().__init__()
        self._url = url
        self._files = files if files is not None else open_files(url)

    def __reduce__(self) -> tuple[Any, ...]:
        return HistoryFileSystem, (self._url,)

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        path = self._strip_protocol(path).strip("/")
        found = [
            {
                "name": f"{path}/{entry.name}".lstrip("/"),
                "size": entry.size_bytes,
                "type": "directory" if entry.is_folder else "file",
            }
            for entry in self._files.entries(path)
        ]
        return found if detail else [each["name"] for each in found]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        path = self._strip_protocol(path).strip("/")
        try:
            return {"name": path, "size": self._files.size_bytes(path), "type": "file"}
        except PartMissingError:
            if self._files.entries(path):
                return {"name": path, "size": 0, "type": "directory"}
            raise FileNotFoundError(path) from None

    def modified(self, path: str) -> datetime:
        """Files of the history never change; DuckDB asks in order to know whether what it remembers still holds."""
        return _NEVER

    def _open(self, path: str, mode: str = "rb", **_: Any) -> RangeFile:
        if mode != "rb":
            raise ValueError("History is read only here.")
        return RangeFile(self._files, path.strip("/"))


class RangeFile(io.RawIOBase):
    """One file for many threads: DuckDB seeks and reads with the same object in several threads at once."""

    def __init__(self, files: HistoryFiles, path: str) -> None:
        self._files, self._path = files, path
        self._size_bytes = files.size_bytes(path)
        self._local = threading.local()

    @property
    def size(self) -> int:
        return self._size_bytes

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return getattr(self._local, "position", 0)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self._size_bytes}[whence]
        self._local.position = base + offset
        return self.tell()

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size_bytes - self.tell())
        length = left if size is None or size < 0 else min(size, left)
        data = self._files.read(self._path, self.tell(), length) if length else b""
        self._local.position = self.tell() + len(data)
        return data

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        """Nothing is held; other threads may still read."""
