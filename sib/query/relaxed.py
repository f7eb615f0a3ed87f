"""Relaxed JSON of the Mongo shell to BSON values: what KPs of ten years really send as criteria and instances.

Unquoted and dotted keys, single and typographic quotes, comments, trailing commas and ``;``, ``ISODate()`` and its
kin, ``/re/i``, extended JSON, and an object whose opening brace is missing. Only QuerySyntaxError is ever raised.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, NoReturn

from sib.errors import QuerySyntaxError
from sib.integers import HINT, fits
from sib.query.constructors import Clock, call_method, construct
from sib.query.extended import from_extended, milliseconds_of, regex
from sib.query.parameters import Parameters, text_of

MAX_TEXT_CHARS = 2_000_000
MAX_DEPTH = 100  # as BSON documents are nested at most
MAX_VALUES = 200_000
MAX_NUMBER_CHARS = 400

_BLANK = re.compile(r"(?:[\s\ufeff]+|//[^\n]*|/\*.*?\*/)*", re.DOTALL)
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_WORD = re.compile(r"[^\W\d]\w*|\$\w*")
_BARE_KEY = re.compile(r"[^\s:,{}\[\]()\"'“”‘’`]+")
_STARTS_WITH_KEY = re.compile(r"(?:\"[^\"\\]*\"|'[^'\\]*'|[\w$][\w$.\-]*)\s*:")
_PARAMETER = re.compile(r"\{\s*\$(\w+)\s*\}")
_REGEX_LITERAL = re.compile(r"/((?:[^/\\\[\n]|\\.|\[(?:[^\]\\\n]|\\.)*\])+)/([a-z]*)")
_DOUBLE_QUOTES, _SINGLE_QUOTES = "“”„‟", "‘’‚‛"
_STRING_PARTS = {
    '"': re.compile(r'[^"\\]*'),
    "'": re.compile(r"[^'\\]*"),
    **dict.fromkeys(_DOUBLE_QUOTES, re.compile(r'[^“”„‟"\\]*')),
    **dict.fromkeys(_SINGLE_QUOTES, re.compile(r"[^‘’‚‛'\\]*")),
}
_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "0": "\0"}
_CONSTANTS = {"true": True, "false": False, "null": None, "undefined": None}
_REFUSED_WORDS = {
    "NaN": "NaN is not a number that can be stored",
    "Infinity": "Infinity is not a number that can be stored",
    "function": "JavaScript is not carried out",
}


def parse_relaxed(text: str, *, now: Clock | None = None, parameters: Parameters | None = None) -> Any:
    """The value of a text of relaxed JSON, with BSON values in it.

    Args:
        text: one value, at most MAX_TEXT_CHARS long, MAX_DEPTH deep, with MAX_VALUES values.
        now: the clock (naive UTC) for ``new Date()``; without it such a text is refused.
        parameters: typed values for ``{$name}``; without it such a text is refused.

    Raises:
        QuerySyntaxError: with the position and what was expected there.
    """
    reader = Reader(text, now=now, parameters=parameters)
    # Source: Sofia2 C client, examples/inserts.c: the instance lacks its opening brace.
    lacks_brace = _STARTS_WITH_KEY.match(text, reader.skip()) is not None
    value = reader.members(1) if lacks_brace else reader.value()
    reader.end()
    return value


class Reader:
    """A position in a text, and how to read values from there. The shell's statements are read with it too."""

    def __init__(self, text: str, *, now: Clock | None = None, parameters: Parameters | None = None) -> None:
        if len(text) > MAX_TEXT_CHARS:
            raise QuerySyntaxError(f"The text is longer than {MAX_TEXT_CHARS} characters: send less at once.")
        self.text = text
        self.position = 0
        self._now = now
        self._parameters = parameters
        self._values_left = MAX_VALUES

    def skip(self) -> int:
        """Go past blanks and comments; the position after them."""
        match = _BLANK.match(self.text, self.position)
        if match is not None:
            self.position = match.end()
        return self.position

    def peek(self) -> str:
        """The next character after blanks, "" at the end."""
        start = self.skip()
        return self.text[start : start + 1]

    def take(self, character: str) -> bool:
        """Go past the character if it is the next one."""
        if self.peek() == character:
            self.position += 1
            return True
        return False

    def expect(self, character: str, what: str | None = None) -> None:
        if not self.take(character):
            self.fail(f"expected {what or repr(character)}")

    def word(self, what: str) -> str:
        """An identifier."""
        match = _WORD.match(self.text, self.skip())
        if match is None:
            self.fail(f"expected {what}")
        self.position = match.end()
        return match.group()

    def end(self) -> None:
        """Nothing but ``;`` may follow."""
        while self.take(";"):
            pass
        if self.peek():
            self.fail("expected the end")

    def fail(self, sentence: str, at: int | None = None) -> NoReturn:
        """Raise the error for the current position."""
        start = self.skip() if at is None else at
        found = self.text[start : start + 20]
        found = ascii(found) if found else "the end"
        reason = sentence if sentence.isprintable() else ascii(sentence)[1:-1]
        raise QuerySyntaxError(f"Cannot read the query at character {start + 1}: {reason}, found {found}.")

    def arguments(self) -> list[Any]:
        """The arguments of a call, from its ``(`` to its ``)``."""
        self.expect("(")
        return self._items(")", 1)

    def value(self, depth: int = 0) -> Any:
        """A value, or a sum or difference of numbers and dates (``new Date() - 3600 * 1000``)."""
        left = self._product(depth)
        while (operator := self.peek()) and operator in "+-":
            start = self.position
            self.position += 1
            left = self._compute(operator, left, self._product(depth), start)
        return left

    def members(self, depth: int) -> Any:
        """The members of an object up to its ``}``, as the value that they stand for."""
        document: dict[str, Any] = {}
        start = self.position
        while not self.take("}"):
            at = self.skip()
            key = self._key()
            if key in document:
                self.fail(f"the key {key[:60]!r} stands twice in one object", at)
            self.expect(":", "':' after the key")
            document[key] = self.value(depth)
            if not self.take(","):
                self.expect("}", "',' or '}'")
                break
        try:
            return from_extended(document)
        except ValueError as error:
            self.fail(str(error), start)

    def _product(self, depth: int) -> Any:
        left = self._primary(depth)
        while (operator := self.peek()) and operator in "*/":
            start = self.position
            self.position += 1
            left = self._compute(operator, left, self._primary(depth), start)
        return left

    def _primary(self, depth: int) -> Any:
        self._values_left -= 1
        if self._values_left < 0:
            self.fail(f"more than {MAX_VALUES} values in one text are refused")
        if depth > MAX_DEPTH:
            self.fail(f"nesting deeper than {MAX_DEPTH} is refused")
        first = self.peek()
        if first == "{":
            return self._object(depth)
        if first == "[":
            self.position += 1
            return self._items("]", depth + 1)
        if first in _STRING_PARTS:
            return self._bound(self._string())
        if first == "(":
            return self._parenthesised(depth)
        if first == "/":
            return self._regex()
        if first and first in "+-":
            return self._signed(depth, first)
        if first.isdigit() or first == ".":
            return self._number("")
        return self._named(depth)

    def _object(self, depth: int) -> Any:
        if self._parameters is not None and (match := _PARAMETER.match(self.text, self.position)):
            self.position = match.end()
            return self._parameter(match.group(1))
        self.position += 1
        return self.members(depth + 1)

    def _items(self, closing: str, depth: int) -> list[Any]:
        items: list[Any] = []
        while not self.take(closing):
            items.append(self.value(depth))
            if not self.take(","):
                self.expect(closing, f"',' or '{closing}'")
                break
        return items

    def _parenthesised(self, depth: int) -> Any:
        self.position += 1
        value = self.value(depth + 1)
        self.expect(")")
        return self._methods(value)

    def _key(self) -> str:
        start = self.skip()
        if self.peek() in _STRING_PARTS:
            key = self._string()
        else:
            match = _BARE_KEY.match(self.text, self.position)
            if match is None:
                self.fail("expected a key or '}'")
            self.position = match.end()
            key = match.group()
        if "\0" in key:
            self.fail("a key cannot contain the character NUL", start)
        return key

    def _string(self) -> str:
        start = self.skip()
        part = _STRING_PARTS[self.text[start]]
        pieces: list[str] = []
        position = start + 1
        while True:
            match = part.match(self.text, position)
            assert match is not None
            pieces.append(match.group())
            position = match.end()
            if position >= len(self.text):
                self.fail("the string is not closed", start)
            if self.text[position] != "\\":
                break
            character, position = self._escape(position + 1)
            pieces.append(character)
        self.position = position + 1
        return self._whole_characters("".join(pieces), start)

    def _escape(self, position: int) -> tuple[str, int]:
        letter = self.text[position : position + 1]
        if letter not in ("u", "x"):
            return _ESCAPES.get(letter, letter), position + 1
        length = 4 if letter == "u" else 2
        digits = self.text[position + 1 : position + 1 + length]
        if not re.fullmatch(rf"[0-9a-fA-F]{{{length}}}", digits):
            self.fail(f"expected {length} hex digits after \\{letter}", position)
        return chr(int(digits, 16)), position + 1 + length

    def _whole_characters(self, text: str, start: int) -> str:
        """The text with pairs of surrogates joined. UTF-8, and so BSON, has no place for a lone one."""
        if text.isascii():
            return text
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            self.fail("the string contains half a character (a lone surrogate)", start)

    def _number(self, sign: str) -> int | float:
        start = self.position
        match = _NUMBER.match(self.text, start)
        if match is None:
            self.fail("expected a number")
        digits = match.group()
        self.position = match.end()
        if len(digits) > MAX_NUMBER_CHARS:
            self.fail(f"a number longer than {MAX_NUMBER_CHARS} characters is refused", start)
        following = self.text[self.position : self.position + 1]
        if following.isalnum() or following in ("_", "$"):
            self.fail("expected a number", start)
        if digits[:2] in ("0x", "0X"):
            value: int | float = int(digits, 16)
        elif digits.isdigit():
            if len(digits) > 1 and digits[0] == "0":
                self.fail("a number begins without zeros", start)
            value = int(digits)
        else:
            value = float(digits)
        return self._bounded(-value if sign == "-" else value, start)

    def _bounded(self, value: int | float, start: int) -> int | float:
        if isinstance(value, int) and not fits(value):  # JavaScript would make a double of it and lose its last digits
            self.fail(f"the number does not fit in 64 bits: {HINT}", start)
        if isinstance(value, float) and value - value != 0:
            self.fail("the number is too large", start)
        return value

    def _signed(self, depth: int, sign: str) -> Any:
        start = self.position
        self.position += 1
        following = self.peek()
        if following.isdigit() or following == ".":
            return self._number(sign)
        value = self._primary(depth + 1)
        return self._compute(sign, 0, value, start)

    def _regex(self) -> Any:
        match = _REGEX_LITERAL.match(self.text, self.position)
        if match is None:
            self.fail("expected a value; a regular expression is written /pattern/options")
        start, self.position = self.position, match.end()
        try:
            return regex(self._whole_characters(match.group(1).replace("\\/", "/"), start), match.group(2))
        except ValueError as error:
            self.fail(str(error), start)

    def _named(self, depth: int) -> Any:
        """``true``, ``null``, ``new Date(...)``, ``ObjectId(...)``, ``Date.now()``, ``MinKey``."""
        start = self.skip()
        name = self.word("a value")
        if name in _CONSTANTS:
            return _CONSTANTS[name]
        if name in _REFUSED_WORDS:
            self.fail(_REFUSED_WORDS[name], start)
        is_new = name == "new"
        if is_new:
            name = self.word("the name of a function after 'new'")
        while self.take("."):
            name = f"{name}.{self.word('a name')}"
        is_call = self.peek() == "("
        if not is_call and not is_new and name not in ("MinKey", "MaxKey"):
            self.fail("expected a value (write strings in quotes)", start)
        if is_call:
            self.position += 1
        arguments = self._items(")", depth + 1) if is_call else []
        try:
            return self._methods(construct(name, arguments, self._now))
        except ValueError as error:
            self.fail(str(error), start)

    def _methods(self, value: Any) -> Any:
        while isinstance(value, datetime) and self.take("."):
            start = self.position
            name = self.word("the name of a method")
            self.expect("(")
            self.expect(")")
            try:
                value = call_method(value, name)
            except ValueError as error:
                self.fail(str(error), start)
        return value

    def _compute(self, operator: str, left: Any, right: Any, start: int) -> Any:
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            return left + right
        left, right = (milliseconds_of(each) if isinstance(each, datetime) else each for each in (left, right))
        if not (_is_number(left) and _is_number(right)) or (operator == "/" and right == 0):
            self.fail(f"'{operator}' joins numbers (and not by zero)", start)
        try:
            if operator == "*":
                result = left * right
            elif operator == "/":
                result = left / right
            else:
                result = left + right if operator == "+" else left - right
        except OverflowError:
            self.fail("the number is too large", start)
        return self._bounded(result, start)

    def _parameter(self, name: str) -> Any:
        assert self._parameters is not None
        if name not in self._parameters:
            raise QuerySyntaxError(f"The parameter {name} of this query is missing: send it in queryParams.")
        return self._parameters[name]

    def _bound(self, text: str) -> Any:
        """The string with its ``{$name}`` replaced; a string that is nothing else becomes the typed value."""
        if self._parameters is None or "{" not in text:
            return text
        whole = _PARAMETER.fullmatch(text)
        if whole is not None:
            return self._parameter(whole.group(1))
        return _PARAMETER.sub(lambda match: text_of(self._parameter(match.group(1))), text)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
