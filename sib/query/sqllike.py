"""LIKE and REGEXP of SQL-like statements as regular expressions."""

from __future__ import annotations

import re

from sqlglot import exp

from sib.errors import SqlSyntaxError
from sib.query.constructors import Clock
from sib.query.sqlvalues import text_value

DOT_MATCHES_ALL = "s"


def is_like(node: exp.Expr) -> bool:
    """Whether the node is LIKE, ILIKE, LIKE ... ESCAPE or REGEXP."""
    return isinstance(node, exp.Like | exp.ILike | exp.Escape | exp.RegexpLike)


def pattern_of(node: exp.Expr, now: Clock | None) -> tuple[exp.Expr, str, str, bool]:
    """Subject, regular expression, its options, and whether it is NOT LIKE. LIKE minds the case, ILIKE does not."""
    escape = "\\"
    if isinstance(node, exp.Escape):
        escape = text_value(node.expression, now, "ESCAPE")
        node = node.this
        if len(escape) > 1 or not is_like(node):
            raise SqlSyntaxError("ESCAPE takes one character and stands after LIKE.")
    text = text_value(node.expression, now, "LIKE or REGEXP")
    is_negated = bool(node.args.get("negate"))
    if isinstance(node, exp.RegexpLike):
        return node.this, text, "", is_negated
    options = DOT_MATCHES_ALL + ("i" if isinstance(node, exp.ILike) else "")
    return node.this, like_to_regex(text, escape), options, is_negated


def like_to_regex(pattern: str, escape: str = "\\") -> str:
    """The anchored regular expression of a LIKE pattern; ``%`` at an end leaves that end open."""
    pieces: list[str] = []
    characters = iter(pattern)
    for character in characters:
        if escape and character == escape:
            pieces.append(re.escape(next(characters, escape)))
        elif character == "%":
            if pieces[-1:] != [".*"]:
                pieces.append(".*")
        else:
            pieces.append("." if character == "_" else re.escape(character))
    starts_open, ends_open = pieces[:1] == [".*"], pieces[-1:] == [".*"]
    inner = pieces[1 if starts_open else 0 : -1 if ends_open else len(pieces)]
    return ("" if starts_open else "^") + "".join(inner) + ("" if ends_open else "$")
