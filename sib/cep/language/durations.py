"""Durations as people write them, in English or Spanish: ``1 hour 30 min``, ``5 segundos``, ``1 día``."""

from __future__ import annotations

import re

_PART = re.compile(r"(\d+(?:\.\d+)?)\s*([^\W\d]+)")

_UNITS_MS = (
    (("milli", "mili", "ms"), 1),
    (("sec", "seg", "s"), 1_000),
    (("min",), 60_000),
    (("hour", "hora", "h"), 3_600_000),
    (("day", "dia", "día"), 86_400_000),
    (("week", "sem"), 604_800_000),
)


def parse_duration_ms(text: str) -> int:
    """The milliseconds of a duration.

    Raises:
        ValueError: Not a duration.
    """
    parts = _PART.findall(text)
    if not parts or _PART.sub("", text).strip():
        raise ValueError(f"{text!r} is not a duration: write for example '10 min'")
    return round(sum(float(number) * _unit_ms(unit.lower()) for number, unit in parts))


def _unit_ms(unit: str) -> int:
    for prefixes, milliseconds in _UNITS_MS:
        for prefix in prefixes:
            if unit == prefix or (len(prefix) > 1 and prefix != "sem" and unit.startswith(prefix)):
                return milliseconds
    if unit.startswith("seman"):
        return 604_800_000
    raise ValueError(f"{unit!r} is not a unit of time")
