"""Text of rules to :class:`~sib.cep.language.ast.Rule`. Only ever raises :class:`~sib.cep.errors.CepSyntaxError`.

A file holds several rules, separated by ``;``. Each is parsed by itself, so that one mistake does not hide the others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from importlib import resources
from typing import Any

import lark

from sib.cep.errors import CepSyntaxError
from sib.cep.language.ast import Expression, Position, Problem, Rule
from sib.cep.language.transformer import TreeReader

RULES_TEXT_CHARACTERS_MAX = 1_000_000
"""Characters in one text of rules; more is refused."""

RULE_CHARACTERS_MAX = 20_000
"""Characters in one rule; more is refused, which also bounds the depth of its expressions."""

NESTING_MAX = 30
"""Brackets inside brackets, and ``not`` or ``-`` in a row of brackets; more is refused."""

DEPTH_MAX = 100
"""Depth of an expression, whatever makes it deep; more is refused."""

RULES_MAX = 10_000
"""Rules in one text; more is refused."""

_SKIP = re.compile(
    r"""--[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|[^;\-/"'()\[\]]+|.""", re.DOTALL | re.VERBOSE
)

_READABLE = {
    "LSQB": "'['", "RSQB": "']'", "LPAR": "'('", "RPAR": "')'", "COMMA": "','", "DOT": "'.'", "AT": "'@'", "HASH": "'#'",
    "__ANON_0": "'->'", "FOLLOWED": "'->'", "LESS": "'<'", "MORE": "'>'", "EQUAL": "'='", "PLUS": "'+'", "TIMES": "'*'",
    "MINUS": "'-'", "DIVIDE": "'/'", "QMARK": "'?'", "COLON": "':'", "COMPARE": "a comparison", "NAME": "a name",
    "NUMBER": "a number", "INT": "a whole number", "STRING": "a text in quotes", "DURATION": "a duration such as '10 min'",
    "WINDOW_DOT": "'window.'", "$END": "the end of the rule",
}  # fmt: skip


def parse_rules(text: str) -> tuple[Rule, ...]:
    """All rules of a text, in order, numbered from 1.

    Raises:
        CepSyntaxError: One problem per rule that cannot be read, or no rule at all, or a bound was passed.
    """
    if len(text) > RULES_TEXT_CHARACTERS_MAX:
        raise CepSyntaxError([Problem(Position(1, 1), f"more than {RULES_TEXT_CHARACTERS_MAX} characters of rules")])
    rules: list[Rule] = []
    problems: list[Problem] = []
    number = 0
    for piece, position in _split(text):
        number += 1
        try:
            rules.append(_parse_rule(piece, position, number, text))
        except CepSyntaxError as error:
            problems.extend(error.problems)
    if not number:
        problems.append(Problem(Position(1, 1), "no rule here: a rule reads 'from … select … insert into …'"))
    if number > RULES_MAX:
        problems.append(Problem(Position(1, 1), f"more than {RULES_MAX} rules"))
    if problems:
        raise CepSyntaxError(problems)
    return tuple(rules)


def parse_expression(text: str) -> Expression:
    """One condition or value, as a script rule's IF may be.

    Raises:
        CepSyntaxError: With line and column in the text.
    """
    tree = _parse(text, "expression", Position(1, 1), text)
    expression: Expression = _read(tree, TreeReader(Position(1, 1)), Position(1, 1))
    return expression


def _parse_rule(piece: str, position: Position, number: int, text: str) -> Rule:
    tree = _parse(piece, "rule", position, text)
    rule: Rule = _read(tree, TreeReader(position, number, piece.strip()), position)
    return rule


def _read(tree: lark.Tree[lark.Token], reader: TreeReader, position: Position) -> Any:
    try:
        node = reader.transform(tree)
    except lark.exceptions.VisitError as error:
        if isinstance(error.orig_exc, CepSyntaxError):
            raise error.orig_exc from None
        raise
    if _is_too_deep(node):
        raise CepSyntaxError([Problem(position, f"an expression of more than {DEPTH_MAX} levels: split the rule")])
    return node


def _is_too_deep(node: Any) -> bool:
    """Whether frozen data are nested deeper than ``DEPTH_MAX``; does not recur itself."""
    pending = [(node, 0)]
    while pending:
        item, depth = pending.pop()
        if depth > DEPTH_MAX:
            return True
        if isinstance(item, tuple):
            pending += [(inner, depth) for inner in item]
        elif is_dataclass(item):
            pending += [(getattr(item, field.name), depth + 1) for field in fields(item)]
    return False


def _parse(piece: str, start: str, position: Position, text: str) -> lark.Tree[lark.Token]:
    if len(piece) > RULE_CHARACTERS_MAX or _depth(piece) > NESTING_MAX:
        message = f"a rule of more than {RULE_CHARACTERS_MAX} characters or {NESTING_MAX} brackets inside each other"
        raise CepSyntaxError([Problem(position, message)])
    try:
        return _grammar().parse(piece, start=start)
    except lark.UnexpectedInput as error:
        raise CepSyntaxError([_problem(error, piece, position, text)]) from None


@cache
def _grammar() -> lark.Lark:
    grammar = resources.files("sib.cep.language").joinpath("grammar.lark").read_text(encoding="utf-8")
    return lark.Lark(grammar, parser="lalr", start=["rule", "expression"], propagate_positions=True)


def _split(text: str) -> Iterator[tuple[str, Position]]:
    """The pieces between ``;`` that hold more than blanks and comments, and where each begins."""
    start, is_empty = 0, True
    for match in [*_SKIP.finditer(text), None]:
        if match is not None and match.group() != ";":
            is_empty = is_empty and (match.group().isspace() or match.group().startswith(("--", "/*")))
            continue
        if not is_empty:
            yield text[start : match.start() if match else len(text)], position_of(text, start)
        if match is not None:
            start, is_empty = match.end(), True


def _depth(text: str) -> int:
    depth = deepest = signs = 0
    for match in _SKIP.finditer(text):
        part = match.group()
        depth += (part in "([") - (part in ")]")
        signs += part == "-" or len(re.findall(r"\bnot\b|!", part, re.IGNORECASE))
        deepest = max(deepest, depth)
    return max(deepest, signs // 10)


def position_of(text: str, offset: int) -> Position:
    """Line and column of an offset."""
    return Position(text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset))


def shift(position: Position, origin: Position) -> Position:
    """A position inside a piece as one in the whole text, where the piece begins at ``origin``."""
    if position.line > 1:
        return Position(origin.line + position.line - 1, position.column)
    return Position(origin.line, origin.column + position.column - 1)


def _problem(error: lark.UnexpectedInput, piece: str, origin: Position, text: str) -> Problem:
    if isinstance(error, lark.UnexpectedToken) and error.token.type == "$END":
        end = len(piece.rstrip())
        inner, found = position_of(piece, end), "the rule ends"
    else:
        inner = Position(error.line, error.column)
        token = error.token if isinstance(error, lark.UnexpectedToken) else _word_at(piece, inner)
        found = f"{str(token)!r} is not expected here"
    accepts = error.accepts if isinstance(error, lark.UnexpectedToken) else getattr(error, "allowed", None)
    where = shift(inner, origin)
    return Problem(where, f"{found}: expected {_expected(accepts or ())}", snippet(text, where))


def _expected(terminals: set[str] | tuple[str, ...]) -> str:
    words = sorted({_READABLE.get(terminal, terminal.lower()) for terminal in terminals})
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words) or "something else"


def _word_at(piece: str, position: Position) -> str:
    line = piece.split("\n")[position.line - 1][position.column - 1 :]
    match = re.match(r"\w+|.", line)
    return match.group() if match else ""


def snippet(text: str, position: Position) -> str:
    """The line of a position, and a caret below its column."""
    lines = text.split("\n")
    line = lines[position.line - 1] if position.line <= len(lines) else ""
    pad = "".join("\t" if character == "\t" else " " for character in line[: position.column - 1])
    return f"{line}\n{pad}^"
