"""What the names in a rule mean: sources by alias or stream name, output columns, partition keys; and the rule's code.

One :class:`Scope` per rule. It is the only place that turns a path into a place in generated code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from sib.cep.codegen import Generator, Namespace, Ref, tuple_source
from sib.cep.language import ast
from sib.cep.language.functions import AGGREGATES
from sib.cep.limits import Limits
from sib.cep.streams import EVERYTHING, AttributePath, Layout
from sib.cep.tables import Table


@dataclass(frozen=True, slots=True)
class Bound:
    """A source as code sees it: the variable that holds its event (or list of events, or nothing)."""

    variable: str
    layout: Layout
    is_list: bool = False
    is_optional: bool = False

    def ref(self, path: AttributePath, index: int | None) -> Ref:
        """The place of an attribute; without an index a list means its last event."""
        slot, kind = self.layout.slot(path)
        if self.is_list:
            place = -1 if index is None else index
            return Ref(f"{self.variable}[{place}][{slot}]", f"nth({self.variable}, {place}, {slot})", kind)
        if index not in (None, 0, -1):
            return Ref("None", "None", kind)
        safe = f"slot_of({self.variable}, {slot})" if self.is_optional else f"{self.variable}[{slot}]"
        return Ref(f"{self.variable}[{slot}]", safe, kind)


@dataclass
class AggregateCall:
    """One aggregate of a rule: its name, its argument, and the percent of a percentile."""

    name: str
    argument: ast.Expression | None
    percent: float | None = None


@dataclass
class Scope:
    """Names and generated code of one rule. ``current`` is the source that unqualified names mean first."""

    rule: ast.Rule
    limits: Limits
    tables: Callable[[str], Table | None]
    sources: dict[str, Bound] = field(default_factory=dict)
    current: Bound | None = None
    key_refs: dict[str, Ref] = field(default_factory=dict)
    times: dict[str, str] = field(default_factory=dict)
    namespace: Namespace = field(default_factory=Namespace)
    aggregates: list[AggregateCall] = field(default_factory=list)

    def add(self, alias: str | None, stream: str, bound: Bound) -> None:
        """Make a source known by its alias and, unless that name is taken, by its stream."""
        if alias:
            self.sources[alias.casefold()] = bound
        self.sources.setdefault(stream.casefold(), bound)

    def resolve(self, path: ast.Path) -> Ref:
        """The place of a path: source.attribute, partition key, then attribute of the current source."""
        name, index = path.parts[0]
        bound = self.sources.get(name.casefold())
        if bound is not None and len(path.parts) > 1:
            return bound.ref(attribute_path(path.parts[1:]), index)
        if len(path.parts) == 1 and path.name.casefold() in self.key_refs:
            return self.key_refs[path.name.casefold()]
        if self.current is None:
            raise AssertionError("the checker lets no unknown name come here")
        return self.current.ref(attribute_path(path.parts), None)

    def generator(self, **changes: Any) -> Generator:
        """A generator of code; ``current`` may be another source."""
        scope = replace(self, **changes) if changes else self
        return Generator(self.namespace, scope.resolve, aggregate=self._aggregate, times=self.times, table=self.tables)

    def _aggregate(self, call: ast.Call) -> str:
        percent = None
        if call.name == "percentile" and isinstance(call.arguments[1], ast.Const):
            percent = float(call.arguments[1].value)
        elif call.name == "median":
            percent = 50.0
        wanted = AggregateCall(call.name, call.arguments[0] if call.arguments else None, percent)
        if wanted not in self.aggregates:
            self.aggregates.append(wanted)
        return f"A{self.aggregates.index(wanted)}"

    # Outputs

    @property
    def partition_paths(self) -> tuple[ast.Path, ...]:
        return self.rule.partition.paths if self.rule.partition else ()

    @property
    def columns(self) -> tuple[ast.Column, ...]:
        """What an output holds: the partition keys that are not selected by name, then the selection."""
        selected = {column.name.casefold() for column in self.rule.select.columns}
        keys = tuple(
            ast.Column(path, path.name, False, path.position)
            for path in self.partition_paths
            if path.name.casefold() not in selected
        )
        return () if self.rule.select.is_star else keys + self.rule.select.columns

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @property
    def having(self) -> ast.Expression | None:
        """The condition of ``having`` with the output names replaced by what they stand for."""
        having = self.rule.select.having
        if having is None:
            return None
        return substitute(having, {column.name: column.expression for column in self.columns if column.name})

    def row_sources(self, generator: Generator) -> tuple[str, str]:
        """Fast and safe source of an output row."""
        if self.rule.select.is_star:
            slots = list(dict.fromkeys(self.sources.values()))
            if len(slots) == 1 and not slots[0].is_list and not slots[0].is_optional:
                slot, _ = slots[0].layout.slot(EVERYTHING)
                source = tuple_source([f"{slots[0].variable}[{slot}]"])
                return source, source
            parts = [f"({b.variable}, {b.layout.slot(EVERYTHING)[0]})" for b in slots]
            self.namespace["merged"] = merged
            keys = [f"{path.name!r}: {self.resolve(path).safe}" for path in self.partition_paths]
            source = f"({{{', '.join([*keys, f'**merged({tuple_source(parts)})'])}}},)"
            return source, source
        fast = tuple_source([generator.value(column.expression) for column in self.columns])
        return fast, tuple_source([generator.safe(column.expression) for column in self.columns])

    def row_function(self, arguments: str, generator: Generator) -> Callable[..., tuple[Any, ...]]:
        """The function of ``arguments`` that gives an output row."""
        function: Callable[..., tuple[Any, ...]] = self.guarded(arguments, *self.row_sources(generator))
        return function

    def condition(self, arguments: str, conditions: Iterable[ast.Expression], generator: Generator) -> Any:
        """The function of ``arguments`` that says whether all conditions are true; None if there are none."""
        sources = list(conditions)
        if not sources:
            return None
        fast = " and ".join(map(generator.truth, sources))
        safe = " and ".join(f"{generator.safe(source)} is True" for source in sources)
        return self.guarded(arguments, fast, safe)

    def guarded(self, arguments: str, fast: str, safe: str) -> Any:
        """A function with the fast source, and the safe one where that raises."""
        name = f"g{len(self.namespace)}"
        return self.namespace.function(
            f"def {name}({arguments}):\n try:\n  return {fast}\n except FAILURES:\n  return {safe}\n", name
        )

    def key_source(self, paths: Iterable[ast.Path], generator: Generator) -> str:
        """Source of a key: None without paths, the value of one, a tuple of several."""
        sources = [generator.safe(path) for path in paths]
        if not sources:
            return "None"
        return sources[0] if len(sources) == 1 else tuple_source(sources)


def attribute_path(parts: Iterable[tuple[str, int | None]]) -> AttributePath:
    """Names and indexes of a path inside an event's attributes."""
    path: list[str | int] = []
    for name, index in parts:
        path.append(name)
        if index is not None:
            path.append(index)
    return tuple(path)


