"""The parse tree of lark to the frozen data of :mod:`sib.cep.language.ast`."""

from __future__ import annotations

import ast as python_ast
from typing import Any

import lark

from sib.cep.errors import CepSyntaxError
from sib.cep.language import ast
from sib.cep.language.durations import parse_duration_ms

TERMS_MAX = 20
"""Terms in one row of ``+ -`` or ``* / %``."""

_COMPARISONS = {"=": "==", "<>": "!="}

Children = list[Any]


def _tokens(children: Children, *types: str) -> list[str]:
    return [str(child) for child in children if isinstance(child, lark.Token) and child.type in types]


def _nodes(children: Children, kind: Any) -> list[Any]:
    return [child for child in children if isinstance(child, kind)]


def _node(children: Children, kind: Any) -> Any:
    return next((child for child in children if isinstance(child, kind)), None)


class _Tagged(tuple[Any, ...]):
    """A value that is no node of its own, with a tag in front."""

    __slots__ = ()


def _tagged(children: Children, tag: str) -> Any:
    return next((child[1] for child in children if isinstance(child, _Tagged) and child[0] == tag), None)


@lark.v_args(meta=True)
class TreeReader(lark.Transformer[lark.Token, Any]):
    """Reads the tree of one rule, or of one expression. ``origin`` is where its text begins in the whole."""

    def __init__(self, origin: ast.Position, number: int = 1, text: str = "") -> None:
        super().__init__()
        self._origin = origin
        self._number = number
        self._text = text

    def _at(self, meta: Any) -> ast.Position:
        if getattr(meta, "empty", False):
            return self._origin
        if meta.line > 1:
            return ast.Position(self._origin.line + meta.line - 1, meta.column)
        return ast.Position(self._origin.line, self._origin.column + meta.column - 1)

    # Expressions

    def number(self, meta: Any, children: Children) -> ast.Const:
        text = str(children[0]).rstrip("fFlLdD")
        return ast.Const(int(text) if text.isdigit() else float(text), self._at(meta))

    def negative_number(self, meta: Any, children: Children) -> ast.Const:
        return ast.Const(-self.number(meta, children[1:]).value, self._at(meta))

    def string(self, meta: Any, children: Children) -> ast.Const:
        return ast.Const(_unquote(str(children[0])), self._at(meta))

    def true(self, meta: Any, children: Children) -> ast.Const:
        return ast.Const(True, self._at(meta))

    def false(self, meta: Any, children: Children) -> ast.Const:
        return ast.Const(False, self._at(meta))

    def null(self, meta: Any, children: Children) -> ast.Const:
        return ast.Const(None, self._at(meta))

    def duration(self, meta: Any, children: Children) -> ast.Const:
        return ast.Const(parse_duration_ms(str(children[0])), self._at(meta))

    def path(self, meta: Any, children: Children) -> ast.Path:
        parts: list[tuple[str, int | None]] = []
        for child in children:
            if isinstance(child, _Tagged):
                parts[-1] = (parts[-1][0], child[1])
            else:
                parts.append((str(child), None))
        return ast.Path(tuple(parts), self._at(meta))

    def index_number(self, meta: Any, children: Children) -> _Tagged:
        return _Tagged(("index", int(children[0])))

    def index_last(self, meta: Any, children: Children) -> _Tagged:
        back = _tokens(children, "INT")
        return _Tagged(("index", -1 - int(back[0]) if back else -1))

    def call(self, meta: Any, children: Children) -> ast.Call:
        name = ":".join(_tokens(children, "NAME"))
        arguments = tuple(child for child in children if not isinstance(child, lark.Token))
        return ast.Call(name.lower(), arguments, self._at(meta))

    def arithmetic(self, meta: Any, children: Children) -> ast.Expression:
        if len(children) > 2 * TERMS_MAX:
            raise self._error(self._at(meta), f"more than {TERMS_MAX} terms in a row: put some into brackets")
        result: ast.Expression = children[0]
        for index in range(1, len(children), 2):
            result = ast.Binary(str(children[index]), result, children[index + 1], self._at(meta))
        return result

    def or_(self, meta: Any, children: Children) -> ast.Expression:
        return self._balanced("or", children[::2], self._at(meta))

    def and_(self, meta: Any, children: Children) -> ast.Expression:
        return self._balanced("and", children[::2], self._at(meta))

    def _balanced(self, operator: str, parts: list[ast.Expression], position: ast.Position) -> ast.Expression:
        """A long row of conditions as a tree that is not deep."""
        if len(parts) == 1:
            return parts[0]
        middle = (len(parts) + 1) // 2
        left, right = (self._balanced(operator, half, position) for half in (parts[:middle], parts[middle:]))
        return ast.Binary(operator, left, right, position)

    def not_(self, meta: Any, children: Children) -> ast.Unary:
        return ast.Unary("not", children[-1], self._at(meta))

    def negative(self, meta: Any, children: Children) -> ast.Expression:
        operand = children[-1]
        if isinstance(operand, ast.Const) and isinstance(operand.value, (int, float)):
            return ast.Const(-operand.value, self._at(meta))
        return ast.Unary("-", operand, self._at(meta))

    def compare(self, meta: Any, children: Children) -> ast.Binary:
        operator = _COMPARISONS.get(str(children[1]), str(children[1]))
        return ast.Binary(operator, children[0], children[2], self._at(meta))

    def _negatable(self, meta: Any, children: Children, expression: ast.Expression) -> ast.Expression:
        return ast.Unary("not", expression, self._at(meta)) if _tokens(children, "NOT") else expression

    def is_null(self, meta: Any, children: Children) -> ast.Expression:
        return self._negatable(meta, children, ast.IsNull(children[0], self._at(meta)))

    def in_list(self, meta: Any, children: Children) -> ast.Expression:
        values = tuple(child.value for child in children[1:] if isinstance(child, ast.Const))
        return self._negatable(meta, children, ast.InList(children[0], values, self._at(meta)))

    def in_name(self, meta: Any, children: Children) -> ast.Expression:
        path = children[-1]
        attribute = ".".join(name for name, _ in path.parts[1:]) or None
        return self._negatable(meta, children, ast.InTable(children[0], path.parts[0][0], attribute, self._at(meta)))

    def between(self, meta: Any, children: Children) -> ast.Expression:
        operand, low, high = (child for child in children if not isinstance(child, lark.Token))
        return self._negatable(meta, children, ast.Between(operand, low, high, self._at(meta)))

    def like(self, meta: Any, children: Children) -> ast.Expression:
        return self._negatable(meta, children, ast.Like(children[0], _unquote(str(children[-1])), self._at(meta)))

    # Input

    def filter(self, meta: Any, children: Children) -> _Tagged:
        return _Tagged(("filter", children[0]))

    def window(self, meta: Any, children: Children) -> ast.Window:
        name = _tokens(children, "NAME")[0].lower()
        return ast.Window(name, tuple(c for c in children if not isinstance(c, lark.Token)), self._at(meta))

    def alias(self, meta: Any, children: Children) -> _Tagged:
        return _Tagged(("alias", str(children[-1])))

    def source(self, meta: Any, children: Children) -> ast.Source:
        windows = _nodes(children, ast.Window)
        if len(windows) > 1:
            raise self._error(windows[1].position, "a stream has at most one window")
        split = children.index(windows[0]) if windows else len(children)
        early, late = (
            tuple(child[1] for child in part if isinstance(child, _Tagged) and child[0] == "filter")
            for part in (children[:split], children[split:])
        )
        return ast.Source(
            str(children[0]), early, windows[0] if windows else None, _tagged(children, "alias"), late, self._at(meta)
        )

    def _error(self, position: ast.Position, message: str) -> CepSyntaxError:
        return CepSyntaxError([ast.Problem(position, message)])

    def exactly(self, meta: Any, children: Children) -> _Tagged:
        return _Tagged(("count", (int(children[0]), int(children[0]))))

    def between_counts(self, meta: Any, children: Children) -> _Tagged:
        return _Tagged(("count", (int(children[0]), int(children[1]))))

    def at_least(self, meta: Any, children: Children) -> _Tagged:
        return _Tagged(("count", (int(children[0]), None)))

    def at_most(self, meta: Any, children: Children) -> _Tagged:
        return _Tagged(("count", (0, int(children[0]))))

    def plus(self, meta: Any, children: Children) -> _Tagged:
        return _Tagged(("count", (1, None)))

    def star(self, meta: Any, children: Children) -> _Tagged:
        return _Tagged(("count", (0, None)))

    def question(self, meta: Any, children: Children) -> _Tagged:
        return _Tagged(("count", (0, 1)))

    def event(self, meta: Any, children: Children) -> ast.EventAtom:
        source = _node(children, ast.Source)
        count_min, count_max = _tagged(children, "count") or (1, 1)
        return ast.EventAtom(source.alias, source, count_min, count_max, self._at(meta))

    def named_event(self, meta: Any, children: Children) -> ast.EventAtom:
        source = _node(children, ast.Source)
        count_min, count_max = _tagged(children, "count") or (1, 1)
        return ast.EventAtom(str(children[0]), source, count_min, count_max, self._at(meta))

    def for_(self, meta: Any, children: Children) -> _Tagged:
        return _Tagged(("for", children[-1].value))

    def within(self, meta: Any, children: Children) -> _Tagged:
        return _Tagged(("within", children[-1].value))

    def absent(self, meta: Any, children: Children) -> ast.AbsentAtom:
        return ast.AbsentAtom(_node(children, ast.Source), _tagged(children, "for"), self._at(meta))

    def group(self, meta: Any, children: Children) -> ast.GroupAtom:
        return ast.GroupAtom(_node(children, ast.Chain), _tagged(children, "within"), self._at(meta))

    def logic(self, meta: Any, children: Children) -> _Tagged:
        return _Tagged(("logic", children[0].type.lower()))

    def arrow(self, meta: Any, children: Children) -> _Tagged:
        return _Tagged(("arrow", "->" if children else ","))

    def step(self, meta: Any, children: Children) -> ast.Step:
        atoms = tuple(_nodes(children, (ast.EventAtom, ast.AbsentAtom, ast.GroupAtom)))
        operators = tuple(child[1] for child in children if isinstance(child, _Tagged) and child[0] == "logic")
        return ast.Step(bool(_tokens(children, "EVERY")), atoms, operators, self._at(meta))

    def chain(self, meta: Any, children: Children) -> ast.Chain:
        arrows = tuple(child[1] for child in children if isinstance(child, _Tagged) and child[0] == "arrow")
        return ast.Chain(tuple(_nodes(children, ast.Step)), arrows)

    def pattern(self, meta: Any, children: Children) -> ast.PatternInput:
        return ast.PatternInput(children[0], _tagged(children, "within"))

    def join(self, meta: Any, children: Children) -> _Tagged:
        kinds = _tokens(children, "LEFT", "FULL")
        return _Tagged(("join", kinds[0].lower() if kinds else "inner"))

    def unidirectional(self, meta: Any, children: Children) -> _Tagged:
        return _Tagged(("unidirectional", True))

    def on(self, meta: Any, children: Children) -> _Tagged:
        return _Tagged(("on", children[-1]))

    def join_input(self, meta: Any, children: Children) -> ast.JoinInput:
        left, right = _nodes(children, ast.Source)
        one_way = bool(_tagged(children, "unidirectional"))
        kind, condition, within_ms = (_tagged(children, tag) for tag in ("join", "on", "within"))
        return ast.JoinInput(left, right, kind, one_way, condition, within_ms)

    # The other clauses

    def partition(self, meta: Any, children: Children) -> ast.Partition:
        return ast.Partition(tuple(_nodes(children, ast.Path)), _tagged(children, "in"))

    def in_table(self, meta: Any, children: Children) -> _Tagged:
        return _Tagged(("in", children[-1]))

    def column(self, meta: Any, children: Children) -> ast.Column:
        expression, names = children[0], _tokens(children[1:], "NAME")
        return ast.Column(expression, names[0] if names else _own_name(expression), bool(names), self._at(meta))

    def group_by(self, meta: Any, children: Children) -> _Tagged:
        return _Tagged(("group", tuple(_nodes(children, ast.Path))))

    def having(self, meta: Any, children: Children) -> _Tagged:
        return _Tagged(("having", children[-1]))

    def order_key(self, meta: Any, children: Children) -> _Tagged:
        return _Tagged(("key", (children[0], bool(_tokens(children, "DESC")))))

    def order_by(self, meta: Any, children: Children) -> _Tagged:
        return _Tagged(("order", tuple(child[1] for child in children if isinstance(child, _Tagged))))

    def limit(self, meta: Any, children: Children) -> _Tagged:
        return _Tagged(("limit", int(children[-1])))

    def select(self, meta: Any, children: Children) -> ast.Select:
        group, having, order, limit = (_tagged(children, tag) for tag in ("group", "having", "order", "limit"))
        return ast.Select(tuple(_nodes(children, ast.Column)), group or (), having, order or (), limit)

    def rate_kind(self, meta: Any, children: Children) -> _Tagged:
        return _Tagged(("rate", children[0].type.lower()))

    def rate_every(self, meta: Any, children: Children) -> ast.Rate:
        duration, counts = _node(children, ast.Const), _tokens(children, "INT")
        kind = _tagged(children, "rate") or "all"
        count = int(counts[0]) if counts else None
        return ast.Rate(kind, duration.value if duration else None, count, self._at(meta))

    def rate_snapshot(self, meta: Any, children: Children) -> ast.Rate:
        return ast.Rate("snapshot", children[-1].value, None, self._at(meta))

    def rate_on_change(self, meta: Any, children: Children) -> ast.Rate:
        return ast.Rate("change", position=self._at(meta))

    def out_kind(self, meta: Any, children: Children) -> _Tagged:
        return _Tagged(("out", children[0].type.lower()))

    def update(self, meta: Any, children: Children) -> _Tagged:
        return _Tagged(("update", children[-1]))

    def plain_argument(self, meta: Any, children: Children) -> _Tagged:
        return _Tagged(("plain", children[0].value))

    def path_argument(self, meta: Any, children: Children) -> _Tagged:
        return _Tagged(("plain", children[0]))

    def named_argument(self, meta: Any, children: Children) -> _Tagged:
        return _Tagged(("named", (str(children[0]).lower(), children[-1].value)))

    def annotation(self, meta: Any, children: Children) -> ast.Annotation:
        plain = tuple(child[1] for child in children if isinstance(child, _Tagged) and child[0] == "plain")
        named = tuple(child[1] for child in children if isinstance(child, _Tagged) and child[0] == "named")
        return ast.Annotation(":".join(_tokens(children, "NAME")).lower(), plain, named, self._at(meta))

    def rule(self, meta: Any, children: Children) -> ast.Rule:
        target = next(
            str(children[index + 1])
            for index, child in enumerate(children)
            if isinstance(child, lark.Token) and child.type == "INTO"
        )
        return ast.Rule(
            self._number,
            self._text,
            _node(children, (ast.PatternInput, ast.JoinInput)),
            _node(children, ast.Partition),
            _node(children, ast.Select) or ast.Select(),
            _node(children, ast.Rate),
            _tagged(children, "out") or "current",
            target,
            _tagged(children, "update"),
            tuple(_nodes(children, ast.Annotation)),
            self._at(meta),
        )


setattr(TreeReader, "for", TreeReader.for_)


def _own_name(expression: ast.Expression) -> str:
    """The name of a column without ``as``: the attribute's, or the function's; empty = it needs an ``as``."""
    if isinstance(expression, (ast.Path, ast.Call)):
        return expression.name
    return ""


def _unquote(text: str) -> str:
    body = text[1:-1]
    if "\\" not in body:
        return body
    try:
        return str(python_ast.literal_eval(text))
    except (ValueError, SyntaxError):
        return body
