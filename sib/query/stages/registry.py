"""What a stage is, the table of stages, and the compiler of pipelines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from sib.errors import QuerySyntaxError
from sib.query.budget import Context
from sib.query.values import is_int

Document: TypeAlias = dict[str, Any]
Stage: TypeAlias = Callable[[Iterable[Document]], Iterator[Document]]
"""Takes the documents of the stage before and gives those for the next. Documents are never changed in place."""

MAX_STAGES = 200
"""Stages of one pipeline."""


@dataclass(frozen=True, slots=True)
class Output:
    """Where ``$out`` and ``$merge`` write to.

    Attributes:
        kind: "out" replaces the whole target, "merge" writes into it.
        on: the fields that identify a document of the target.
        when_matched: "merge", "replace", "keepExisting", "fail" or "pipeline".
        when_not_matched: "insert", "discard" or "fail".
        combine: (existing, new) to the document to be stored when one exists; keeps the existing ``_id``.
    """

    kind: str
    target: str
    on: tuple[str, ...] = ("_id",)
    when_matched: str = "merge"
    when_not_matched: str = "insert"
    combine: Callable[[Document, Document], Document] | None = None


Write: TypeAlias = Callable[[Output, Iterator[Document]], None]


@dataclass(frozen=True, slots=True)
class Environment:
    """What stages need from outside.

    Attributes:
        context: budget, ``$$NOW``, variables.
        collection: the documents of another ontology by name; it raises the error of a name that is not allowed.
        write: carries out ``$out`` and ``$merge``; None refuses them.
        geo_path: the path that ``$geoNear`` uses when it names none.
        is_inner: inside ``$facet``, ``$lookup`` or ``$unionWith``.
    """

    context: Context
    collection: Callable[[str], Iterable[Document]]
    write: Write | None = None
    geo_path: str | None = None
    is_inner: bool = False

    def inner(self, context: Context | None = None) -> Environment:
        """The environment of a pipeline inside a stage."""
        return replace(self, context=context or self.context, write=None, is_inner=True)


StageCompiler: TypeAlias = Callable[[Any, Environment], Stage]
STAGES: dict[str, StageCompiler] = {}

ONLY_FIRST = frozenset(("$geoNear",))
ONLY_LAST = frozenset(("$out", "$merge"))


def stage(*names: str) -> Callable[[StageCompiler], StageCompiler]:
    """Registers the compiler of a stage under its names."""

    def register(compile_stage: StageCompiler) -> StageCompiler:
        for name in names:
            STAGES[name] = compile_stage
        return compile_stage

    return register


def read_stage(spec: Any) -> tuple[str, Any]:
    """The name and argument of a stage.

    Raises:
        QuerySyntaxError: not an object with one field, or an unknown stage.
    """
    if not isinstance(spec, Mapping) or len(spec) != 1:
        raise QuerySyntaxError("a pipeline stage is an object with one field, such as {$match: {…}}")
    name, argument = next(iter(spec.items()))
    if name not in STAGES:
        raise QuerySyntaxError(f"unknown pipeline stage {name}")
    return name, argument


def compile_stages(stages: Any, environment: Environment) -> Stage:
    """Compiles a pipeline into one stage.

    Raises:
        QuerySyntaxError: a stage is unknown, wrong, or in a place where it cannot be.
    """
    if not isinstance(stages, (list, tuple)) or len(stages) > MAX_STAGES:
        raise QuerySyntaxError(f"a pipeline is an array of at most {MAX_STAGES} stages")
    named = [read_stage(spec) for spec in stages]
    compiled: list[Stage] = []
    for position, (name, argument) in enumerate(named):
        if name in ONLY_FIRST and position > 0:
            raise QuerySyntaxError(f"{name} can only be the first stage")
        if name in ONLY_LAST and (position + 1 < len(named) or environment.is_inner):
            raise QuerySyntaxError(f"{name} can only be the last stage of the outer pipeline")
        if name == "$sort":
            argument = SortArgument(argument, _wanted_of_sort(named[position + 1 :]))
        compiled.append(STAGES[name](argument, environment))

    def run(documents: Iterable[Document]) -> Iterator[Document]:
        for one in compiled:
            documents = one(documents)
        return iter(documents)

    return run


@dataclass(frozen=True, slots=True)
class SortArgument:
    """The argument of a ``$sort``, and how many of the first documents the stages behind it want (None: all)."""

    spec: Any
    wanted: int | None = None


def _wanted_of_sort(following: list[tuple[str, Any]]) -> int | None:
    """How many documents of a sort are looked at, when ``$skip`` and ``$limit`` follow; wrong ones are refused later."""
    skipped = 0
    for name, argument in following:
        if not is_int(argument) or argument < 0 or name not in ("$skip", "$limit"):
            return None
        if name == "$limit":
            return skipped + int(argument)
        skipped += int(argument)
    return None
