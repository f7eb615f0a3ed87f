"""Checks of expressions: functions, aggregates, names and, where they are declared, types."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from sib.cep.language import ast
from sib.cep.language.functions import AGGREGATES, BOOL, FUNCTIONS, NUMBER, READABLE_NAMES, STRING, Signature
from sib.cep.streams import Declaration

Report = Callable[[ast.Position, str], None]

_ARITHMETIC = frozenset("+-*/%")


@dataclass(frozen=True)
class Names:
    """The names that a clause may use: sources with aliases, keys and columns; ``current`` is what a filter stands in."""

    sources: list[tuple[ast.Source, str | None]]
    declared: Mapping[str, Declaration | None] | None
    tables: set[str] | None
    keys: frozenset[str] = field(default=frozenset())
    current: ast.Source | None = None

    def inside(self, source: ast.Source, alias: str | None) -> Names:
        """The names in the filter of a source."""
        return replace(self, current=source)

    def with_keys(self, names: Iterable[str]) -> Names:
        """With further plain names."""
        return replace(self, keys=self.keys | {name.casefold() for name in names})

    def stream_of(self, name: str) -> str | None:
        """The stream that an alias or a stream's own name stands for."""
        folded = name.casefold()
        for source, alias in self.sources:
            if folded in (alias.casefold() if alias else None, source.name.casefold()):
                return source.name.casefold()
        return None

    def find(self, path: ast.Path) -> tuple[bool, str | None]:
        """Whether the path is known (or nothing is declared), and its declared type."""
        first = path.parts[0][0]
        stream = self.stream_of(first) if len(path.parts) > 1 else None
        if stream is None and len(path.parts) == 1 and first.casefold() in self.keys | {"ts"}:
            return True, NUMBER if first.casefold() == "ts" else None
        parts = path.parts[1:] if stream is not None else path.parts
        if stream is None:
            stream = (self.current or self.sources[0][0]).name.casefold()
        return self._attribute(stream, tuple(name for name, _ in parts))

    def _attribute(self, stream: str, parts: tuple[str, ...]) -> tuple[bool, str | None]:
        if self.declared is None:
            return True, None
        declaration = self.declared.get(stream)
        if declaration is None:
            return True, None
        found = declaration.find(parts)
        return found is not None, found[1] if found else None

    def check_everywhere(self, path: ast.Path, report: Report) -> None:
        """Report a partition key that one of the streams does not have."""
        is_qualified = len(path.parts) > 1 and self.stream_of(path.parts[0][0]) is not None
        parts = tuple(name for name, _ in (path.parts[1:] if is_qualified else path.parts))
        for source, _ in self.sources:
            if (
                source.name.casefold() not in (self.tables or ())
                and not self._attribute(source.name.casefold(), parts)[0]
            ):
                report(path.position, f"{source.name} has no attribute {'.'.join(parts)}")
                return


class ExpressionChecker:
    """Reports the problems of the expressions of one clause."""

    def __init__(self, names: Names, report: Report, *, aggregates_allowed: bool) -> None:
        self._names, self._report, self._aggregates = names, report, aggregates_allowed

    def condition(self, expression: ast.Expression) -> None:
        """Check something that must be true or false."""
        kind = self.value(expression)
        if kind not in (BOOL, None):
            self._report(expression.position, f"a condition is expected here, and this is a {kind}")

    def value(self, expression: ast.Expression) -> str | None:
        """Check anything; its type where that is certain."""
        match expression:
            case ast.Const(value):
                return BOOL if isinstance(value, bool) else _type_name(value)
            case ast.Path():
                return self._path(expression)
            case ast.Unary("not", operand):
                self.condition(operand)
            case ast.Unary(_, operand):
                self._wants(operand, NUMBER, "'-'")
                return NUMBER
            case ast.Binary("and" | "or", left, right):
                self.condition(left)
                self.condition(right)
            case ast.Binary(operator, left, right) if operator in _ARITHMETIC:
                self._wants(left, NUMBER, f"'{operator}'")
                self._wants(right, NUMBER, f"'{operator}'")
                return NUMBER
            case ast.Binary(_, left, right):
                self._comparable(expression, left, right)
            case ast.Between(operand, low, high):
                self._comparable(expression, operand, low)
                self._comparable(expression, operand, high)
            case ast.InTable(operand, table):
                self.value(operand)
                if self._names.tables is not None and table.casefold() not in self._names.tables:
                    self._report(expression.position, f"no table is called {table}")
            case ast.Like(operand):
                self._wants(operand, STRING, "like")
            case ast.IsNull(operand) | ast.InList(operand):
                self.value(operand)
            case ast.Call():
                return self._call(expression)
        return BOOL

    def _path(self, path: ast.Path) -> str | None:
        is_known, kind = self._names.find(path)
        if not is_known:
            self._report(path.position, f"no attribute is called {path}")
        return kind

    def _wants(self, operand: ast.Expression, wanted: str, operator: str) -> None:
        kind = self.value(operand)
        if kind not in (wanted, None):
            self._report(operand.position, f"{operator} works on a {wanted}, and this is a {kind}")

    def _comparable(self, whole: ast.Expression, left: ast.Expression, right: ast.Expression) -> None:
        first, second = self.value(left), self.value(right)
        if first is not None and second is not None and first != second:
            self._report(whole.position, f"a {first} and a {second} are never equal, greater or less")

    def _call(self, call: ast.Call) -> str | None:
        signature = AGGREGATES.get(call.name) or FUNCTIONS.get(call.name)
        name = READABLE_NAMES.get(call.name, call.name)
        if signature is None:
            self._report(call.position, f"there is no function {call.name}")
            return None
        if call.name in AGGREGATES and not self._aggregates:
            self._report(call.position, f"{name} is an aggregate and cannot stand here")
        kinds = self._arguments(call, signature, name)
        if call.name in AGGREGATES:
            self._aggregate(call, name)
        if signature.result is None and kinds:
            return (
                kinds[-1]
                if call.name in ("ifthenelse", "coalesce") and len(set(kinds[-2:])) == 1
                else (kinds[0] if call.name in AGGREGATES else None)
            )
        return signature.result

    def _arguments(self, call: ast.Call, signature: Signature, name: str) -> list[str | None]:
        count, most = len(call.arguments), signature.arguments_max
        if count < signature.arguments_min or (most is not None and count > most):
            least = signature.arguments_min
            takes = f"{least}" if least == most else f"{least} or more" if most is None else f"{least} to {most}"
            self._report(call.position, f"{name} takes {takes} arguments, not {count}")
        kinds = []
        for argument in call.arguments:
            kind = self.value(argument)
            kinds.append(kind)
            if signature.argument is not None and kind not in (signature.argument, None):
                self._report(argument.position, f"{name} works on a {signature.argument}, and this is a {kind}")
        return kinds

    def _aggregate(self, call: ast.Call, name: str) -> None:
        for argument in call.arguments:
            inner = [p for p in ast.walk(argument) if isinstance(p, ast.Call) and p.name in AGGREGATES]
            if inner:
                self._report(inner[0].position, f"an aggregate inside {name}")
        if call.name == "percentile" and len(call.arguments) == 2:
            percent = call.arguments[1]
            value = percent.value if isinstance(percent, ast.Const) else None
            if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value <= 100:
                self._report(percent.position, "the second argument of percentile is a number from 0 to 100")


def _type_name(value: object) -> str | None:
    if isinstance(value, (int, float)):
        return NUMBER
    return STRING if isinstance(value, str) else None
