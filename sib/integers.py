"""Integers beyond 64 bits in JSON: BSON has none, and a quick parser makes doubles of them, which loses digits in silence."""

from __future__ import annotations

import json
import re
from typing import Any

HINT = "send it as a string, or with a decimal point if it may lose digits"

_DIGITS = re.compile(r"[0-9]{4}")
_DIGITS_BYTES = re.compile(rb"[0-9]{4}")
_KEPT_DIGITS = 100


def may_exceed(text: bytes | str) -> bool:
    """Whether a text may hold an integer that is a double to orjson (2**64 or more). Quick; nearly always False.

    Such a one has 20 digits, so every fifth character of it is a digit, four times running.
    """
    pattern: re.Pattern[Any] = _DIGITS if isinstance(text, str) else _DIGITS_BYTES
    return pattern.search(text[::5]) is not None


def parse_exactly(text: bytes | str) -> Any:
    """The value of a valid JSON text, with integers of any size; of very long ones only the beginning is kept."""
    return json.loads(text, parse_int=lambda digits: int(digits[:_KEPT_DIGITS]))


def fits(number: int) -> bool:
    """Whether an integer has 64 bits or less, with its sign."""
    return -(2**63) <= number < 2**63


def has_long_integer(text: bytes | str) -> bool:
    """Whether a valid JSON text holds an integer that does not fit."""
    if not may_exceed(text):
        return False
    found: list[str] = []
    json.loads(text, parse_int=lambda digits: found.append(digits[:_KEPT_DIGITS]))
    return not all(fits(int(digits)) for digits in found)
