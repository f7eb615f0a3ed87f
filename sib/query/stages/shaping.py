"""Stages that filter, order, cut and reshape documents one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from sib.errors import QueryError, QuerySyntaxError
from sib.query.budget import check_made_value
from sib.query.expressions import compile_expression
from sib.query.expressions.compiler import named_arguments
from sib.query.matcher import compile_filter
from sib.query.paths import Parts, checked_parts, read
from sib.query.projection import compile_add_fields, compile_project_stage, compile_unset
from sib.query.sorting import sort_documents
from sib.query.stages.registry import Document, Environment, SortArgument, Stage, stage
from sib.query.values import INT64_MAX, MISSING, is_int, is_number, type_name

GEO_NEAR_REFUSED = "$near and $nearSphere cannot stand in $match: use $geoNear as the first stage, or $geoWithin"


@stage("$match")
def _match(spec: Any, environment: Environment) -> Stage:
    if not isinstance(spec, Mapping):
        raise QuerySyntaxError("$match needs an object")
    if holds_near(spec):
        raise QuerySyntaxError(GEO_NEAR_REFUSED)
    matches = compile_filter(spec, environment.context)
    budget = environment.context.budget

    def run(documents: Iterable[Document]) -> Iterator[Document]:
        for document in documents:
            budget.spend()
            if matches(document):
                yield document

    return run


def holds_near(spec: Any) -> bool:
    """Whether a filter holds ``$near`` or ``$nearSphere`` on a field anywhere."""
    level: list[Any] = [spec]
    for value in level:
        if isinstance(value, Mapping):
            if "$near" in value or "$nearSphere" in value:
                return True
            level.extend(value.values())
        elif isinstance(value, list):
            level.extend(value)
    return False


def _each(reshape: Callable[[Document], Document], environment: Environment) -> Stage:
    budget = environment.context.budget

    def run(documents: Iterable[Document]) -> Iterator[Document]:
        for document in documents:
            budget.spend()
            yield reshape(document)

    return run


@stage("$project")
def _project(spec: Any, environment: Environment) -> Stage:
    return _each(compile_project_stage(spec, environment.context), environment)


@stage("$addFields", "$set")
def _add_fields(spec: Any, environment: Environment) -> Stage:
    return _each(compile_add_fields(spec, environment.context), environment)


@stage("$unset")
def _unset(spec: Any, environment: Environment) -> Stage:
    return _each(compile_unset(spec, environment.context), environment)


@stage("$replaceRoot")
def _replace_root(spec: Any, environment: Environment) -> Stage:
    return _replace_with(named_arguments("$replaceRoot", spec, ("newRoot",))["newRoot"], environment)


@stage("$replaceWith")
def _replace_with(spec: Any, environment: Environment) -> Stage:
    context = environment.context
    evaluate = compile_expression(spec, context)

    def reshape(document: Document) -> Document:
        made = evaluate(document, context.variables)
        if not isinstance(made, dict):
            raise QueryError(f"$replaceRoot needs an object as the new document, not {type_name(made)}")
        check_made_value(made, context.budget)
        return made

    return _each(reshape, environment)


def whole_number(name: str, value: Any, least: int) -> int:
    """The whole number that a stage takes.

    Raises:
        QuerySyntaxError: it is none, or too small.
    """
    is_whole = is_number(value) and (is_int(value) or (isinstance(value, float) and value.is_integer()))
    if not is_whole or not least <= value <= INT64_MAX:
        raise QuerySyntaxError(f"{name} needs a whole number of at least {least}, not {value!r}")
    return int(value)


@stage("$limit")
def _limit(spec: Any, _environment: Environment) -> Stage:
    limit = whole_number("$limit", spec, 1)
    return lambda documents: islice(documents, limit)


@stage("$skip")
def _skip(spec: Any, environment: Environment) -> Stage:
    skip = whole_number("$skip", spec, 0)
    budget = environment.context.budget

    def run(documents: Iterable[Document]) -> Iterator[Document]:
        for position, document in enumerate(documents):
            budget.spend()
            if position >= skip:
                yield document

    return run


@stage("$sort")
def _sort(spec: Any, environment: Environment) -> Stage:
    argument = spec if isinstance(spec, SortArgument) else SortArgument(spec)
    spec = argument.spec
    if not isinstance(spec, Mapping):
        raise QuerySyntaxError("$sort needs an object of fields")
    sort_documents((), spec)
    budget = environment.context.budget

    def run(documents: Iterable[Document]) -> Iterator[Document]:
        yield from sort_documents(documents, spec, argument.wanted, budget)

    return run


@stage("$count")
def _count(spec: Any, environment: Environment) -> Stage:
    if not isinstance(spec, str) or not spec or spec.startswith("$") or "." in spec:
        raise QuerySyntaxError("$count needs the name of a field, without $ and dots")
    budget = environment.context.budget

    def run(documents: Iterable[Document]) -> Iterator[Document]:
        count = 0
        for _ in documents:
            budget.spend()
            count += 1
        if count:
            yield {spec: count}

    return run


@stage("$sample")
def _sample(spec: Any, environment: Environment) -> Stage:
    size = whole_number("$sample", named_arguments("$sample", spec, ("size",))["size"], 1)
    context = environment.context

    def run(documents: Iterable[Document]) -> Iterator[Document]:
        # Reservoir sampling keeps only as many documents as are wanted.
        kept: list[Document] = []
        for seen, document in enumerate(documents):
            if len(kept) < size:
                context.budget.hold()
                kept.append(document)
            else:
                context.budget.spend()
                at = context.random.randrange(seen + 1)
                if at < size:
                    kept[at] = document
        context.random.shuffle(kept)
        yield from kept

    return run


@stage("$unwind")
def _unwind(spec: Any, environment: Environment) -> Stage:
    named = named_arguments(
        "$unwind",
        {"path": spec} if isinstance(spec, str) else spec,
        ("path",),
        ("includeArrayIndex", "preserveNullAndEmptyArrays"),
    )
    path, index_name = named["path"], named.get("includeArrayIndex")
    if not isinstance(path, str) or not path.startswith("$") or path.startswith("$$"):
        raise QuerySyntaxError("$unwind needs a path that starts with one $")
    parts = checked_parts(path[1:], "$unwind")
    index_parts = None if index_name is None else checked_parts(index_name, "$unwind")
    if index_parts is not None and index_parts[0].startswith("$"):
        raise QuerySyntaxError("$unwind: includeArrayIndex cannot start with $")
    keeps_empty = named.get("preserveNullAndEmptyArrays", False)
    if not isinstance(keeps_empty, bool):
        raise QuerySyntaxError("$unwind: preserveNullAndEmptyArrays must be true or false")
    budget = environment.context.budget

    def run(documents: Iterable[Document]) -> Iterator[Document]:
        for document in documents:
            for index, made in _unwound(document, parts, keeps_empty):
                budget.spend()
                yield made if index_parts is None else set_at(made, index_parts, index)

    return run


def _unwound(document: Document, parts: Parts, keeps_empty: bool) -> Iterator[tuple[int | None, Document]]:
    value = read_through_objects(document, parts)
    if isinstance(value, list):
        for index, element in enumerate(value):
            yield index, set_at(document, parts, element)
        if not value and keeps_empty:
            yield None, set_at(document, parts, MISSING)
    elif (value is not None and value is not MISSING) or keeps_empty:
        yield None, document


def read_through_objects(document: Any, parts: Parts) -> Any:
    """The value at a path that leads through objects only; MISSING otherwise."""
    container = read(document, parts[:-1]) if len(parts) > 1 else document
    return container.get(parts[-1], MISSING) if isinstance(container, dict) else MISSING


def set_at(document: Document, parts: Parts, value: Any) -> Document:
    """A copy of the document with the value at the path (taken away when MISSING); only the way there is copied."""
    name = parts[0]
    if len(parts) == 1:
        if value is MISSING:
            return {other: item for other, item in document.items() if other != name}
        return {**document, name: value}
    inner = document.get(name)
    return {**document, name: set_at(inner if isinstance(inner, dict) else {}, parts[1:], value)}


@stage("$redact")
def _redact(spec: Any, environment: Environment) -> Stage:
    context = environment.context
    evaluate = compile_expression(spec, context)

    def redact(value: Any) -> Any:
        if isinstance(value, list):
            kept = [redact(element) for element in value]
            return [element for element in kept if element is not MISSING]
        if not isinstance(value, dict):
            return value
        answer = evaluate(value, context.variables)
        if answer == "keep":
            return value
        if answer == "prune":
            return MISSING
        if answer != "descend":
            raise QueryError("$redact needs $$DESCEND, $$PRUNE or $$KEEP")
        kept_fields = ((name, redact(item)) for name, item in value.items())
        return {name: item for name, item in kept_fields if item is not MISSING}

    def run(documents: Iterable[Document]) -> Iterator[Document]:
        for document in documents:
            context.budget.spend()
            kept = redact(document)
            if kept is not MISSING:
                yield kept

    return run
