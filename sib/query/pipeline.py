"""Aggregation pipelines: compiled, then run lazily over documents.

Source: MongoDB manual, "Aggregation Stages".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from sib.errors import LimitError, QuerySyntaxError
from sib.query.budget import Budget, Context, check_nesting
from sib.query.stages import grouping, joining, output, shaping, windows  # noqa: F401 - registers every stage
from sib.query.stages.registry import Document, Environment, Output, Stage, Write, compile_stages, read_stage

__all__ = [
    "Output",
    "Write",
    "compile_document_pipeline",
    "compile_pipeline",
    "run_pipeline",
    "split_leading_match",
]

DOCUMENT_STAGES = frozenset(("$addFields", "$set", "$project", "$unset", "$replaceRoot", "$replaceWith"))
"""Stages that an update by pipeline may hold. Source: MongoDB manual, "Updates with Aggregation Pipeline"."""


def compile_pipeline(stages: Any, environment: Environment) -> Stage:
    """Compiles a pipeline once.

    Raises:
        QuerySyntaxError: not an array, an unknown stage or operator, a wrong argument, nesting beyond MAX_NESTING.
    """
    check_nesting(stages, "pipeline")
    return compile_stages(stages, environment)


def run_pipeline(
    documents: Iterable[Document],
    stages: Any,
    *,
    collection: Callable[[str], Iterable[Document]],
    now: datetime | Callable[[], datetime] | None = None,
    budget: Budget | None = None,
    write: Write | None = None,
    geo_path: str | None = None,
) -> Iterator[Document]:
    """Runs a pipeline. It is compiled at once and the documents are made as they are taken.

    Args:
        documents: the input, in its order; it is read lazily and never changed.
        stages: the pipeline as BSON values.
        collection: the documents of another ontology by name.
        now: the value of ``$$NOW``.
        budget: the time and memory of the query.
        write: carries out ``$out`` and ``$merge``; without it they are refused.
        geo_path: the path that ``$geoNear`` uses when it has no key (the one geo index of the ontology).

    Raises:
        QuerySyntaxError: at once, for a wrong pipeline.
        QueryError, LimitError, QueryTimeoutError: while the result is read.
    """
    context = Context(budget, now)
    run = compile_pipeline(stages, Environment(context, collection, write, geo_path))
    return _guarded(run(documents))


def _guarded(documents: Iterator[Document]) -> Iterator[Document]:
    try:
        yield from documents
    except RecursionError:
        raise LimitError("the query makes or reads values that are nested too deep") from None


def split_leading_match(stages: Any) -> tuple[Mapping[str, Any], list[Any]]:
    """The filter of a leading ``$match``, which a store may carry out with its indexes, and the stages that are left."""
    if isinstance(stages, list) and stages and isinstance(stages[0], Mapping) and set(stages[0]) == {"$match"}:
        condition = stages[0]["$match"]
        if isinstance(condition, Mapping):
            return condition, stages[1:]
    return {}, list(stages)


def compile_document_pipeline(stages: list[Any], context: Context) -> Callable[[Document], Document]:
    """Compiles the pipeline of an update: one document in, one out.

    Raises:
        QuerySyntaxError: it is empty or holds a stage that does more than reshape one document.
    """
    check_nesting(stages, "update")
    if not stages:
        raise QuerySyntaxError("an update by pipeline needs at least one stage")
    for spec in stages:
        name, _ = read_stage(spec)
        if name not in DOCUMENT_STAGES:
            raise QuerySyntaxError(f"{name} cannot stand in an update: {', '.join(sorted(DOCUMENT_STAGES))} can")
    run = compile_stages(stages, Environment(context, _no_collection, is_inner=True))
    return lambda document: next(run([document]))


def _no_collection(name: str) -> Iterable[Document]:
    raise QuerySyntaxError(f"the ontology {name!r} cannot be read in an update")
