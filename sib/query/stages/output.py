"""``$out`` and ``$merge``: the last stage writes through a callback, and is refused where there is none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from sib.errors import QuerySyntaxError
from sib.query.budget import Context
from sib.query.expressions.compiler import named_arguments
from sib.query.stages.registry import Document, Environment, Output, Stage, stage

WHEN_MATCHED = ("merge", "replace", "keepExisting", "fail")
WHEN_NOT_MATCHED = ("insert", "discard", "fail")

REFUSED = "$out and $merge are refused here: a query only reads"


def _target(name: str, spec: Any) -> str:
    if isinstance(spec, Mapping):
        spec = named_arguments(name, spec, ("coll",), ("db",))["coll"]
    if not isinstance(spec, str) or not spec:
        raise QuerySyntaxError(f"{name} needs the name of an ontology")
    return spec


def _writing(output: Output, environment: Environment) -> Stage:
    write = environment.write
    if write is None:
        raise QuerySyntaxError(REFUSED)

    def run(documents: Iterable[Document]) -> Iterator[Document]:
        write(output, iter(documents))
        return iter(())

    return run


@stage("$out")
def _out(spec: Any, environment: Environment) -> Stage:
    return _writing(Output("out", _target("$out", spec)), environment)


@stage("$merge")
def _merge(spec: Any, environment: Environment) -> Stage:
    named = (
        {"into": spec}
        if isinstance(spec, str)
        else named_arguments("$merge", spec, ("into",), ("on", "let", "whenMatched", "whenNotMatched"))
    )
    on = named.get("on", "_id")
    fields = tuple(on) if isinstance(on, list) else (on,)
    if not fields or not all(isinstance(field, str) and field for field in fields):
        raise QuerySyntaxError("$merge: on needs one or more field names")
    if named.get("let"):
        raise QuerySyntaxError("$merge: let is not supported: use $$new in the pipeline")
    matched, not_matched = named.get("whenMatched", "merge"), named.get("whenNotMatched", "insert")
    if not_matched not in WHEN_NOT_MATCHED:
        raise QuerySyntaxError(f"$merge: whenNotMatched is one of {', '.join(WHEN_NOT_MATCHED)}")
    output = Output(
        "merge",
        _target("$merge", named["into"]),
        fields,
        "pipeline" if isinstance(matched, list) else str(matched),
        not_matched,
        _combining(matched, environment.context),
    )
    return _writing(output, environment)


def _combining(matched: Any, context: Context) -> Callable[[Document, Document], Document]:
    if isinstance(matched, list):
        return _combining_by_pipeline(matched, context)
    if matched not in WHEN_MATCHED:
        raise QuerySyntaxError(f"$merge: whenMatched is one of {', '.join(WHEN_MATCHED)} or a pipeline")

    def combine(existing: Document, new: Document) -> Document:
        base = existing if matched in ("merge", "keepExisting", "fail") else {}
        added = new if matched in ("merge", "replace") else {}
        made = {**base, **added}
        if "_id" in existing:
            made = {"_id": existing["_id"], **{name: value for name, value in made.items() if name != "_id"}}
        return made

    return combine


def _combining_by_pipeline(stages: list[Any], context: Context) -> Callable[[Document, Document], Document]:
    from sib.query.pipeline import compile_document_pipeline

    inner = Context(context.budget, context.now, {**context.variables, "new": None}, context.random)
    run = compile_document_pipeline(stages, inner)

    def combine(existing: Document, new: Document) -> Document:
        inner.variables = {**context.variables, "new": new}
        inner.now = context.now
        made = run(existing)
        return {"_id": existing["_id"], **made} if "_id" in existing and "_id" not in made else made

    return combine
