"""Outputs of rules, and ids that a replay repeats."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

import orjson

from sib.cep import nulls
from sib.cep.aggregates import hashable

ALARM_ID_BYTES = 16


class Output:
    """One output event: the rule's label, the stream it goes into, its event time and its data.

    ``alarm_id`` is the same whenever the same events lead to the same output, so that a replay after a crash doubles
    nothing: it is made of rule, version, time, data, and the number among equal outputs of that time. ``is_timed``: made by
    the passing of time, not by an event.
    """

    __slots__ = ("data", "identity", "is_timed", "repeat", "rule", "stream", "ts_ms")

    def __init__(
        self,
        rule: str | int,
        stream: str,
        ts_ms: int,
        data: dict[str, Any],
        identity: tuple[str, int],
        repeat: int,
        *,
        is_timed: bool = False,
    ) -> None:
        self.rule, self.stream, self.ts_ms, self.data = rule, stream, ts_ms, data
        self.identity, self.repeat, self.is_timed = identity, repeat, is_timed

    @property
    def alarm_id(self) -> str:
        """Hexadecimal, ``ALARM_ID_BYTES`` long."""
        return alarm_id(self.identity, self.ts_ms, self.stream, self.data, self.repeat)

    def as_dict(self) -> dict[str, Any]:
        """What ``sofia2 cep run --json`` prints."""
        return {"rule": self.rule, "stream": self.stream, "ts": self.ts_ms, "data": self.data}

    def __repr__(self) -> str:
        return f"Output({self.rule!r}, {self.stream!r}, {self.ts_ms}, {self.data!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Output):
            return NotImplemented
        return self.as_dict() == other.as_dict()

    def __hash__(self) -> int:
        return hash((self.rule, self.stream, self.ts_ms))


def alarm_id(identity: tuple[str, int], ts_ms: int, stream: str, data: Mapping[str, Any], repeat: int) -> str:
    """The id of an output of the rule and version of ``identity``."""
    parts = [*identity, ts_ms, stream, nulls.plain(data), repeat]
    try:
        text = orjson.dumps(parts, default=str, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)
    except TypeError:  # a whole number beyond 64 bits
        text = json.dumps(parts, default=str, sort_keys=True).encode()
    return blake2b(text, digest_size=ALARM_ID_BYTES).hexdigest()


def within_64_bits(data: dict[str, Any]) -> dict[str, Any]:
    """The data with whole numbers beyond 64 bits (sums) as floats: no store and no client takes them."""
    for name, value in data.items():
        if type(value) is int and not -nulls.WHOLE_MAX <= value <= nulls.WHOLE_MAX:
            data[name] = nulls.to_float(value)
    return data


def _countable(row: tuple[Any, ...]) -> Any:
    """The row, or a text for it, so that rows are equal exactly if their ids would be."""
    try:
        hash(row)
    except TypeError:
        return hashable(nulls.plain(row))
    return row


class Repeats:
    """Numbers equal outputs of one rule at one time."""

    def __init__(self) -> None:
        self._ts: int | None = None
        self._rows: list[Any] = []
        self._counts: Counter[Any] | None = None

    def number(self, ts: int, row: tuple[Any, ...]) -> int:
        """How many equal outputs of this time there were before."""
        if ts != self._ts:
            self._ts, self._rows, self._counts = ts, [row], None
            return 0
        if self._counts is None:
            self._counts = Counter(map(_countable, self._rows))
        key = _countable(row)
        self._counts[key] += 1
        return self._counts[key] - 1

    def dump(self) -> list[Any]:
        """State for a snapshot."""
        counts = Counter(map(_countable, self._rows)) if self._counts is None else self._counts
        return [self._ts, dict(counts)]

    def load(self, state: list[Any]) -> None:
        """Take over the state of a snapshot."""
        self._ts, self._rows, self._counts = state[0], [], Counter(state[1])
