"""What is checked before a query goes to a MongoDB: it must be one that every other backend would carry out too.

The compilers of the query engine refuse what they do not know: ``$where``, ``$function``, ``$accumulator``, administrative
stages. So nothing runs on the server that could run code there or look into other databases.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sib.errors import StoreError
from sib.query import geo
from sib.query.budget import Budget, Context
from sib.query.geo_operators import find_near
from sib.query.matcher import compile_filter
from sib.query.paths import Predicate, values_at
from sib.query.pipeline import Write, run_pipeline
from sib.query.values import MISSING
from storage.bdtr.model import IndexSpec

INTERNAL = "sofia2."
"""The names of the collections that hold what a partition notes begin so."""
NAME_LENGTH_MAX = 200

_NEAR = ("$near", "$nearSphere")
_READS = {"$lookup": "from", "$graphLookup": "from", "$unionWith": "coll"}


def check_name(name: str) -> str:
    """The name of a collection of instances.

    Raises:
        StoreError: no collection of instances may be called so.
    """
    is_bad = not name or len(name) > NAME_LENGTH_MAX or "\0" in name or "$" in name
    if is_bad or name.startswith((INTERNAL, "system.")):
        raise StoreError(f"No collection of instances may be called {name[:80]!r}.")
    return name


def check_filter(filter_spec: Mapping[str, Any], budget: Budget | None, now: datetime | None) -> Predicate:
    """Refuses a filter as the query engine does; gives its matcher."""
    return compile_filter(filter_spec, Context(budget=budget, now=now))


def check_pipeline(pipeline: Sequence[Mapping[str, Any]], now: datetime, write: Write | None) -> None:
    """Refuses a pipeline as the query engine does, and one that reads or writes what is not for queries."""
    refused = None if write is None else _nothing
    run_pipeline((), list(pipeline), collection=_no_documents, now=now, write=refused, geo_path="location")
    for name in _read_collections(pipeline):
        if isinstance(name, str):
            check_name(name)


def _nothing(_output: Any, _documents: Iterator[Any]) -> None:
    """Stands for a write: only the compiler is wanted."""


def _no_documents(name: str) -> Iterable[Any]:
    check_name(name)
    return ()


def _read_collections(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for key, argument in value.items():
            if key in _READS:
                yield argument.get(_READS[key]) if isinstance(argument, Mapping) else argument
            yield from _read_collections(argument)
    elif isinstance(value, (list, tuple)):
        for member in value:
            yield from _read_collections(member)


def near_by_server(filter_spec: Mapping[str, Any], indexes: Iterable[IndexSpec]) -> bool:
    """Whether the server can carry out the filter's ``$near``: it needs an index, and GeoJSON to seek with one."""
    near = find_near(filter_spec)
    if near is None:
        return True
    has_index = any(index.is_geo and index.paths == (near.path,) for index in indexes)
    return has_index and _is_geojson(filter_spec, near.path)


def _is_geojson(filter_spec: Mapping[str, Any], path: str) -> bool:
    condition = filter_spec.get(path)
    if not isinstance(condition, Mapping):
        return False
    sought = [condition[operator] for operator in _NEAR if operator in condition]
    return all(isinstance(value, Mapping) and "$geometry" in value for value in sought)


def without_near(filter_spec: Mapping[str, Any]) -> dict[str, Any]:
    """A filter for a superset of the matches that the server can answer without a geo index."""
    kept: dict[str, Any] = {}
    for path, condition in filter_spec.items():
        if path == "$and":
            kept[path] = [without_near(clause) for clause in condition]
            continue
        if isinstance(condition, Mapping) and any(operator in condition for operator in _NEAR):
            dropped = (*_NEAR, "$maxDistance", "$minDistance")
            rest = {operator: value for operator, value in condition.items() if operator not in dropped}
            if not rest:
                continue
            condition = rest
        kept[path] = condition
    return kept


def is_indexable(document: Mapping[str, Any], spec: IndexSpec) -> bool:
    """Whether a 2dsphere index of the server takes the document: it refuses geometries that are no place on Earth."""
    return all(_is_place(value) for value in values_at(document, spec.paths[0], expand=False))


def _is_place(value: Any) -> bool:
    if value is None or value is MISSING:
        return True
    if geo.read_shape(value) is not None:
        return True
    # An array of geometries is indexed element by element.
    return isinstance(value, list) and bool(value) and all(geo.read_shape(element) is not None for element in value)


def ends_in_output(pipeline: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the last stage is ``$out`` or ``$merge``."""
    return bool(pipeline) and ("$out" in pipeline[-1] or "$merge" in pipeline[-1])
