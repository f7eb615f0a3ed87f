"""What a script asks for: read from what its sandbox sends, of which nothing is believed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sib.errors import LimitError, MalformedMessageError

EFFECTS_MAX = 1000
"""Effects of one run; one more and the run fails."""
RECIPIENTS_MAX = 50
MAIL_BYTES_MAX = 256 * 1024
KEY_CHARS_MAX = 191
VALUE_BYTES_MAX = 64 * 1024
DELAY_S_MAX = 366 * 86_400.0

RECORDED = frozenset({"mail", "http", "kv_put", "kv_delete", "schedule", "update", "delete"})
"""Kinds whose repetition cannot be seen where they go to: what has been done is remembered by the execution's key."""


class Effect(NamedTuple):
    """One thing to be done when the block has ended well. ``number`` counts from 0 within the run."""

    number: int
    kind: str
    fields: Mapping[str, Any]

    @property
    def is_recorded(self) -> bool:
        return self.kind in RECORDED


def read_effects(values: Any, *, first: int = 0) -> tuple[Effect, ...]:
    """The effects of a run, in order, numbered from ``first``.

    Raises:
        LimitError: too many, or one is too large. MalformedMessageError: one is not what it says it is.
    """
    if not isinstance(values, list):
        raise MalformedMessageError("the effects of a run are a list")
    if len(values) > EFFECTS_MAX:
        raise LimitError(f"a run has at most {EFFECTS_MAX} effects")
    return tuple(_read(number, value) for number, value in enumerate(values, first))


def _read(number: int, value: Any) -> Effect:
    kind = value.get("kind") if isinstance(value, dict) else None
    needed = _KINDS.get(kind) if isinstance(kind, str) else None
    if needed is None or not isinstance(kind, str):
        raise MalformedMessageError("a run asked for something that does not exist")
    fields: dict[str, Any] = {}
    for name, check in needed.items():
        given = value.get(name)
        if not check(given):
            raise MalformedMessageError(f"{kind}: {name} is missing or not as it has to be")
        fields[name] = given
    return Effect(number, kind, fields)


def _text(chars_max: int, *, is_optional: bool = False) -> Callable[[Any], bool]:
    return lambda value: (is_optional and value is None) or (isinstance(value, str) and len(value) <= chars_max)


def _is_value(value: Any) -> bool:
    return isinstance(value, str) and len(value.encode(errors="surrogatepass")) <= VALUE_BYTES_MAX


def _is_recipients(value: Any) -> bool:
    return (
        isinstance(value, list)
        and 0 < len(value) <= RECIPIENTS_MAX
        and all(isinstance(item, str) and "@" in item and len(item) <= 320 and item.isprintable() for item in value)
    )


def _is_delay(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= DELAY_S_MAX


def _is_headers(value: Any) -> bool:
    return value is None or (
        isinstance(value, dict)
        and len(value) <= 50
        and all(isinstance(part, str) and len(part) <= 4096 for item in value.items() for part in item)
    )


_JSON_TEXT = _text(2_000_000)
_NAME = _text(KEY_CHARS_MAX)
_SHORT = _text(2048)
_KINDS: dict[str, dict[str, Callable[[Any], bool]]] = {
    "insert": {
        "ontology": _NAME,
        "instance": _JSON_TEXT,
        "kp": _text(KEY_CHARS_MAX, is_optional=True),
        "kp_instance": _text(KEY_CHARS_MAX, is_optional=True),
        "token": _text(64, is_optional=True),
    },
    "update": {
        "ontology": _text(KEY_CHARS_MAX, is_optional=True),
        "query": _JSON_TEXT,
        "data": _text(2_000_000, is_optional=True),
        "type": _NAME,
    },
    "delete": {"ontology": _text(KEY_CHARS_MAX, is_optional=True), "query": _JSON_TEXT, "type": _NAME},
    "mail": {"to": _is_recipients, "subject": _text(998), "body": _text(MAIL_BYTES_MAX)},
    "http": {
        "method": _text(16),
        "url": _SHORT,
        "headers": _is_headers,
        "body": _text(1_000_000, is_optional=True),
    },
    "kv_put": {"key": _NAME, "value": _is_value},
    "kv_delete": {"key": _NAME},
    "schedule": {"rule": _NAME, "in_s": _is_delay, "data": _is_value},
    "log": {"level": _text(16), "text": _text(64 * 1024)},
}
