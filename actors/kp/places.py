"""Names and folders of the KPs that a platform runs."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

PREFIX = "kp-"
"""Of the names of all their actors."""
SLUG_CHARS_MAX = 40
STARTS, RESTARTS = "starting", "its worker restarts"
"""Details of a KP that is on its way."""


def worker_name(kp: str, instance: str) -> str:
    """The name of the actor of a KP instance: readable, unique, and fit for a file."""
    whole = f"{kp}\0{instance}"
    slug = re.sub(r"[^A-Za-z0-9]+", "-", whole).strip("-")[:SLUG_CHARS_MAX]
    return f"{PREFIX}{slug}-{hashlib.blake2b(whole.encode(), digest_size=4).hexdigest()}"


def bundles_folder(data: str | Path) -> Path:
    """Where the files of KPs lie."""
    return Path(data) / "kps" / "bundles"


def layers_folder(data: str | Path) -> Path:
    """Where their dependencies are installed."""
    return Path(data) / "kps" / "layers"


def wheelhouse_of(data: str | Path, setting: str | None) -> Path:
    """The administrator's folder of wheels."""
    return Path(setting).expanduser() if setting else Path(data) / "wheelhouse"
