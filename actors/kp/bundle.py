"""The files of a KP: read from a folder or a zip file, packed for the configuration database, and laid out where it runs."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from actors.kp.manifest import FILE, Manifest, ManifestError, parse_manifest

FILES_MAX = 2000
BYTES_MAX = 64 << 20
"""Of all files of a KP together, unpacked."""
PACKED_BYTES_MAX = 16 << 20
"""As it is kept in the configuration database."""
_MOMENT = (1980, 1, 1, 0, 0, 0)
"""Of every packed file: the same files are the same bundle, whenever they were written."""

Files = dict[str, bytes]


def read_files(path: Path) -> Files:
    """The files of a KP's folder or zip file, by their paths in it. Hidden ones and caches of Python are left out.

    Raises:
        ManifestError: there is no such folder, or it is too large or has a link in it.
    """
    if path.is_dir():
        return _read_folder(path)
    if path.is_file() and zipfile.is_zipfile(path):
        return _read_zip(path)
    raise ManifestError(f"there is no folder (or zip file) {path} with a KP")


def manifest_of(files: Files) -> Manifest:
    """What the ``kp.toml`` among the files says, and that its entry is there.

    Raises:
        ManifestError: there is none, or it is wrong.
    """
    if FILE not in files:
        raise ManifestError(f"there is no {FILE} in the folder")
    manifest = parse_manifest(files[FILE])
    if manifest.entry not in files:
        line = next(
            (n for n, text in enumerate(files[FILE].decode().splitlines(), 1) if text.lstrip().startswith("entry")), 1
        )
        raise ManifestError(f"{FILE}, line {line}: entry: there is no file {manifest.entry} in the folder")
    return manifest


def pack(files: Files) -> bytes:
    """One bundle; equal files give equal bytes.

    Raises:
        ManifestError: it would be larger than ``PACKED_BYTES_MAX``.
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            archive.writestr(zipfile.ZipInfo(name, _MOMENT), files[name], zipfile.ZIP_DEFLATED)
    if packed.tell() > PACKED_BYTES_MAX:
        raise ManifestError(f"the folder is {packed.tell() >> 20} MiB packed; at most {PACKED_BYTES_MAX >> 20} MiB")
    return packed.getvalue()


def lay_out(content: bytes, folder: Path) -> Path:
    """The files of a bundle as a folder of ``folder``, readable for everybody; made once. Safe for several processes.

    Raises:
        ManifestError: it is no bundle. OSError: it cannot be written.
    """
    target = folder / hashlib.sha256(content).hexdigest()[:32]
    if target.is_dir():
        os.utime(target)
        return target
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        files = _read_archive(archive)
    with fresh_folder(target) as fresh:
        for name, data in files.items():
            path = fresh / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return target


@contextmanager
def fresh_folder(target: Path) -> Iterator[Path]:
    """A folder to be filled; when the block ends well it is ``target``, whole and readable for everybody.

    Programs in the sandbox run as users of their own, hence readable. If another process was faster, its folder stays.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
    try:
        yield fresh
        fresh.chmod(0o755)
        for path in fresh.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        with suppress(OSError):  # another process was faster
            fresh.rename(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _read_folder(folder: Path) -> Files:
    files: Files = {}
    size = 0
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if _is_left_out(name):
            continue
        if path.is_symlink():
            raise ManifestError(f"{name} is a link: a KP's folder has files and folders only")
        if not path.is_file():
            continue
        size += path.stat().st_size
        _check_bounds(len(files) + 1, size)
        files[name] = path.read_bytes()
    return files


def _read_zip(path: Path) -> Files:
    try:
        with zipfile.ZipFile(path) as archive:
            files = _read_archive(archive)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise ManifestError(f"{path} cannot be unpacked: {error}") from None
    tops = {name.partition("/")[0] for name in files}
    if FILE not in files and len(tops) == 1:  # a zip of the folder itself
        top = f"{tops.pop()}/"
        files = {name.removeprefix(top): data for name, data in files.items()}
    return files


def _read_archive(archive: zipfile.ZipFile) -> Files:
    files: Files = {}
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    _check_bounds(len(entries), sum(entry.file_size for entry in entries))
    for entry in entries:
        name = entry.filename.replace("\\", "/")
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
            raise ManifestError(f"{entry.filename!r} would lie outside of the folder")
        if entry.external_attr >> 28 == 0o12:
            raise ManifestError(f"{name} is a link: a KP's folder has files and folders only")
        if not _is_left_out(name):
            files[str(path)] = archive.read(entry)
    return files


def _is_left_out(name: str) -> bool:
    parts = name.split("/")
    return any(part.startswith(".") for part in parts) or "__pycache__" in parts or name.endswith(".pyc")


def _check_bounds(count: int, size: int) -> None:
    if count > FILES_MAX:
        raise ManifestError(f"the folder has more than {FILES_MAX} files")
    if size > BYTES_MAX:
        raise ManifestError(f"the folder is larger than {BYTES_MAX >> 20} MiB")
