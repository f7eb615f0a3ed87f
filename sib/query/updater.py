"""Updates: compiled once to a function from the old document to the new one. The old document is never changed.

An update is a document of operators (``{$set: …}``), a replacement, or a pipeline (a list of stages).

Source: MongoDB manual, "Update Operators", "Updates with Aggregation Pipeline".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

from sib.errors import QueryError, QuerySyntaxError
from sib.query.budget import Context, check_nesting
from sib.query.matcher import compile_filter
from sib.query.paths import Parts, Predicate, array_index, check_path_conflicts, checked_parts
from sib.query.positional import compile_position
from sib.query.update_operators import FIELD_OPERATORS, FieldUpdate, Target, compile_field_update
from sib.query.values import copy_value, equal

Document: TypeAlias = dict[str, Any]
Updater: TypeAlias = Callable[[Document, datetime, bool], Document]
"""(document, now, is_insert) to the new document; ``is_insert`` is true for the seed of an upsert."""

MAX_UPDATED_PATHS = 10_000
"""Paths of one update, and elements that one positional path may touch."""


def compile_update(
    update: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    *,
    filter: Mapping[str, Any] | None = None,
    array_filters: Sequence[Mapping[str, Any]] = (),
    context: Context | None = None,
) -> Updater:
    """Compiles an update.

    Args:
        update: operators, a replacement document, or a pipeline.
        filter: the filter that chose the document; the positional ``$`` needs it.
        array_filters: the filters of ``$[identifier]``.
        context: budget and variables for a pipeline.

    Returns:
        A function that makes the new document. Whether it changed anything is ``identical(old, new)`` of ``values``.
        It raises QueryError when the update does not fit the document (``$inc`` of a string, a changed ``_id``).

    Raises:
        QuerySyntaxError: an unknown operator, paths in conflict, an unused array filter.
    """
    context = context if context is not None else Context()
    check_nesting(update, "update")
    if isinstance(update, (list, tuple)):
        return _keeping_id(_compile_pipeline_update(list(update), context))
    if not isinstance(update, Mapping):
        raise QuerySyntaxError("an update must be an object or a pipeline")
    if is_operator_update(update):
        return _keeping_id(_compile_operator_update(update, filter, array_filters, context))
    if array_filters:
        raise QuerySyntaxError("array filters cannot stand with a replacement")
    return _keeping_id(_compile_replacement(update))


def is_operator_update(update: Mapping[str, Any] | Sequence[Any]) -> bool:
    """Whether the update is operators (and so may be applied to many documents) and not a replacement.

    Raises:
        QuerySyntaxError: operators and fields are mixed.
    """
    if not isinstance(update, Mapping):
        return True
    marks = {str(name).startswith("$") for name in update}
    if len(marks) == 2:
        raise QuerySyntaxError("an update holds either operators ($set …) or a whole document: not both")
    return marks == {True}


def upsert_seed(filter: Mapping[str, Any] | None, *, is_replacement: bool = False) -> Document:
    """The document that an upsert starts from: what the filter says by equality (of a replacement only ``_id``).

    Raises:
        QuerySyntaxError: the filter gives one path two values.
    """
    pairs = [(checked_parts(path, "upsert"), value) for path, value in _equalities(filter or {})]
    if is_replacement:
        pairs = [(parts, value) for parts, value in pairs if parts == ("_id",)]
    check_path_conflicts(
        [parts for parts, _ in pairs],
        lambda path, other: f"the upsert's filter gives {path!r} and {other!r} two values",
    )
    seed: Document = {}
    for parts, value in pairs:
        Target(seed, parts).set(copy_value(value))
    if "_id" in seed:
        seed = {"_id": seed.pop("_id"), **seed}
    return seed


def _equalities(filter_spec: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, argument in filter_spec.items():
        if name == "$and" or (name == "$or" and isinstance(argument, list) and len(argument) == 1):
            for clause in argument:
                yield from _equalities(clause)
        elif name.startswith("$"):
            continue
        elif isinstance(argument, Mapping) and any(str(key).startswith("$") for key in argument):
            if "$eq" in argument:
                yield name, argument["$eq"]
            elif isinstance(argument.get("$in"), list) and len(argument["$in"]) == 1:
                yield name, argument["$in"][0]
            elif isinstance(argument.get("$all"), list) and len(argument["$all"]) == 1:
                yield name, argument["$all"][0]
        elif type(argument).__name__ not in ("Regex", "Pattern"):
            yield name, argument


def _keeping_id(apply: Updater) -> Updater:
    def update(document: Document, now: datetime, is_insert: bool = False) -> Document:
        made = apply(document, now, is_insert)
        if "_id" in document and ("_id" not in made or not equal(made["_id"], document["_id"])):
            raise QueryError("the update would change _id, which cannot be changed")
        return made

    return update


def _compile_replacement(replacement: Mapping[str, Any]) -> Updater:
    def update(document: Document, _now: datetime, _is_insert: bool) -> Document:
        made: Document = copy_value(dict(replacement))
        if "_id" in document:
            made = {"_id": document["_id"], **made}
        return made

    return update


def _compile_pipeline_update(stages: list[Any], context: Context) -> Updater:
    from sib.query.pipeline import compile_document_pipeline

    run = compile_document_pipeline(stages, context)

    def update(document: Document, now: datetime, _is_insert: bool) -> Document:
        context.now = now
        made = run(document)
        if "_id" in document and "_id" not in made:
            made = {"_id": document["_id"], **made}
        copied: Document = copy_value(made)
        return copied

    return update


# Operators


@dataclass(frozen=True, slots=True)
class _PathUpdate:
    """One field update with its path as written."""

    parts: Parts
    apply: FieldUpdate
    insert_only: bool


def _compile_operator_update(
    update: Mapping[str, Any], filter_spec: Mapping[str, Any] | None, array_filters: Sequence[Any], context: Context
) -> Updater:
    updates = list(_path_updates(update, context))
    check_path_conflicts(
        [item.parts for item in updates],
        lambda path, other: f"the update names {path!r} and {other!r}, which are in conflict",
    )
    # MongoDB applies paths in the order of their names, numbers by value, so that new fields have one order.
    updates.sort(key=lambda item: [_part_order(part) for part in item.parts])
    filters = _compile_array_filters(array_filters, context)
    resolvers = [_Resolver(item.parts, filter_spec, filters, context) for item in updates]
    unused = set(filters) - {name for resolver in resolvers for name in resolver.identifiers}
    if unused:
        raise QuerySyntaxError(f"the array filter {sorted(unused)[0]!r} is not used in the update")

    def apply(document: Document, now: datetime, is_insert: bool) -> Document:
        made: Document = copy_value(document)
        touched: set[Parts] = set()
        for item, resolver in zip(updates, resolvers, strict=True):
            if item.insert_only and not is_insert:
                continue
            for parts in resolver.resolve(made, document):
                if not resolver.is_plain:
                    if parts in touched:
                        raise QueryError(f"the update touches {'.'.join(parts)!r} twice")
                    touched.add(parts)
                item.apply(Target(made, parts), now)
        return made

    return apply


def _part_order(part: str) -> tuple[int, int, str]:
    index = array_index(part)
    return (0, index, "") if index is not None else (1, 0, part)


def _path_updates(update: Mapping[str, Any], context: Context) -> Iterator[_PathUpdate]:
    count = 0
    for operator, fields in update.items():
        if operator not in FIELD_OPERATORS:
            raise QuerySyntaxError(f"unknown update operator {operator}")
        if not isinstance(fields, Mapping):
            raise QuerySyntaxError(f"{operator} needs an object of fields")
        for path, argument in fields.items():
            count += 1
            if count > MAX_UPDATED_PATHS:
                raise QuerySyntaxError(f"an update may name at most {MAX_UPDATED_PATHS} paths")
            parts = checked_parts(path, operator)
            if parts[0].startswith("$"):
                raise QuerySyntaxError(f"{operator}: the path {path!r} cannot start with $")
            yield _PathUpdate(
                parts, compile_field_update(operator, path, argument, context), operator == "$setOnInsert"
            )
            if operator == "$rename":
                # The target of a rename takes part in conflicts and is written by the source's update.
                yield _PathUpdate(checked_parts(argument, operator), lambda _target, _now: None, False)


def _compile_array_filters(array_filters: Sequence[Any], context: Context) -> dict[str, Predicate]:
    compiled: dict[str, Predicate] = {}
    for spec in array_filters:
        if not isinstance(spec, Mapping) or not spec:
            raise QuerySyntaxError("an array filter is an object with one identifier")
        names = set(_identifiers(spec))
        if len(names) != 1:
            raise QuerySyntaxError("an array filter names exactly one identifier")
        name = names.pop()
        if not name or not name[0].isascii() or not name[0].islower() or not name.isalnum():
            raise QuerySyntaxError(
                f"the identifier {name!r} must start with a lower-case letter and hold letters and digits"
            )
        if name in compiled:
            raise QuerySyntaxError(f"there are two array filters for the identifier {name!r}")
        compiled[name] = _on_element(name, compile_filter(spec, context))
    return compiled


def _on_element(name: str, matches: Predicate) -> Predicate:
    return lambda element: matches({name: element})


def _identifiers(spec: Mapping[str, Any]) -> Iterator[str]:
    for name, argument in spec.items():
        if name in ("$and", "$or", "$nor") and isinstance(argument, list):
            for clause in argument:
                if isinstance(clause, Mapping):
                    yield from _identifiers(clause)
        elif not name.startswith("$"):
            yield name.partition(".")[0]
        else:
            raise QuerySyntaxError(f"{name} cannot stand in an array filter")


class _Resolver:
    """Turns a path with ``$``, ``$[]`` and ``$[identifier]`` into the paths of one document."""

    def __init__(
        self, parts: Parts, filter_spec: Mapping[str, Any] | None, filters: Mapping[str, Predicate], context: Context
    ) -> None:
        self.parts = parts
        self.is_plain = not any(part.startswith("$") for part in parts)
        self.identifiers = {
            part[2:-1] for part in parts if part.startswith("$[") and part.endswith("]") and part != "$[]"
        }
        self._filters = filters
        self._budget = context.budget
        self._position: Callable[[Any], int | None] | None = None
        unknown = self.identifiers - set(filters)
        if unknown:
            raise QuerySyntaxError(f"there is no array filter for the identifier {sorted(unknown)[0]!r}")
        if parts.count("$") > 1:
            raise QuerySyntaxError("a path may hold the positional operator $ once")
        if "$" in parts:
            before = parts[: parts.index("$")]
            if any(part.startswith("$[") for part in before):
                raise QuerySyntaxError("the positional operator $ cannot stand behind $[]")
            self._position = compile_position(filter_spec, ".".join(before), context)

    def resolve(self, made: Document, original: Document) -> list[Parts]:
        """The concrete paths in the document as it is now; ``$`` looks at the document that the filter matched."""
        if self.is_plain:
            return [self.parts]
        reached: list[tuple[Parts, Any]] = [((), made)]
        for part in self.parts:
            reached = [step for path, value in reached for step in self._step(part, path, value, original)]
            if len(reached) > MAX_UPDATED_PATHS:
                raise QueryError(f"the update touches more than {MAX_UPDATED_PATHS} elements of one document")
            self._budget.spend(len(reached))
        return [path for path, _ in reached]

    def _step(self, part: str, path: Parts, value: Any, original: Document) -> Iterator[tuple[Parts, Any]]:
        if part == "$":
            index = self._position(original) if self._position is not None else None
            if index is None:
                raise QueryError("the positional operator $ did not find the element that the filter matched")
            yield (*path, str(index)), value[index] if isinstance(value, list) and index < len(value) else None
        elif part == "$[]" or part.startswith("$["):
            if not isinstance(value, list):
                raise QueryError(f"{part} needs an array at {'.'.join(path)!r}")
            wanted = self._filters.get(part[2:-1])
            for index, element in enumerate(value):
                if wanted is None or wanted(element):
                    yield (*path, str(index)), element
        elif isinstance(value, dict):
            yield (*path, part), value.get(part)
        elif isinstance(value, list):
            index = array_index(part)
            yield (*path, part), value[index] if index is not None and index < len(value) else None
        else:
            yield (*path, part), None
