"""What a rule is, as the parser reads it: plain frozen data with the line and column of everything that can be wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Position:
    """Line and column in the text, both from 1."""

    line: int
    column: int


NOWHERE = Position(1, 1)

# Expressions


@dataclass(frozen=True, slots=True)
class Const:
    """A literal: number, text, true, false or null. A duration is its number of milliseconds."""

    value: Any
    position: Position = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Path:
    """``a.b``, ``a[0].b``, ``a[last-1].b``: pairs of name and index, where -1 is ``last``, -2 ``last-1``, None no index."""

    parts: tuple[tuple[str, int | None], ...]
    position: Position = field(default=NOWHERE, compare=False)

    @property
    def name(self) -> str:
        return self.parts[-1][0]

    def __str__(self) -> str:
        return ".".join(name if index is None else f"{name}[{_index_text(index)}]" for name, index in self.parts)


@dataclass(frozen=True, slots=True)
class Unary:
    """``not x`` or ``-x``."""

    operator: str
    operand: Expression
    position: Position = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Binary:
    """``+ - * / %``, ``== != < <= > >=``, ``and or``."""

    operator: str
    left: Expression
    right: Expression
    position: Position = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class IsNull:
    """``x is null``."""

    operand: Expression
    position: Position = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class InList:
    """``x in (1, 2)``."""

    operand: Expression
    values: tuple[Any, ...]
    position: Position = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class InTable:
    """``x in TABLE`` or ``x in TABLE.attribute``; without an attribute the one named like x, else the table's key."""

    operand: Expression
    table: str
    attribute: str | None
    position: Position = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Between:
    """``x between low and high``, both included."""

    operand: Expression
    low: Expression
    high: Expression
    position: Position = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Like:
    """``x like 'pattern'``: ``%`` any text, ``_`` one character; case counts."""

    operand: Expression
    pattern: str
    position: Position = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Call:
    """A function or aggregate, its name in lower case; ``count(*)`` has no arguments."""

    name: str
    arguments: tuple[Expression, ...]
    position: Position = field(default=NOWHERE, compare=False)


Expression: TypeAlias = Const | Path | Unary | Binary | IsNull | InList | InTable | Between | Like | Call


def children(expression: Expression) -> Iterator[Expression]:
    """The expressions directly inside, from left to right."""
    for item in fields(expression):
        value = getattr(expression, item.name)
        if isinstance(value, tuple) and item.name == "arguments":
            yield from value
        elif isinstance(value, (Const, Path, Unary, Binary, IsNull, InList, InTable, Between, Like, Call)):
            yield value


def walk(expression: Expression) -> Iterator[Expression]:
    """The expression and everything inside it."""
    yield expression
    for child in children(expression):
        yield from walk(child)


def conjuncts(expression: Expression) -> Iterator[Expression]:
    """The conditions that an ``and`` joins."""
    if isinstance(expression, Binary) and expression.operator == "and":
        yield from conjuncts(expression.left)
        yield from conjuncts(expression.right)
    else:
        yield expression


def _index_text(index: int) -> str:
    if index >= 0:
        return str(index)
    return "last" if index == -1 else f"last-{-index - 1}"


# Input


@dataclass(frozen=True, slots=True)
class Window:
    """``#time(5 min)``: its name in lower case and its arguments."""

    name: str
    arguments: tuple[Expression, ...]
    position: Position = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Source:
    """A stream (event, output of a rule) or a table, with its filters, its window and how the rule calls it."""

    name: str
    filters: tuple[Expression, ...] = ()
    window: Window | None = None
    alias: str | None = None
    late_filters: tuple[Expression, ...] = ()
    """Filters written after the window."""
    position: Position = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class EventAtom:
    """``a=S[...]<2:5>``; ``count_max`` None = no upper bound."""

    name: str | None
    source: Source
    count_min: int = 1
    count_max: int | None = 1
    position: Position = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class AbsentAtom:
    """``not S[...] for t``; the checker refuses it without a duration."""

    source: Source
    duration_ms: int | None
    position: Position = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class GroupAtom:
    """``( chain ) within t``."""

    chain: Chain
    within_ms: int | None
    position: Position = field(default=NOWHERE, compare=False)


Atom: TypeAlias = EventAtom | AbsentAtom | GroupAtom


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a chain: one atom, or several joined by ``and``, ``or`` (one operator between each two)."""

    is_every: bool
    atoms: tuple[Atom, ...]
    operators: tuple[str, ...] = ()
    position: Position = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Chain:
    """Steps and the arrow before each but the first: ``->`` or ``,``."""

    steps: tuple[Step, ...]
    arrows: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PatternInput:
    """A chain; one step with one plain event is an ordinary stream."""

    chain: Chain
    within_ms: int | None = None


@dataclass(frozen=True, slots=True)
class JoinInput:
    """``left join right on ... within t``; kind is inner, left or full."""

    left: Source
    right: Source
    kind: str
    is_unidirectional: bool = False
    on: Expression | None = None
    within_ms: int | None = None


# The other clauses


@dataclass(frozen=True, slots=True)
class Partition:
    """``partition by paths [in TABLE.attribute]``."""

    paths: tuple[Path, ...]
    table: Path | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """One selected expression and its name in the output."""

    expression: Expression
    name: str
    is_named: bool
    position: Position = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Select:
    """What an output holds; no columns = ``*``. Order: pairs of path and "is descending"."""

    columns: tuple[Column, ...] = ()
    group_by: tuple[Path, ...] = ()
    having: Expression | None = None
    order_by: tuple[tuple[Path, bool], ...] = ()
    limit: int | None = None

    @property
    def is_star(self) -> bool:
        return not self.columns


@dataclass(frozen=True, slots=True)
class Rate:
    """``output ...``: kind is first, last, all, snapshot or change; every so many ms or events."""

    kind: str
    every_ms: int | None = None
    every_count: int | None = None
    position: Position = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Annotation:
    """``@name(plain, key=value)``; a path as argument stands as :class:`Path`."""

    name: str
    plain: tuple[Any, ...] = ()
    named: tuple[tuple[str, Any], ...] = ()
    position: Position = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. ``out_kind`` is current, expired or all."""

    number: int
    text: str
    input: PatternInput | JoinInput
    partition: Partition | None
    select: Select
    rate: Rate | None
    out_kind: str
    target: str
    update_on: Expression | None
    annotations: tuple[Annotation, ...]
    position: Position = field(default=NOWHERE, compare=False)

    @property
    def name(self) -> str | None:
        """Given by ``@name('x')`` or ``@info(name='x')``."""
        for annotation in self.annotations:
            value = dict(annotation.named).get("name", annotation.plain[0] if annotation.plain else None)
            if annotation.name in ("name", "info") and isinstance(value, str):
                return value
        return None

    @property
    def label(self) -> str | int:
        """The rule's name, or its number from 1."""
        return self.name if self.name is not None else self.number


@dataclass(frozen=True, slots=True)
class Problem:
    """Something wrong in a text of rules; ``snippet`` is the line and a caret below the column (syntax errors)."""

    position: Position
    message: str
    snippet: str | None = None

    def __str__(self) -> str:
        return f"{self.position.line}:{self.position.column}: {self.message}"
