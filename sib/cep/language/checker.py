"""What is wrong with rules that can be read: names, types, windows, absences, cascades. Every problem has its position.

Start with :func:`check`. Without declared streams unknown streams and attributes are accepted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from sib.cep.language import ast
from sib.cep.language.annotations import check_annotations
from sib.cep.language.expressions import ExpressionChecker, Names
from sib.cep.language.functions import AGGREGATES, WINDOWS
from sib.cep.language.shapes import check_input
from sib.cep.streams import Declaration, StreamTypes

HOP_PANES_MAX = 10_000
"""Panes (greatest common divisor of size and step) in one ``hop`` window."""

CASCADE_DEPTH_MAX = 8
"""Rules in a row that read each other's outputs."""

Report = Callable[[ast.Position, str], None]


def check(
    rules: Sequence[ast.Rule], streams: StreamTypes | None = None, tables: Mapping[str, Any] | None = None
) -> list[ast.Problem]:
    """All problems of a set of rules, in the order of the text; none = :func:`sib.cep.compile_rules` takes it.

    Args:
        rules: As :func:`~sib.cep.language.parser.parse_rules` gave them.
        streams: Declared attributes and types by stream; None = anything is accepted.
        tables: The tables that exist (their names); None = any name may be a table.
    """
    problems: list[ast.Problem] = []

    def report(position: ast.Position, message: str) -> None:
        problems.append(ast.Problem(position, message))

    declared = _declared(rules, streams)
    known_tables = None
    if tables is not None:
        known_tables = {name.casefold() for name in tables} | {
            r.target.casefold() for r in rules if r.update_on is not None
        }
    for rule in rules:
        _RuleChecker(rule, declared, known_tables, report).check()
    _check_cascades(rules, report)
    _check_names(rules, report)
    return sorted(problems, key=lambda problem: (problem.position.line, problem.position.column))


def _declared(rules: Sequence[ast.Rule], streams: StreamTypes | None) -> dict[str, Declaration | None] | None:
    """What is known of each stream; None for one whose attributes are not known; None as a whole: anything goes."""
    if streams is None:
        return None
    known: dict[str, Declaration | None] = {name.casefold(): Declaration.of(types) for name, types in streams.items()}
    for rule in rules:
        target, late = rule.target.casefold(), f"{rule.name or rule.target}__late".casefold()
        known.setdefault(late, None)
        names = None if rule.select.is_star else dict.fromkeys(_output_names(rule))
        if target in known and known[target] is not None and names is not None:
            names.update(dict.fromkeys(name for name, _ in known[target].attributes.values()))  # type: ignore[union-attr]
        known[target] = None if names is None else Declaration.of(names)
    return known


def _output_names(rule: ast.Rule) -> list[str]:
    keys = [path.name for path in rule.partition.paths] if rule.partition else []
    return [*keys, *(column.name for column in rule.select.columns)]


