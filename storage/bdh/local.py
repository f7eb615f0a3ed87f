"""History in a local folder (or a mounted one)."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from sib.errors import StoreError, StoreUnavailableError
from storage.bdh.files import Entry, PartExistsError, PartMissingError

_ADVICE = {
    errno.ENOSPC: "its disk is full; free some space",
    errno.EDQUOT: "the quota of its disk is used up; free some space",
    errno.EFBIG: "a file of this size is more than its file system or a limit of the process allows",
    errno.EROFS: "it is read-only; make it writable",
    errno.EACCES: "the platform's user may not use it; give it the right",
    errno.EPERM: "the platform's user may not use it; give it the right",
    errno.EIO: "its disk reports errors; check the disk",
}


class LocalFiles:
    """A folder of this machine. See ``HistoryFiles``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.url = f"file:{root}"

    def put(self, path: str, tmp_path: str, data: memoryview) -> None:
        final, tmp = self.root / path, self.root / tmp_path
        with self._errors(path):
            for folder in (final.parent, tmp.parent):
                _make_folder(folder, self.root)
            tmp.unlink(missing_ok=True)
            try:
                _write_durably(tmp, data)
            except OSError:
                with suppress(OSError):  # on a full disk it takes the room of others
                    tmp.unlink()
                raise
            _name(tmp, final)
            _sync_folder(final.parent)

    def exists(self, path: str) -> bool:
        return (self.root / path).is_file()

    def size_bytes(self, path: str) -> int:
        with self._errors(path):
            return (self.root / path).stat().st_size

    def read(self, path: str, offset: int = 0, length: int | None = None) -> bytes:
        with self._errors(path), (self.root / path).open("rb") as file:
            file.seek(offset)
            return file.read() if length is None else file.read(length)

    def entries(self, folder: str) -> list[Entry]:
        found = []
        try:
            with self._errors(folder), os.scandir(self.root / folder) as items:
                for item in items:
                    status = item.stat()
                    modified = datetime.fromtimestamp(status.st_mtime, UTC).replace(tzinfo=None)
                    found.append(Entry(item.name, item.is_dir(), status.st_size, modified))
        except PartMissingError:
            return []
        return sorted(found, key=lambda entry: entry.name)

    def delete(self, path: str) -> None:
        with self._errors(path):
            (self.root / path).unlink(missing_ok=True)

    def duckdb_path(self, path: str) -> str:
        return str(self.root / path)

    def close(self) -> None:
        """Nothing is kept open."""

    @contextmanager
    def _errors(self, path: str) -> Iterator[None]:
        try:
            yield
        except FileExistsError:
            raise PartExistsError(f"The history has a file {path!r} already.") from None
        except FileNotFoundError:
            raise PartMissingError(f"The history has no file {path!r}.") from None
        except OSError as error:
            advice = _ADVICE.get(error.errno or 0)
            if advice is None:
                raise StoreError(f"The folder of the BDH refused {path!r}: {error.strerror}.") from error
            raise StoreUnavailableError(f"The folder {self.root} of the BDH cannot be used: {advice}.") from error


def _write_durably(path: Path, data: memoryview) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    try:
        while data:
            data = data[os.write(descriptor, data) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _name(tmp: Path, final: Path) -> None:
    """Gives a file its name if nobody has it: ``rename`` would replace."""
    try:
        os.link(tmp, final)
    except FileExistsError:
        tmp.unlink()
        raise
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        # A file system without hard links: the transfer's lock keeps others from taking the name in between.
        if final.exists():
            raise FileExistsError(errno.EEXIST, "exists", str(final)) from None
        tmp.rename(final)
        return
    tmp.unlink()


def _make_folder(folder: Path, root: Path) -> None:
    if folder.is_dir():
        return
    if folder != root:
        _make_folder(folder.parent, root)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)
    else:
        folder.mkdir(parents=True, exist_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
