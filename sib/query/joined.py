"""Which ontologies a pipeline reads beside its own: each of them needs a right of its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def joined_ontologies(pipeline: Iterable[Mapping[str, Any]]) -> set[str]:
    """The names in ``$lookup``, ``$graphLookup`` and ``$unionWith``, at any depth."""
    return set(_names(pipeline))


def _names(pipeline: Any) -> Iterator[str]:
    if not isinstance(pipeline, list | tuple):
        return
    for stage in pipeline:
        if not isinstance(stage, Mapping):
            continue
        for operator, argument in stage.items():
            if operator == "$unionWith" and isinstance(argument, str):
                yield argument
            elif isinstance(argument, Mapping):
                if operator == "$facet":
                    for branch in argument.values():
                        yield from _names(branch)
                for key in ("from", "coll"):
                    if operator in ("$lookup", "$graphLookup", "$unionWith") and isinstance(argument.get(key), str):
                        yield argument[key]
                yield from _names(argument.get("pipeline"))
