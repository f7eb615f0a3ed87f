"""Which ontologies a plan reads beside its own: each of them needs a right of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sib.query.plan import Aggregate, Plan


def also_read(plan: Plan) -> list[str]:
    """In order of their names: those in ``$lookup``, ``$graphLookup`` and ``$unionWith``, at any depth."""
    return sorted(set(_names(plan.pipeline)) - {plan.ontology}) if isinstance(plan, Aggregate) else []


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
