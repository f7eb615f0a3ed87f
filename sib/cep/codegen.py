"""Expressions to Python source, twice: fast, and safe.

The *fast* form uses Python's operators on tuples. Its promise: it gives what the language means, or it raises one of
:data:`sib.cep.nulls.FAILURES`. The *safe* form is three-valued logic through :mod:`sib.cep.nulls` and never raises. A
caller runs the fast form and, when that raises, the safe one, so odd data cost time, not correctness. Only names that
this module makes reach the source: attributes are indexes, constants are ``repr`` of checked types.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sib.cep import nulls
from sib.cep.language import ast
from sib.cep.language.functions import AGGREGATES, BOOL, FUNCTIONS, NUMBER, STRING

_ARITHMETIC = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide", "%": "modulo"}
_ORDER = {
    "==": "equal",
    "!=": "unequal",
    "<": "less",
    "<=": "less_equal",
    ">": "greater",
    ">=": "greater_equal",
}
_OPPOSITE = {"==": "!=", "!=": "==", "<": ">=", "<=": ">", ">": "<=", ">=": "<"}


@dataclass(frozen=True, slots=True)
class Ref:
    """Where generated code finds a value: fast source, safe source, and the declared type if there is one."""

    fast: str
    safe: str
    type: str | None = None


Resolve = Callable[[ast.Path], Ref]


class Namespace(dict[str, Any]):
    """The globals of generated code: helpers, and constants added by :meth:`constant`."""

    def __init__(self) -> None:
        super().__init__({name: getattr(nulls, name) for name in (*_ARITHMETIC.values(), *_ORDER.values())})
        self.update({f"f_{name}": function for name, function in nulls.FUNCTIONS.items()})
        for name in (
            "negate",
            "both",
            "either",
            "negation",
            "contains",
            "nth",
            "slot_of",
            "times",
            "truth",
            "numeric",
            "FAILURES",
        ):
            self[name] = getattr(nulls, name)

    def constant(self, value: Any) -> str:
        """A name for a value."""
        name = f"c{len(self)}"
        self[name] = value
        return name

    def function(self, source: str, name: str) -> Any:
        """Compile a function definition and give the function."""
        exec(compile(source, f"<cep {name}>", "exec"), self)  # noqa: S102 - our own source, see the module's docstring
        return self[name]


class Generator:
    """Generates source for expressions whose paths ``resolve`` knows.

    ``aggregate`` gives the Python name of an aggregate call's value; ``times`` the source of ``eventTime()`` and
    ``lastEventTime()``; ``table`` the object behind a table's name, for ``in TABLE``.
    """

    def __init__(
        self,
        namespace: Namespace,
        resolve: Resolve,
        *,
        aggregate: Callable[[ast.Call], str] | None = None,
        times: dict[str, str] | None = None,
        table: Callable[[str], Any] | None = None,
    ) -> None:
        self._namespace = namespace
        self._resolve = resolve
        self._aggregate = aggregate
        self._times = times or {}
        self._table = table

    # Types

    def type_of(self, expression: ast.Expression) -> str | None:
        """The type of a value if it is certain."""
        match expression:
            case ast.Const(value):
                return type_of_constant(value)
            case ast.Path():
                return self._resolve(expression).type
            case ast.Unary(operator):
                return BOOL if operator == "not" else NUMBER
            case ast.Binary(operator):
                return NUMBER if operator in _ARITHMETIC else BOOL
            case ast.Call(name):
                return (AGGREGATES.get(name) or FUNCTIONS[name]).result
        return BOOL

    # Fast

    def value(self, expression: ast.Expression) -> str:
        """Source of the value: right, or raising."""
        match expression:
            case ast.Const(value):
                return repr(value)
            case ast.Path():
                return self._resolve(expression).fast
            case ast.Unary("-", operand):
                return f"(-{self._number(operand)})"
            case ast.Binary(operator, left, right) if operator in _ARITHMETIC:
                if operator == "*":
                    return f"times({self._number(left)}, {self._number(right)})"
                return f"({self._number(left)} {operator} {self._number(right)})"
            case ast.IsNull(operand):
                return self._is_null(self.value(operand), operand)
            case ast.Call():
                return self._call(expression, self.value)
        return self.safe(expression)

    def _number(self, expression: ast.Expression) -> str:
        source = self.value(expression)
        return source if self.type_of(expression) == NUMBER else f"(+{source})"

    def truth(self, expression: ast.Expression) -> str:
        """Source that is true exactly where the condition is true (not false, not null)."""
        match expression:
            case ast.Const(value):
                return repr(value is True)
            case ast.Unary("not", operand):
                return self.falsity(operand)
            case ast.Binary("and" | "or" as operator, left, right):
                return f"({self.truth(left)} {operator} {self.truth(right)})"
            case ast.Binary(operator, left, right) if operator in _ORDER:
                return self._comparison(operator, left, right)
            case ast.IsNull(operand):
                return self._is_null(self.value(operand), operand)
            case ast.InList(operand, values):
                name = self._namespace.constant(frozenset(value for value in values if value is not None))
                return f"({self.value(operand)} in {name})"
            case ast.Between(operand, low, high):
                source = f"{self.value(low)} <= {self.value(operand)} <= {self.value(high)}"
                return self._unless_null(source, operand, low, high)
            case ast.Like():
                return f"({self.safe(expression)} is True)"
        if self.type_of(expression) in (NUMBER, STRING):
            return "False"
        return f"({self.value(expression)} is True)"

    def falsity(self, expression: ast.Expression) -> str:
        """Source that is true exactly where the condition is false (not true, not null)."""
        match expression:
            case ast.Const(value):
                return repr(value is False)
            case ast.Unary("not", operand):
                return self.truth(operand)
            case ast.Binary("and" | "or" as operator, left, right):
                opposite = "or" if operator == "and" else "and"
                return f"({self.falsity(left)} {opposite} {self.falsity(right)})"
            case ast.Binary(operator, left, right) if operator in _ORDER:
                return self._comparison(_OPPOSITE[operator], left, right)
            case ast.IsNull(operand):
                return f"(not {self._is_null(self.value(operand), operand)})"
        return f"({self.safe(expression)} is False)"

    def _is_null(self, source: str, operand: ast.Expression) -> str:
        if not any(isinstance(part, (ast.Path, ast.Call, ast.InTable)) for part in ast.walk(operand)):
            return repr(eval(self.safe(operand), self._namespace) is None)  # noqa: S307 - our own source, and constant
        return f"({source} is None)"

    def _comparison(self, operator: str, left: ast.Expression, right: ast.Expression) -> str:
        if any(isinstance(side, ast.Const) and side.value is None for side in (left, right)):
            return "False"
        source = f"{self.value(left)} {operator} {self.value(right)}"
        if operator != "==":
            return self._unless_null(source, left, right)
        if isinstance(left, ast.Const) or isinstance(right, ast.Const):
            return f"({source})"
        return f"({source} is not None)"  # a chain: equal, and the right one is not null

    def _unless_null(self, source: str, *operands: ast.Expression) -> str:
        """The source behind checks of the operands that may be null, so that nulls do not cost an exception."""
        checks = dict.fromkeys(
            f"{self.value(item)} is not None" for operand in operands for item in self._nullables(operand)
        )
        return f"({' and '.join([*checks, source])})"

    def _nullables(self, expression: ast.Expression) -> list[ast.Expression]:
        match expression:
            case ast.Const() | ast.IsNull():
                return []
            case ast.Unary("-", operand):
                return self._nullables(operand)
            case ast.Binary(operator, left, right) if operator in _ARITHMETIC:
                return self._nullables(left) + self._nullables(right)
        return [expression]

    # Safe

    def safe(self, expression: ast.Expression) -> str:
        """Source of the value in three-valued logic; never raises."""
        match expression:
            case ast.Const(value):
                return repr(value)
            case ast.Path():
                return self._resolve(expression).safe
            case ast.Unary(operator, operand):
                return f"{'negation' if operator == 'not' else 'negate'}({self.safe(operand)})"
            case ast.Binary(operator, left, right):
                name = _ARITHMETIC.get(operator) or _ORDER.get(operator) or ("both" if operator == "and" else "either")
                return f"{name}({self.safe(left)}, {self.safe(right)})"
            case ast.IsNull(operand):
                return self._is_null(self.safe(operand), operand)
            case ast.InList(operand, values):
                name = self._namespace.constant(frozenset(value for value in values if value is not None))
                return f"contains({self.safe(operand)}, {name})"
            case ast.InTable(operand, table, attribute):
                if attribute is None and isinstance(operand, ast.Path):
                    attribute = operand.name
                rows = self._table(table) if self._table is not None else None
                finder = self._namespace.constant(rows.finder(attribute) if rows is not None else lambda value: None)
                return f"{finder}({self.safe(operand)})"
            case ast.Between(operand, low, high):
                source = self.safe(operand)
                return f"both(less_equal({self.safe(low)}, {source}), less_equal({source}, {self.safe(high)}))"
            case ast.Like(operand, pattern):
                return f"{self._namespace.constant(nulls.like_matcher(pattern))}({self.safe(operand)})"
            case ast.Call():
                return self._call(expression, self.safe)

    def _call(self, call: ast.Call, argument: Callable[[ast.Expression], str]) -> str:
        if call.name in AGGREGATES:
            if self._aggregate is None:
                raise AssertionError("the checker lets no aggregate come here")
            return self._aggregate(call)
        if call.name in self._times:
            return self._times[call.name]
        return f"f_{call.name}({', '.join(map(argument, call.arguments))})"


def type_of_constant(value: Any) -> str | None:
    """The type of a literal; None for null."""
    if isinstance(value, bool):
        return BOOL
    if isinstance(value, (int, float)):
        return NUMBER
    return STRING if isinstance(value, str) else None


def tuple_source(items: list[str]) -> str:
    """Source of a tuple of the items."""
    return "(" + "".join(f"{item}, " for item in items) + ")"