class _RuleChecker:
    """The problems of one rule."""

    def __init__(
        self,
        rule: ast.Rule,
        declared: Mapping[str, Declaration | None] | None,
        tables: set[str] | None,
        report: Report,
    ) -> None:
        self._rule, self._declared, self._tables, self._report = rule, declared, tables, report

    def check(self) -> None:
        rule = self._rule
        check_annotations(rule, self._report)
        kind = check_input(rule, self._report)
        found = list(sources(rule))
        for source, _ in found:
            self._check_source(source, kind)
        names = Names(found, self._declared, self._tables)
        self._check_filters(found, names)
        self._check_partition(names)
        self._check_select(names, kind)
        self._check_output(kind)

    def _check_source(self, source: ast.Source, kind: str) -> None:
        name = source.name.casefold()
        if self._declared is not None and name not in self._declared and name not in (self._tables or ()):
            self._report(source.position, f"no stream or table is called {source.name}")
        if source.late_filters:
            position = getattr(source.late_filters[0], "position", source.position)
            self._report(position, "put the filter before the window")
        if source.window is None:
            return
        if kind == "pattern":
            self._report(source.window.position, "a step of a pattern takes no window: use 'within'")
        self._check_window(source.window, kind)

    def _check_window(self, window: ast.Window, kind: str) -> None:
        if window.name not in WINDOWS:
            known = "time, length, timeBatch, lengthBatch, session, hop, unique, externalTime"
            self._report(window.position, f"there is no window {window.name}: known are {known}")
            return
        kinds, needed = WINDOWS[window.name]
        count = len(window.arguments)
        if not needed <= count <= len(kinds):
            self._report(window.position, f"{window.name} takes {_counted(needed, len(kinds))}, not {count}")
        for wanted, argument in zip(kinds, window.arguments, strict=False):
            if wanted == "path":
                is_right = isinstance(argument, ast.Path)
            else:
                value = argument.value if isinstance(argument, ast.Const) else None
                is_right = isinstance(value, int) and not isinstance(value, bool) and value > 0
            if not is_right:
                what = {"path": "an attribute", "duration": "a duration above 0", "count": "a whole number above 0"}
                self._report(argument.position, f"here {window.name} takes {what[wanted]}")
        numbers = [argument.value for argument in window.arguments if isinstance(argument, ast.Const)]
        is_sound = len(numbers) == 2 and all(isinstance(number, int) and number > 0 for number in numbers)
        if window.name == "hop" and is_sound and numbers[0] // math.gcd(*numbers) > HOP_PANES_MAX:
            self._report(
                window.position, f"size and step of hop have more than {HOP_PANES_MAX} parts: take rounder ones"
            )
        if kind == "join" and window.name not in ("time", "length", "unique"):
            self._report(window.position, "the sides of a join take the windows time, length and unique")
        if self._rule.out_kind != "current" and window.name in ("timebatch", "lengthbatch", "session", "hop"):
            self._report(
                window.position, "expired events exist with sliding windows only: time, length, unique, externalTime"
            )

    def _check_filters(self, sources: Iterable[tuple[ast.Source, str | None]], names: Names) -> None:
        for source, alias in sources:
            checker = ExpressionChecker(names.inside(source, alias), self._report, aggregates_allowed=False)
            for condition in source.filters:
                checker.condition(condition)
        rule_input = self._rule.input
        if isinstance(rule_input, ast.JoinInput) and rule_input.on is not None:
            ExpressionChecker(names, self._report, aggregates_allowed=False).condition(rule_input.on)

    def _check_partition(self, names: Names) -> None:
        partition = self._rule.partition
        if partition is None:
            return
        for path in partition.paths:
            names.check_everywhere(path, self._report)
        if partition.table is None:
            return
        if self._tables is not None and partition.table.parts[0][0].casefold() not in self._tables:
            self._report(partition.table.position, f"no table is called {partition.table.parts[0][0]}")
        if len(partition.table.parts) < 2:
            self._report(partition.table.position, "write TABLE.attribute: the attribute that holds the keys")

    def _check_select(self, names: Names, kind: str) -> None:
        rule, select = self._rule, self._rule.select
        names = names.with_keys(path.name for path in rule.partition.paths) if rule.partition else names
        allowed = kind == "stream"
        checker = ExpressionChecker(names, self._report, aggregates_allowed=allowed)
        seen: set[str] = set()
        for column in select.columns:
            checker.value(column.expression)
            if not column.name:
                self._report(column.position, "give this a name: … as NAME")
            elif column.name.casefold() in seen:
                self._report(column.position, f"two columns are called {column.name}: rename one with 'as'")
            seen.add(column.name.casefold())
        for path in select.group_by:
            checker.value(path)
        if select.group_by and not allowed:
            self._report(select.group_by[0].position, "group by needs a rule over one stream; here use partition by")
        if select.having is not None:
            inner = names.with_keys(column.name for column in select.columns)
            ExpressionChecker(inner, self._report, aggregates_allowed=allowed).condition(select.having)
        self._check_order(
            select, seen | {path.name.casefold() for path in (rule.partition.paths if rule.partition else ())}
        )

    def _check_order(self, select: ast.Select, columns: set[str]) -> None:
        expressions = [column.expression for column in select.columns]
        for path, _ in select.order_by:
            if path.name.casefold() not in columns and path not in expressions:
                self._report(path.position, f"order by names a selected column, and {path} is none")
        if select.limit is not None and select.limit < 1:
            self._report(self._rule.position, "limit must be above 0")

    def _check_output(self, kind: str) -> None:
        rule = self._rule
        if rule.rate is not None and 0 in (rule.rate.every_ms, rule.rate.every_count):
            self._report(rule.rate.position, "the time or number of output must be above 0")
        if rule.out_kind != "current":
            windows = [source.window for source, _ in sources(rule) if source.window is not None]
            if kind != "stream" or not windows:
                self._report(rule.position, "expired events need one stream with a sliding window")
        if rule.update_on is not None:
            for part in ast.walk(rule.update_on):
                if isinstance(part, ast.Call) and part.name in AGGREGATES:
                    self._report(part.position, "no aggregate may stand here")


