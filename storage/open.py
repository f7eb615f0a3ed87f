"""From a BDTR URL to the adapter that serves it."""

from __future__ import annotations

import time
from collections.abc import Callable

from sib.errors import ConfigurationError
from storage.bdtr.relational import RelationalStore

_PLANNED = ("mysql", "mariadb", "postgresql", "oracle", "mongodb", "mongodb+srv")


def open_bdtr(url: str, *, writer: bool, clock: Callable[[], float] = time.time) -> RelationalStore:
    """Opens the real-time database that a URL names.

    Args:
        url: ``sqlite:PATH``.
        writer: whether this process writes; then the store is made if it is not there.
        clock: seconds since 1970.

    Raises:
        ConfigurationError: no adapter serves this kind of URL. The URL itself is not shown: it may hold a password.
    """
    scheme = url.partition(":")[0].partition("+")[0].lower()
    if scheme == "sqlite":
        return RelationalStore.open(url, writer=writer, clock=clock)
    if scheme in _PLANNED:
        raise ConfigurationError(f"A BDTR on {scheme} is not supported by this version; use sqlite:PATH.")
    raise ConfigurationError(f"No BDTR has URLs of the kind {scheme[:20]!r}; use sqlite:PATH.")
