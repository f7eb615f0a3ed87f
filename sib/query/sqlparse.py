"""SQL-like text to a syntax tree: bounds, quotes as old clients and manuals write them, and one statement only.

sqlglot reads the text in its MySQL dialect; here stands what comes before (normalising) and after (refusals).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NoReturn

import sqlglot
from sqlglot import exp
from sqlglot.errors import ParseError, SqlglotError

from sib.errors import SqlSyntaxError
from sib.query.extended import print_date
from sib.query.parameters import Parameters, text_of

DIALECT = "mysql"
MAX_SQL_CHARS = 1_000_000  # all of it: a quoted value may be long
MAX_CODE_CHARS = 65_536  # what is left without the quoted values
MAX_NESTING = 32  # parentheses
MAX_TREE_DEPTH = 64

BOUND = "bound"  # key in a node's meta: the literal comes from a parameter and is never read as JSON

_PIECE = re.compile(
    r"""
      (?P<string>'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*")
    | (?P<name>`[^`]*`)
    | (?P<typographic>[‘’‚‛][^‘’‚‛']*[‘’‚‛']|[“”„‟][^“”„‟"]*[“”„‟"])
    | (?P<unclosed>['"`‘’‚‛“”„‟]|/\*(?!.*?\*/))
    | (?P<comment>--[^\n]*|\#[^\n]*|/\*.*?\*/)
    | (?P<parameter>\{\s*\$\w+\s*\})
    | (?P<code>[^'"`‘’‚‛“”„‟\-\#/{]+|.)
    """,
    re.DOTALL | re.VERBOSE,
)
_PARAMETER = re.compile(r"\{\s*\$(\w+)\s*\}")
_MARKED = re.compile("\ue000(\\w+)\ue001")
_STATEMENT = re.compile(r"\s*\(*\s*([A-Za-z]+)")
_INSERT_COLUMNS = re.compile(r"(\s*insert\s+into\s+[^\s(]+\s*\()([^()']*)(\)\s*values?\b)", re.IGNORECASE)
_BLANKS = "; \t\r\n"
_FIELD_NAMES = re.compile(r"(?<![\w.$@:])(?<!duplicate )(key|values(?=\s*[=<>!]))(?![\w$])", re.IGNORECASE)
_ACCEPTED = {"select": exp.Select, "insert": exp.Insert, "update": exp.Update, "delete": exp.Delete}
_REFUSED_NODES: tuple[tuple[type[exp.Expr], str], ...] = (
    (exp.Join, "Joins are not accepted: a statement reads one ontology"),
    (exp.Subquery, "Subqueries are not accepted"),
    (exp.Exists, "Subqueries are not accepted"),
    (exp.With, "WITH is not accepted"),
    (exp.Window, "Window functions (OVER) are not accepted"),
    (exp.Placeholder, "Placeholders (?, :name) are not accepted; a predefined query has {$name}"),
    (exp.Parameter, "Variables (@name) are not accepted"),
    (exp.SessionParameter, "Variables (@@name) are not accepted"),
    (exp.JSONExtract, "JSON functions are not accepted: write the path (a.b[0])"),
    (exp.Collate, "COLLATE is not accepted"),
)


def parse_sql(text: str, *, parameters: Parameters | None = None) -> exp.Expr:
    """The tree of the one SELECT, INSERT, UPDATE or DELETE in the text.

    Typographic quotes count as quotes, a trailing ``;`` and braces around the statement are tolerated.

    Args:
        text: the statement.
        parameters: typed values for ``{$name}``, put in as literals; without it such a text is refused.

    Raises:
        SqlSyntaxError: with the position and the reason.
    """
    if len(text) > MAX_SQL_CHARS:
        raise SqlSyntaxError(f"A statement longer than {MAX_SQL_CHARS} characters is refused.")
    normal = normalise(text, parameters)
    keyword = _STATEMENT.match(normal)
    kind = _ACCEPTED.get(keyword.group(1).lower()) if keyword else None
    if kind is None:
        found = f"'{keyword.group(1)[:40]}'" if keyword else "something else"
        raise SqlSyntaxError(f"A statement begins with select, insert, update or delete, not with {found}.")
    tree = _parse(normal)
    if isinstance(tree, exp.Union | exp.Intersect | exp.Except):
        raise SqlSyntaxError("UNION is not accepted: send two statements.")
    if not isinstance(tree, kind):
        raise SqlSyntaxError("The statement cannot be read as one select, insert, update or delete.")
    _check(tree)
    if parameters is not None:
        substitute(tree, parameters)
    return tree


def normalise(text: str, parameters: Parameters | None = None) -> str:
    """The text with plain quotes, without comments, braces around it and final ``;``, and with marked parameters."""
    pieces = list(_pieces(_without_braces(text), has_parameters=parameters is not None))
    normal = "".join(pieces).strip().rstrip(_BLANKS)
    return _INSERT_COLUMNS.sub(_quote_columns, normal, count=1)


def refuse_arguments(node: exp.Expr, accepted: frozenset[str], what: str) -> None:
    """Refuse a clause that the planner would otherwise leave out in silence."""
    for name, value in node.args.items():
        if value and name not in accepted:
            raise SqlSyntaxError(f"{name.strip('_').upper().replace('_', ' ')} is not accepted in {what}.")


def refuse(node: exp.Expr, reason: str) -> NoReturn:
    """Refuse a part of a statement, showing it."""
    shown = print_node(node)
    raise SqlSyntaxError(f"{reason}: {shown[:100] if shown.isprintable() else ascii(shown[:100])}")


def print_node(node: exp.Expr) -> str:
    """The node as SQL text, functions in lower case."""
    return node.sql(
        dialect=DIALECT, comments=False, normalize_functions="lower", unsupported_level=sqlglot.ErrorLevel.IGNORE
    )


def _without_braces(text: str) -> str:
    """Source: Sofia2 java-api and android-api, ssap/SSAPBodyMessage.java: ``{select ...}``."""
    stripped = text.strip()
    if stripped.startswith("{") and stripped.endswith("}") and not _PARAMETER.match(stripped):
        return stripped[1:-1]
    return text


def _pieces(text: str, *, has_parameters: bool) -> Iterator[str]:
    nesting = code_chars = 0
    has_ended = False
    for match in _PIECE.finditer(text):
        kind, piece = match.lastgroup, match.group()
        if kind == "unclosed":
            raise SqlSyntaxError(f"What begins with {piece} at character {match.start() + 1} is not closed.")
        if kind == "comment":
            yield " "
            continue
        _, semicolon, tail = (piece if kind == "code" else "").partition(";")
        if tail.strip(_BLANKS) or (has_ended and piece.strip(_BLANKS)):
            raise SqlSyntaxError("Exactly one statement at a time is accepted.")
        has_ended = has_ended or bool(semicolon)
        if kind == "code":
            code_chars += len(piece)
            nesting += piece.count("(") + piece.count("[") - piece.count(")") - piece.count("]")
            if nesting > MAX_NESTING or code_chars > MAX_CODE_CHARS:
                raise SqlSyntaxError(
                    f"A statement with more than {MAX_CODE_CHARS} characters outside of quotes, or parentheses nested "
                    f"deeper than {MAX_NESTING}, is refused."
                )
        yield _normal_piece(kind, piece, has_parameters)


def _normal_piece(kind: str | None, piece: str, has_parameters: bool) -> str:
    if kind == "string":
        return _marked(piece, has_parameters)
    if kind == "typographic":
        return _marked(_plain_quotes(piece), has_parameters)
    if kind == "parameter":
        if not has_parameters:
            raise SqlSyntaxError(f"Parameters ({piece}) are for predefined queries: write the value itself.")
        return f"'{_marked(piece, True)}'"
    return piece if kind == "name" else _FIELD_NAMES.sub(r"`\1`", piece)  # words of SQL that are fields here


def _plain_quotes(piece: str) -> str:
    return "'" + piece[1:-1].replace("'", "''") + "'"


def _marked(piece: str, has_parameters: bool) -> str:
    """The piece with its ``{$name}`` marked by characters that no text of a client has."""
    if not has_parameters:
        return piece
    return _PARAMETER.sub("\ue000\\1\ue001", piece.replace("\ue000", "").replace("\ue001", ""))


def _quote_columns(match: re.Match[str]) -> str:
    """Back quotes around the columns of an INSERT: they may be paths (``Sensor.measure``) or words of SQL (``key``)."""
    columns = [column.strip().strip('`"').replace("`", "") for column in match.group(2).split(",")]
    if not all(columns):
        raise SqlSyntaxError("An insert names its columns: insert into ONTOLOGY(a, b) values (1, 2).")
    return match.group(1) + ", ".join(f"`{column}`" for column in columns) + match.group(3)


def _parse(text: str) -> exp.Expr:
    try:
        trees = [tree for tree in sqlglot.parse(text, dialect=DIALECT) if tree is not None]
    except ParseError as error:
        raise SqlSyntaxError(_explain(error)) from None
    except RecursionError:
        raise SqlSyntaxError("The statement is nested too deeply.") from None
    except (SqlglotError, ValueError, TypeError, LookupError, AttributeError) as error:
        # Whatever the parser stumbles over, to the sender it is a text that cannot be read.
        raise SqlSyntaxError(f"The statement cannot be read: {str(error)[:200]}") from None
    if len(trees) != 1:
        raise SqlSyntaxError("Exactly one statement at a time is accepted.")
    tree = trees[0]
    assert isinstance(tree, exp.Expr)
    return tree


def _explain(error: ParseError) -> str:
    first: dict[str, Any] = error.errors[0] if error.errors else {}
    near = str(first.get("highlight") or first.get("start_context") or "")[-40:]
    place = f" at line {first.get('line')}, column {first.get('col')}, near '{near}'" if first else ""
    reason = str(first.get("description") or error).split(" for <class")[0].split(" but got <Token")[0][:200]
    return f"The statement cannot be read{place}: {reason}. A name that is a word of SQL goes in back quotes."


def _check(tree: exp.Expr) -> None:
    """Refuse what is not translated, and trees too deep to be walked through by recursion."""
    pending: list[tuple[exp.Expr, int]] = [(tree, 0)]
    while pending:
        node, depth = pending.pop()
        if depth > MAX_TREE_DEPTH:
            raise SqlSyntaxError(f"A statement nested deeper than {MAX_TREE_DEPTH} is refused.")
        for kind, reason in _REFUSED_NODES:
            if isinstance(node, kind):
                raise SqlSyntaxError(reason + ".")
        if isinstance(node, exp.Select) and node is not tree:
            raise SqlSyntaxError("Subqueries are not accepted.")
        for child in node.iter_expressions():
            is_chain = isinstance(node, exp.And | exp.Or) and type(child) is type(node)
            pending.append((child, depth if is_chain else depth + 1))


def chain(node: exp.Expr, kind: type[exp.Binary]) -> Sequence[exp.Expr]:
    """The terms of ``a AND b AND c`` (or OR) in order; a long chain is a deep tree, so without recursion."""
    terms: list[exp.Expr] = []
    pending = [node]
    while pending:
        each = pending.pop()
        inner = each.unnest() if isinstance(each, exp.Paren) else each
        if isinstance(inner, kind):
            pending += [inner.expression, inner.this]
        else:
            terms.append(inner)
    return terms


def substitute(tree: exp.Expr, parameters: Parameters) -> None:
    """Put values in where ``normalise`` has marked ``{$name}``, as literals of the tree.

    Raises:
        SqlSyntaxError: a value is missing, or a name stands where a value is meant.
    """
    for literal in list(tree.find_all(exp.Literal, exp.Identifier)):
        text = literal.this
        if not isinstance(text, str) or "\ue000" not in text:
            continue
        if isinstance(literal, exp.Identifier) or isinstance(literal.parent, exp.Column | exp.Dot | exp.Bracket):
            raise SqlSyntaxError("A parameter stands for a value, not for a name.")
        whole = _MARKED.fullmatch(text)
        if whole is not None:
            literal.replace(_bound_node(_parameter(whole.group(1), parameters)))
        else:
            filled = _MARKED.sub(lambda match: text_of(_parameter(match.group(1), parameters)), text)
            literal.replace(_bound_node(filled))


def _parameter(name: str, parameters: Parameters) -> Any:
    if name not in parameters:
        raise SqlSyntaxError(f"The parameter {name} of this query is missing: send it in queryParams.")
    return parameters[name]


def _bound_node(value: Any) -> exp.Expr:
    node: exp.Expr
    if value is None:
        node = exp.Null()
    elif isinstance(value, bool):
        node = exp.Boolean(this=value)
    elif isinstance(value, int | float):
        node = exp.Literal(this=repr(abs(value)), is_string=False)
        node = exp.Neg(this=node) if value < 0 else node
    elif isinstance(value, datetime):
        node = exp.Anonymous(this="ISODate", expressions=[exp.Literal.string(print_date(value))])
    else:
        node = exp.Literal.string(str(value))
    node.meta[BOUND] = True
    return node
