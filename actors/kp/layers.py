"""The dependencies of a KP: installed from a folder of wheels (the administrator's wheelhouse) into a read-only layer.

Outside of the sandbox and without network. Wheels only: nothing of a package is run while it is installed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from actors.kp.bundle import fresh_folder
from actors.kp.manifest import ManifestError

INSTALL_S_MAX = 120.0
BYTES_MAX = 1 << 30
"""Of one layer."""
REASON_CHARS_MAX = 600


def layer_name(dependencies: Sequence[str], wheelhouse: Path) -> str:
    """The name of the layer that these dependencies give from this wheelhouse; "" without any."""
    if not dependencies:
        return ""
    wheels = sorted((path.name, path.stat().st_size) for path in wheelhouse.glob("*.whl"))
    told = repr((sorted(dependencies), wheels, sys.version_info[:2]))
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def install(name: str, dependencies: Sequence[str], wheelhouse: Path, folder: Path) -> Path | None:
    """The folder of the layer below ``folder``, installed if it is not there yet; None without dependencies.

    Raises:
        ManifestError: a dependency is not in the wheelhouse, or the layer is too large.
    """
    if not dependencies:
        return None
    target = folder / name
    if target.is_dir():
        os.utime(target)
        return target
    if not wheelhouse.is_dir():
        raise ManifestError(f"the KP has dependencies, and there is no wheelhouse {wheelhouse} (setting kp.wheelhouse)")
    with fresh_folder(target) as fresh:
        _run_installer(dependencies, wheelhouse, fresh)
        size = sum(path.stat().st_size for path in fresh.rglob("*") if path.is_file())
        if size > BYTES_MAX:
            raise ManifestError(f"the dependencies are {size >> 20} MiB; at most {BYTES_MAX >> 20} MiB")
    return target


def _run_installer(dependencies: Sequence[str], wheelhouse: Path, target: Path) -> None:
    command = [*_installer(), "--no-index", "--only-binary", ":all:", "--find-links", str(wheelhouse)]
    command += ["--target", str(target), *dependencies]
    environment = {"PATH": os.defpath, "HOME": str(target), "LANG": "C.UTF-8", "PIP_CONFIG_FILE": os.devnull}
    try:
        done = subprocess.run(  # noqa: S603 - the command is ours, the dependencies are checked
            command, capture_output=True, text=True, timeout=INSTALL_S_MAX, env=environment, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired:
        raise ManifestError(f"the dependencies were not installed within {INSTALL_S_MAX:g} s") from None
    if done.returncode:
        reason = " ".join(done.stderr.split())[-REASON_CHARS_MAX:]
        raise ManifestError(f"the dependencies cannot be installed from {wheelhouse}: {reason}")


def _installer() -> list[str]:
    beside = Path(sys.executable).parent / "uv"
    uv = str(beside) if beside.is_file() else shutil.which("uv")
    if uv:
        options = [
            "--offline",
            "--no-cache",
            "--no-config",
            "--link-mode",
            "copy",
            "--python",
            sys.executable,
            "--quiet",
        ]
        return [uv, "pip", "install", *options]
    return [sys.executable, "-m", "pip", "install", "--no-cache-dir", "--disable-pip-version-check", "--quiet"]
