"""Secrets in the URLs of databases: found, so that they are refused where others can read them, and hidden where URLs are shown."""

from __future__ import annotations

import re

HIDDEN = "…"

_LOGIN = re.compile(r"(://[^/\s:@]*:)[^\s\"']+@")
"""``USER:PASSWORD@``. A password that forgot its percent signs may hold ``/``, ``?`` or ``@``: it ends at the last ``@``."""
_OPTION = re.compile(
    r"([?&;][^=&;\s]*(?:passw|pwd|passphrase|secret|token|authmechanismproperties)[^=&;\s]*=)[^&;\s\"']+", re.IGNORECASE
)
"""Options of drivers: ``password``, ``passwd``, ``sslpassword``, ``tlsCertificateKeyFilePassword``, ``access_token`` …"""


def has_secret(text: str) -> bool:
    """Whether a URL, or a text with URLs, holds a password or a token: such a one has no place on a command line."""
    return any(pattern.search(text) for pattern in (_LOGIN, _OPTION))


def without_secrets(text: str) -> str:
    """The text with ``…`` for every password and token in its URLs."""
    return _OPTION.sub(rf"\1{HIDDEN}", _LOGIN.sub(rf"\1{HIDDEN}@", text))
