"""Listeners as people write them: ``NAME=URL?option=value&…``, from the command line or from ``sofia2.toml``."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from actors.config import Listener
from actors.gateway.mqtt_options import ListenerOptions
from sib.errors import ConfigurationError
from sofia2.filereaders import suggestion

KINDS = {"mqtt": 1883, "mqtts": 8883, "http": 8080, "https": 8443}
"""The kinds of listeners and the port of each if its URL names none."""
TLS_KINDS = ("mqtts", "https")
LISTENERS_MAX = 32

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_FLAGS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_CERTIFICATE_OPTIONS = ("tls_cert", "tls_key")
_OPTIONS = {option.name: option for option in dataclasses.fields(ListenerOptions)}


def split_listener(text: str) -> tuple[str, str]:
    """The name and the URL of ``NAME=URL``.

    Raises:
        ConfigurationError: it has another form.
    """
    name, equals, url = text.partition("=")
    if not equals or "://" in name:
        raise ConfigurationError(
            f"The listener {text[:60]!r} has no name: write NAME=URL, for example own=mqtt://127.0.0.1:1884."
        )
    return name.strip(), url.strip()


def parse_listener(
    name: str, value: str | Mapping[str, Any], *, tls_cert: str = "", tls_key: str = ""
) -> Listener | None:
    """A listener from its URL, or from a table with ``url`` and options; ``"off"`` is None. Port 0 means any free port.

    Args:
        name: a lower-case word.
        value: ``mqtt://HOST:PORT?option=value&…``; a table's options are read as those of the URL.
        tls_cert: the certificate of a TLS listener that names none (``tls_cert``).
        tls_key: its key.

    Raises:
        ConfigurationError: a name, an option or a value is wrong; the sentence says what is allowed.
    """
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"The listener's name {name[:40]!r} is not a lower-case word of at most 32 characters."
        )
    table = dict(value) if isinstance(value, Mapping) else {"url": value}
    url = table.pop("url", None)
    if url in ("off", "", False):
        return None
    if not isinstance(url, str):
        raise ConfigurationError(f'The listener {name} needs a URL: url = "mqtt://127.0.0.1:1884".')
    try:
        parts = urlsplit(url)
        port, pairs = parts.port, parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise ConfigurationError(
            f"The URL of the listener {name} cannot be read: write mqtt://HOST:PORT?option=value."
        ) from None
    if (
        parts.scheme not in KINDS
        or not parts.hostname
        or parts.path not in ("", "/")
        or parts.username
        or parts.fragment
    ):
        kinds = ", ".join(KINDS)
        raise ConfigurationError(
            f"The URL of the listener {name} is KIND://HOST:PORT?option=value with a kind of {kinds}."
        )
    given = {**dict(pairs), **table}
    certificate, key = str(given.pop("tls_cert", "") or tls_cert), str(given.pop("tls_key", "") or tls_key)
    if parts.scheme in TLS_KINDS and not (certificate and key):
        raise ConfigurationError(f"The listener {name} needs a certificate: set tls_cert and tls_key to two PEM files.")
    return Listener(
        name=name,
        kind=parts.scheme,
        host=parts.hostname,
        port=KINDS[parts.scheme] if port is None else port,
        options={option: _read_option(name, option, text) for option, text in given.items()},
        certificate=certificate if parts.scheme in TLS_KINDS else None,
        key=key if parts.scheme in TLS_KINDS else None,
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a listener on this host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read_option(listener: str, name: str, value: Any) -> Any:
    option = _OPTIONS.get(name)
    if option is None:
        known = (*_OPTIONS, *_CERTIFICATE_OPTIONS)
        raise ConfigurationError(f"The listener {listener} has no option {name[:40]!r}: {suggestion(name, known)}")
    if isinstance(option.default, bool):
        if isinstance(value, bool):
            return value
        flag = _FLAGS.get(str(value).lower())
        if flag is None:
            raise ConfigurationError(f"The option {name} of the listener {listener} is true or false.")
        return flag
    if isinstance(option.default, tuple):
        filters = value if isinstance(value, list) else str(value).split(",")
        return tuple(text for text in map(str, filters) if text)
    if option.default is None and str(value).lower() in ("none", ""):
        return None
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,10}", str(value)):
        raise ConfigurationError(
            f"The option {name} of the listener {listener} is a whole number, not {str(value)[:40]!r}."
        )
    number = int(value)
    if name in ("connections_max", "message_bytes_max", "receive_max") and number < 1:
        raise ConfigurationError(f"The option {name} of the listener {listener} is at least 1.")
    return min(number, 65_535) if name in ("receive_max", "topic_alias_max", "server_keep_alive_s") else number
