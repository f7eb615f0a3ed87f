"""String operators. Results are bounded by MAX_TEXT_LENGTH."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any

from sib.errors import QueryError, QuerySyntaxError
from sib.query import numbers
from sib.query.budget import check_array_length, check_text_length
from sib.query.expressions.compiler import Expression, Scope, Variables, function, is_nullish, named_arguments, operator
from sib.query.regex import compile_pattern, is_regex
from sib.query.values import is_number, type_name

DEFAULT_TRIMMED = (
    "\0 \t\n\v\f\r\u00a0\u1680" + "".join(map(chr, range(0x2000, 0x200B))) + "\u2028\u2029\u202f\u205f\u3000"
)
"""What ``$trim`` takes away without ``chars``. Source: MongoDB manual, "$trim"."""


def text_argument(name: str, value: Any) -> str:
    """The argument as a string.

    Raises:
        QueryError: it is none.
    """
    if type(value) is not str:
        raise QueryError(f"{name} needs a string, not {type_name(value)}")
    return value


def loose_text(name: str, value: Any) -> str:
    """Null as "", numbers and dates as their text: what the older string operators accept."""
    if is_nullish(value):
        return ""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%S}.{value.microsecond // 1000:03d}Z"
    if is_number(value):
        from sib.query.expressions.conversion import number_text

        return number_text(value)
    return text_argument(name, value)


@function("$concat", 0, None)
def _concat(*values: Any) -> Any:
    if any(is_nullish(value) for value in values):
        return None
    texts = [text_argument("$concat", value) for value in values]
    check_text_length(sum(map(len, texts)))
    return "".join(texts)


@function("$toUpper", 1)
def _to_upper(value: Any) -> str:
    return loose_text("$toUpper", value).upper()


@function("$toLower", 1)
def _to_lower(value: Any) -> str:
    return loose_text("$toLower", value).lower()


@function("$strLenCP", 1)
def _length(value: Any) -> int:
    return len(text_argument("$strLenCP", value))


@function("$strLenBytes", 1)
def _length_bytes(value: Any) -> int:
    return len(_utf8(text_argument("$strLenBytes", value)))


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@function("$strcasecmp", 2)
def _compare_ignoring_case(left: Any, right: Any) -> int:
    a, b = loose_text("$strcasecmp", left).upper(), loose_text("$strcasecmp", right).upper()
    return (a > b) - (a < b)


def _whole(name: str, value: Any) -> int:
    whole = numbers.as_whole(value) if is_number(value) else None
    if whole is None:
        raise QueryError(f"{name} needs whole numbers for position and length")
    return whole


@function("$substrCP", 3)
def _substring(value: Any, start: Any, length: Any) -> str:
    text = loose_text("$substrCP", value)
    first, count = _whole("$substrCP", start), _whole("$substrCP", length)
    if first < 0 or count < 0:
        raise QueryError("$substrCP needs a position and a length that are not negative")
    return text[first : first + count]


def _substring_bytes(name: str) -> Callable[[Any, Any, Any], str]:
    def cut(value: Any, start: Any, length: Any) -> str:
        data = _utf8(loose_text(name, value))
        first, count = _whole(name, start), _whole(name, length)
        if first < 0:
            return ""
        part = data[first:] if count < 0 else data[first : first + count]
        try:
            return part.decode("utf-8", "strict")
        except UnicodeDecodeError:
            raise QueryError(f"{name} cuts a character in two: use $substrCP") from None

    return cut


function("$substr", 3)(_substring_bytes("$substr"))
function("$substrBytes", 3)(_substring_bytes("$substrBytes"))


@function("$split", 2)
def _split(value: Any, separator: Any) -> Any:
    if is_nullish(value) or is_nullish(separator):
        return None
    by = text_argument("$split", separator)
    if not by:
        raise QueryError("$split needs a separator that is not empty")
    parts = text_argument("$split", value).split(by)
    check_array_length(len(parts))
    return parts


def _index_of(name: str, prepare: Callable[[str], Any]) -> None:
    @function(name, 2, 4)
    def find(value: Any, wanted: Any, start: Any = 0, end: Any = None) -> Any:
        if is_nullish(value):
            return None
        text, token = prepare(text_argument(name, value)), prepare(text_argument(name, wanted))
        first = _whole(name, start)
        last = len(text) if is_nullish(end) else _whole(name, end)
        if first < 0 or last < 0:
            raise QueryError(f"{name} needs bounds that are not negative")
        return -1 if first > len(text) or last < first else text.find(token, first, last)


_index_of("$indexOfCP", lambda text: text)
_index_of("$indexOfBytes", _utf8)


def _trimming(name: str, left: bool, right: bool) -> None:
    @operator(name)
    def compile_trim(argument: Any, scope: Scope) -> Expression:
        named = named_arguments(name, argument, ("input",), ("chars",))
        source = scope.compile(named["input"])
        chars = scope.compile(named["chars"]) if "chars" in named else None

        def evaluate(document: Any, variables: Variables) -> Any:
            value = source(document, variables)
            taken = DEFAULT_TRIMMED if chars is None else chars(document, variables)
            if is_nullish(value) or is_nullish(taken):
                return None
            text, taken = text_argument(name, value), text_argument(name, taken)
            if left:
                text = text.lstrip(taken) if taken else text
            return text.rstrip(taken) if right and taken else text

        return evaluate


_trimming("$trim", True, True)
_trimming("$ltrim", True, False)
_trimming("$rtrim", False, True)


def _replacing(name: str, count: int) -> None:
    @operator(name)
    def compile_replace(argument: Any, scope: Scope) -> Expression:
        named = named_arguments(name, argument, ("input", "find", "replacement"))
        parts = scope.compile_all([named["input"], named["find"], named["replacement"]])

        def evaluate(document: Any, variables: Variables) -> Any:
            values = [part(document, variables) for part in parts]
            if any(map(is_nullish, values)):
                return None
            text, find, replacement = (text_argument(name, value) for value in values)
            found = text.count(find) if count < 0 else 1
            check_text_length(len(text) + found * len(replacement))
            return text.replace(find, replacement, count)

        return evaluate


_replacing("$replaceOne", 1)
_replacing("$replaceAll", -1)


# Regular expressions

MAX_MATCHES = 100_000
"""Matches that ``$regexFindAll`` gives for one string."""


@lru_cache(maxsize=256)
def _cached_pattern(pattern: str, options: str) -> Any:
    return compile_pattern(pattern, options, captures=True)


def _regex_operator(name: str, answer: Callable[[Any, str], Any], nothing: Any) -> None:
    @operator(name)
    def compile_regex(argument: Any, scope: Scope) -> Expression:
        named = named_arguments(name, argument, ("input", "regex"), ("options",))
        source = scope.compile(named["input"])
        pattern = scope.compile(named["regex"])
        options = scope.compile(named.get("options", ""))
        if is_regex(named["regex"]) or (type(named["regex"]) is str and not named["regex"].startswith("$")):
            _pattern_object(name, named["regex"], "")  # a bad constant is refused before anything runs

        def evaluate(document: Any, variables: Variables) -> Any:
            value, regex = source(document, variables), pattern(document, variables)
            if is_nullish(value) or is_nullish(regex):
                return list(nothing) if isinstance(nothing, list) else nothing
            flags = options(document, variables)
            return answer(_pattern_object(name, regex, "" if is_nullish(flags) else flags), text_argument(name, value))

        return evaluate


def _pattern_object(name: str, regex: Any, options: Any) -> Any:
    if type(options) is not str:
        raise QuerySyntaxError(f"{name}: options must be a string")
    if type(regex) is str:
        return _cached_pattern(regex, options)
    if not is_regex(regex):
        raise QueryError(f"{name} needs a string or a regular expression, not {type_name(regex)}")
    return compile_pattern(regex, options, captures=True)


def _is_found(pattern: Any, text: str) -> bool:
    return pattern.search(text.encode("utf-8", "replace")) is not None


def _describe(found: Any, data: bytes) -> dict[str, Any]:
    return {
        "match": found.group().decode("utf-8", "replace"),
        "idx": len(data[: found.start()].decode("utf-8", "replace")),
        "captures": [None if part is None else part.decode("utf-8", "replace") for part in found.groups()],
    }


def _first_match(pattern: Any, text: str) -> Any:
    data = text.encode("utf-8", "replace")
    found = pattern.search(data)
    return None if found is None else _describe(found, data)


def _all_matches(pattern: Any, text: str) -> list[Any]:
    data = text.encode("utf-8", "replace")
    matches: list[Any] = []
    for found in pattern.finditer(data):
        matches.append(_describe(found, data))
        if len(matches) > MAX_MATCHES:
            raise QueryError(f"$regexFindAll found more than {MAX_MATCHES} matches in one string")
    return matches


_regex_operator("$regexMatch", _is_found, False)
_regex_operator("$regexFind", _first_match, None)
_regex_operator("$regexFindAll", _all_matches, [])
