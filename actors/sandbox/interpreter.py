"""The Python of this process, as a sandbox sees it: the executable, its library and the system's shared libraries; no packages."""

from __future__ import annotations

import os
import sys
import sysconfig
from functools import cache
from pathlib import Path

from actors.sandbox.program import View

FOLDER = "/python"
"""Where the interpreter lies inside."""
VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"
PACKAGES = f"{FOLDER}/lib/{VERSION}/site-packages"
"""Hidden: what is installed beside the interpreter is not the program's business."""
OPTIONS = ("-I", "-S", "-B", "-X", "utf8")
"""Isolated, without site-packages; nothing of the environment and of the current folder is believed."""
_ZONES = Path("/usr/share/zoneinfo")


@cache
def executable() -> Path:
    """The real file, not the link in a virtual environment."""
    return Path(os.path.realpath(sys.executable))


@cache
def views() -> tuple[View, ...]:
    """The interpreter's own files."""
    found = [View(executable(), f"{FOLDER}/bin/python3"), View(library(), f"{FOLDER}/lib/{VERSION}")]
    name = sysconfig.get_config_var("INSTSONAME") if sysconfig.get_config_var("Py_ENABLE_SHARED") else None
    if name:
        for folder in (sysconfig.get_config_var("LIBDIR"), Path(sys.base_prefix) / "lib"):
            if folder and (Path(folder) / name).exists():
                found.append(View(Path(folder) / name, f"{FOLDER}/lib/{name}"))
                break
    return tuple(found)


@cache
def library() -> Path:
    """The folder of the standard library."""
    return Path(sysconfig.get_path("stdlib")).resolve()


@cache
def library_parts() -> tuple[Path, ...]:
    """What is in the standard library's folder, without the installed packages."""
    return tuple(path for path in library().iterdir() if path.name not in ("site-packages", "dist-packages"))


@cache
def system_views() -> tuple[View, ...]:
    """The shared libraries of the system and the time zones, at their own paths."""
    multiarch = sysconfig.get_config_var("MULTIARCH")
    has_multiarch = bool(multiarch) and Path(f"/usr/lib/{multiarch}").is_dir()
    paths = [f"/usr/lib/{multiarch}", f"/lib/{multiarch}"] if has_multiarch else ["/usr/lib", "/lib"]
    folders = [Path(path) for path in (*paths, "/usr/lib64", "/lib64") if Path(path).is_dir()]
    if _ZONES.is_dir():
        folders.append(_ZONES)
    return tuple(View(folder, str(folder)) for folder in folders if folder.resolve() == folder)


@cache
def system_links() -> tuple[tuple[str, str], ...]:
    """The links by which programs name those libraries: (target, path)."""
    links = [Path(path) for path in ("/lib", "/lib64") if Path(path).is_symlink()]
    return tuple((str(link.readlink()), str(link)) for link in links)
