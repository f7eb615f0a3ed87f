"""What a value of an applied file may be: readers that give the value or raise FileProblems with its line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sofia2.yamlnodes import (
    Entry,
    FileProblems,
    Mapping,
    Node,
    Problem,
    Scalar,
    Sequence,
    is_null,
    plain_value,
    problem_at,
    value_of,
)

Read = Callable[[Node], Any]

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_WINDOW = re.compile(r"([0-9]{1,9})\s*([smhdw])")
_WINDOW_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class LocatedText(str):
    """A text of the file that remembers its line, for references that are checked later."""

    __slots__ = ("line",)
    line: int

    def __new__(cls, text: str, line: int) -> LocatedText:
        located = super().__new__(cls, text)
        located.line = line
        return located


def read_text(node: Node) -> LocatedText:
    """A text; numbers and the like without quotes count as the text they are written as."""
    if not isinstance(node, Scalar) or is_null(node):
        raise problem_at(node.line, "a text is expected here.")
    return LocatedText(node.text, node.line)


def read_optional_text(node: Node) -> str:
    """A text, or null for none ("")."""
    return "" if is_null(node) else read_text(node)


def read_flag(node: Node) -> bool:
    """True or false."""
    value = plain_value(node.text) if isinstance(node, Scalar) and node.is_plain and len(node.text) < 10 else None
    if not isinstance(value, bool):
        raise problem_at(node.line, "true or false is expected here.")
    return value


def name_reader(what: str, *, forbidden: str = "", pattern: re.Pattern[str] | None = None, chars_max: int) -> Read:
    """A reader of names: not empty, no control characters, no blanks around, bounded."""

    def read_name(node: Node) -> LocatedText:
        name = read_text(node)
        if not name or len(name) > chars_max or name != name.strip() or _CONTROL.search(name):
            raise problem_at(name.line, f"{what} has 1 to {chars_max} characters, without blanks around them.")
        if any(character in name for character in forbidden):
            raise problem_at(name.line, f"{what} may not contain {forbidden!r}.")
        if pattern is not None and not pattern.fullmatch(name):
            raise problem_at(
                name.line, f"{what} begins with a letter and holds letters, digits, _ and -: not {name!r}."
            )
        return name

    return read_name


def bounded_text_reader(chars_max: int) -> Read:
    """A reader of an optional text of bounded length."""

    def read_bounded(node: Node) -> str:
        text = read_optional_text(node)
        if len(text) > chars_max:
            raise problem_at(node.line, f"this text may have at most {chars_max} characters.")
        return text

    return read_bounded


def nullable(read: Read) -> Read:
    """A reader that also takes null."""
    return lambda node: None if is_null(node) else read(node)


def choice_reader(choices: type[StrEnum]) -> Read:
    """A reader of one word out of several; the case of its letters does not matter."""
    by_lower_case = {choice.value.lower(): choice for choice in choices}

    def read_choice(node: Node) -> StrEnum:
        text = read_text(node)
        found = by_lower_case.get(text.lower())
        if found is None:
            raise problem_at(text.line, f"{text[:40]!r} is none of {', '.join(choices)}.")
        return found

    return read_choice


def secret_reader(pattern: re.Pattern[str], expected: str) -> Read:
    """A reader of a secret of a given form; the value never gets into a message."""

    def read_secret(node: Node) -> LocatedText:
        secret = read_text(node)
        if not pattern.fullmatch(secret):
            raise problem_at(secret.line, f"{expected} is expected here.")
        return secret

    return read_secret


def read_window(node: Node) -> int:
    """A duration such as ``30d`` or ``1s``, in seconds."""
    text = read_text(node)
    found = _WINDOW.fullmatch(text)
    if found is None or not int(found[1]):
        raise problem_at(text.line, "a duration is a number above 0 and a unit: s, m, h, d or w; for example 30d.")
    return int(found[1]) * _WINDOW_UNITS_S[found[2]]


def list_reader(read: Read) -> Read:
    """A reader of lists; all faulty items are reported together."""

    def read_list(node: Node) -> tuple[Any, ...]:
        if not isinstance(node, Sequence):
            raise problem_at(node.line, "a list is expected here: [a, b] or lines that begin with -.")
        return tuple(_collected(read, node.items))

    return read_list


def map_reader(read_key: Read, read: Read) -> Read:
    """A reader of maps from any names; all faulty entries are reported together."""

    def read_map(node: Node) -> dict[str, Any]:
        if not isinstance(node, Mapping):
            raise problem_at(node.line, "a map is expected here: {key: value} or lines of key: value.")

        def read_pair(pair: tuple[str, Entry]) -> tuple[Any, Any]:
            key, entry = pair
            return read_key(Scalar(entry.line, key, is_plain=False)), read(entry.value)

        return dict(_collected(read_pair, node.entries.items()))

    return read_map


def read_free_map(node: Node) -> dict[str, Any]:
    """A map of any values of JSON."""
    if not isinstance(node, Mapping):
        raise problem_at(node.line, "a map is expected here: {key: value} or lines of key: value.")
    return {key: value_of(entry.value) for key, entry in node.entries.items()}


@dataclass(frozen=True, slots=True)
class ObjectRead:
    """A map of known keys: the values that were good, the line of each key, and what was wrong with the others."""

    given: dict[str, Any]
    lines: dict[str, int]
    problems: tuple[Problem, ...]


def read_keys(node: Node, readers: dict[str, Read], required: Iterable[str]) -> ObjectRead:
    """Read a map of known keys as far as it can be read.

    Raises:
        FileProblems: it is no map at all.
    """
    if not isinstance(node, Mapping):
        raise problem_at(node.line, f"a map with the keys {', '.join(readers)} is expected here.")
    problems: list[Problem] = []
    given: dict[str, Any] = {}
    for key, entry in node.entries.items():
        if key not in readers:
            problems.append(Problem(entry.line, f"unknown key {key[:60]!r}: {suggestion(key, readers)}"))
            continue
        try:
            given[key] = readers[key](entry.value)
        except FileProblems as error:
            problems += error.problems
    missing = [key for key in required if key not in node.entries]
    problems += [Problem(node.line, f"the key {key!r} is missing.") for key in missing]
    return ObjectRead(given, {key: entry.line for key, entry in node.entries.items()}, tuple(problems))


def read_object(node: Node, readers: dict[str, Read], required: Iterable[str]) -> dict[str, Any]:
    """Read a map of known keys.

    Raises:
        FileProblems: an unknown key, a missing one, or values that are wrong; all together.
    """
    read = read_keys(node, readers, required)
    if read.problems:
        raise FileProblems(*read.problems)
    return read.given


def suggestion(key: str, known: Iterable[str]) -> str:
    """What may have been meant by an unknown key."""
    close = difflib.get_close_matches(key, list(known), n=1)
    return f"did you mean {close[0]!r}?" if close else f"known keys are {', '.join(known)}."


def _collected(read: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    values: list[Any] = []
    problems: list[Problem] = []
    for item in items:
        try:
            values.append(read(item))
        except FileProblems as error:
            problems += error.problems
    if problems:
        raise FileProblems(*problems)
    return values
