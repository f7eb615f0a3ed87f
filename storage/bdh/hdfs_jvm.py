"""History on HDFS through Hadoop's own client (libhdfs and a JVM), where an installation of Hadoop is present.

Its time limits are those of the installation's ``hdfs-site.xml``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC

from pyarrow import fs

from sib.errors import ConfigurationError, StoreUnavailableError
from storage.bdh.files import CHUNK_BYTES, Address, Entry, PartExistsError, PartMissingError


class JvmFiles:
    """A folder of HDFS. See ``HistoryFiles``."""

    def __init__(self, url: str, address: Address) -> None:
        self.url = url
        self._root = address.root
        try:
            self._fs = fs.HadoopFileSystem(address.host, address.port, user=address.user)
        except OSError as error:
            raise ConfigurationError(
                f"A BDH by libhdfs needs an installation of Hadoop (HADOOP_HOME, CLASSPATH): {str(error)[:200]}."
            ) from error

    def put(self, path: str, tmp_path: str, data: memoryview) -> None:
        with self._errors(path):
            for each in (path, tmp_path):
                self._fs.create_dir(self._full(each).rpartition("/")[0], recursive=True)
            with self._fs.open_output_stream(self._full(tmp_path)) as stream:
                for at in range(0, len(data), CHUNK_BYTES):
                    stream.write(data[at : at + CHUNK_BYTES])
        if self.exists(path):
            self.delete(tmp_path)
            raise PartExistsError(f"The history has a file {path!r} already.")
        with self._errors(path):
            self._fs.move(self._full(tmp_path), self._full(path))

    def exists(self, path: str) -> bool:
        with self._errors(path):
            return bool(self._fs.get_file_info(self._full(path)).is_file)

    def size_bytes(self, path: str) -> int:
        with self._errors(path):
            info = self._fs.get_file_info(self._full(path))
        if not info.is_file:
            raise PartMissingError(f"The history has no file {path!r}.")
        return int(info.size)

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        with self._errors(path), self._fs.open_input_file(self._full(path)) as file:
            return bytes(file.read_at(file.size() - offset if length is None else length, offset))

    def entries(self, folder: str) -> list[Entry]:
        selector = fs.FileSelector(self._full(folder), allow_not_found=True)
        with self._errors(folder):
            found = self._fs.get_file_info(selector)
        return [
            Entry(
                info.base_name,
                info.type == fs.FileType.Directory,
                info.size or 0,
                info.mtime.astimezone(UTC).replace(tzinfo=None),
            )
            for info in found
        ]

    def delete(self, path: str) -> None:
        if self.exists(path):
            with self._errors(path):
                self._fs.delete_file(self._full(path))

    def duckdb_path(self, path: str) -> str:
        return f"bdh://{path}"

    def close(self) -> None:
        """The JVM keeps its connections."""

    def _full(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root or "/"

    @contextmanager
    def _errors(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise PartMissingError(f"The history has no file {path!r}.") from None
        except OSError as error:
            raise StoreUnavailableError(f"HDFS cannot be used now: {str(error)[:200]}.") from error
