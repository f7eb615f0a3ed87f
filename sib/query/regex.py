"""Regular expressions of queries, on RE2: the time is linear in the text, whatever the pattern.

Look-around and back-references do not exist in RE2 and are refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import re2
from bson import Regex

from sib.errors import QuerySyntaxError

MAX_PATTERN_LENGTH = 32_764
"""Characters of a pattern. Source: MongoDB manual, "$regex"."""

MAX_PROGRAM_BYTES = 2 * 1024 * 1024
"""Memory that RE2 may use for one pattern."""


def compile_pattern(pattern: Any, options: Any = "", *, captures: bool = False) -> Any:
    """Compiles a pattern to an RE2 object over UTF-8 bytes.

    Args:
        pattern: text, a BSON regex or a Python pattern.
        options: any of ``i`` (ignore case), ``m`` (anchors at lines), ``s`` (dot takes line ends), ``x`` (blanks and comments are
            ignored); ``u`` is accepted and means nothing. They are added to those of a BSON regex, or replace them if given.
        captures: whether the groups are wanted.

    Raises:
        QuerySyntaxError: the pattern or an option is not understood, too long, or uses what RE2 refuses.
    """
    if isinstance(pattern, (Regex, re.Pattern)):
        options = options or _options_of(pattern)
        pattern = pattern.pattern
    if isinstance(pattern, bytes):
        pattern = pattern.decode("utf-8", "replace")
    if not isinstance(pattern, str):
        raise QuerySyntaxError(f"$regex needs a string or a regular expression, not {type(pattern).__name__}")
    if not isinstance(options, str) or set(options) - set("imsxu"):
        raise QuerySyntaxError(f"$options may hold the letters i, m, s and x, not {options!r}")
    if len(pattern) > MAX_PATTERN_LENGTH:
        raise QuerySyntaxError(f"the regular expression is longer than {MAX_PATTERN_LENGTH} characters")
    if "\0" in pattern:
        raise QuerySyntaxError("a regular expression cannot hold the character NUL")
    if "x" in options:
        pattern = _without_layout(pattern)
    flags = "".join(letter for letter in "ims" if letter in options)
    source = f"(?{flags}){pattern}" if flags else pattern
    settings = re2.Options()
    settings.log_errors = False
    settings.never_capture = not captures
    settings.max_mem = MAX_PROGRAM_BYTES
    try:
        return re2.compile(source.encode("utf-8", "replace"), settings)
    except re2.error as error:
        reason = error.args[0] if error.args else ""
        reason = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise QuerySyntaxError(
            f"the regular expression {pattern[:100]!r} is refused ({reason}): look-around, back-references and possessive "
            "quantifiers are not supported, because patterns run in linear time"
        ) from None


def compile_search(pattern: Any, options: Any = "") -> Callable[[str], bool]:
    """Compiles to a test: whether the pattern is found anywhere in the text."""
    search = compile_pattern(pattern, options).search
    return lambda text: search(text.encode("utf-8", "replace")) is not None


def is_regex(value: object) -> bool:
    """Whether the value is a regular expression literal."""
    return isinstance(value, (Regex, re.Pattern))


def _options_of(pattern: Regex[Any] | re.Pattern[Any]) -> str:
    letters = {"i": re.IGNORECASE, "m": re.MULTILINE, "s": re.DOTALL, "x": re.VERBOSE}
    return "".join(letter for letter, flag in letters.items() if pattern.flags & flag)


def _without_layout(pattern: str) -> str:
    """Takes out the blanks and comments of an extended pattern, which RE2 does not know."""
    kept: list[str] = []
    in_class = False
    position = 0
    while position < len(pattern):
        char = pattern[position]
        if char == "\\":
            kept.append(pattern[position : position + 2])
            position += 2
            continue
        if in_class:
            in_class = char != "]"
        elif char == "[":
            in_class = True
            # A bracket that closes nothing yet is an ordinary member of the class.
            opening = re.match(r"\[\^?\]?", pattern[position:])
            text = opening.group() if opening else char
            kept.append(text)
            position += len(text)
            continue
        elif char == "#":
            end = pattern.find("\n", position)
            position = len(pattern) if end < 0 else end + 1
            continue
        elif char.isspace():
            position += 1
            continue
        kept.append(char)
        position += 1
    return "".join(kept)