def merged(captured: Iterable[tuple[Any, int]]) -> dict[str, Any]:
    """``select *`` of several sources: all their attributes; of equal names the first wins."""
    result: dict[str, Any] = {}
    for events, slot in captured:
        for event in events if isinstance(events, list) else [events]:
            for name, value in (event[slot] if event is not None else {}).items():
                result.setdefault(name, value)
    return result


def substitute(expression: ast.Expression, columns: dict[str, ast.Expression]) -> ast.Expression:
    """The expression with plain names of ``columns`` replaced."""
    if isinstance(expression, ast.Path):
        named = columns.get(expression.name) if len(expression.parts) == 1 else None
        return named if named is not None and not _mentions(named, expression.name) else expression
    changes: dict[str, Any] = {}
    for name in ("operand", "left", "right", "low", "high"):
        child = getattr(expression, name, None)
        if child is not None:
            changes[name] = substitute(child, columns)
    if isinstance(expression, ast.Call) and expression.name not in AGGREGATES:
        changes["arguments"] = tuple(substitute(argument, columns) for argument in expression.arguments)
    return replace(expression, **changes) if changes else expression


def _mentions(expression: ast.Expression, name: str) -> bool:
    return isinstance(expression, ast.Path) and expression.name == name and len(expression.parts) == 1