def _counted(least: int, most: int) -> str:
    return f"{least} argument{'s' if least != 1 else ''}" if least == most else f"{least} to {most} arguments"


def sources(rule: ast.Rule) -> Iterable[tuple[ast.Source, str | None]]:
    """All sources of a rule with their aliases, in the order of the text."""
    if isinstance(rule.input, ast.JoinInput):
        yield rule.input.left, rule.input.left.alias
        yield rule.input.right, rule.input.right.alias
        return
    yield from _chain_sources(rule.input.chain)


def _chain_sources(chain: ast.Chain) -> Iterable[tuple[ast.Source, str | None]]:
    for step in chain.steps:
        for atom in step.atoms:
            if isinstance(atom, ast.GroupAtom):
                yield from _chain_sources(atom.chain)
            else:
                yield atom.source, atom.name if isinstance(atom, ast.EventAtom) else atom.source.alias


def _check_cascades(rules: Sequence[ast.Rule], report: Report) -> None:
    """Refuse rules that feed themselves, directly or through others, and cascades that are too deep."""
    readers: dict[str, list[ast.Rule]] = {}
    for rule in rules:
        for stream in dict.fromkeys(source.name.casefold() for source, _ in sources(rule)):
            readers.setdefault(stream, []).append(rule)
    feeds = {
        rule.number: [*readers.get(rule.target.casefold(), ()), *readers.get(_late_name(rule), ())] for rule in rules
    }
    targets = {rule.number: rule.target for rule in rules}
    depths: dict[int, int] = {}

    def depth(rule: ast.Rule, path: tuple[int, ...]) -> int:
        if rule.number in path:
            circle = path[path.index(rule.number) :]
            if rule.number == min(circle):
                names = " -> ".join(targets[number] for number in (*circle, rule.number))
                report(rule.position, f"these rules feed themselves: {names}")
            return 0
        if len(path) > CASCADE_DEPTH_MAX:
            return 1
        if rule.number not in depths:
            depths[rule.number] = 1 + max(
                (depth(other, (*path, rule.number)) for other in feeds[rule.number]), default=0
            )
        return depths[rule.number]

    for rule in rules:
        if depth(rule, ()) > CASCADE_DEPTH_MAX:
            report(rule.position, f"more than {CASCADE_DEPTH_MAX} rules in a row read each other's outputs")
            return


def _late_name(rule: ast.Rule) -> str:
    return f"{rule.name or rule.target}__late".casefold()


def _check_names(rules: Sequence[ast.Rule], report: Report) -> None:
    seen: set[str] = set()
    for rule in rules:
        if rule.name is not None and rule.name in seen:
            report(rule.position, f"two rules are called {rule.name}")
        seen.add(rule.name or "")
