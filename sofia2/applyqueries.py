"""Whether the text of a predefined query can be read, tried with sample values for its parameters."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime

from sib.errors import SibError
from sib.ontology import Ontology
from storage.bdc.records import DefinedQuery

_PARAMETER = re.compile(r"\{\$(\w+)\}")
_SAMPLES = {
    "boolean": "true",
    "date": "2026-01-01T00:00:00Z",
    "objectid": "0" * 24,
    "string": "x",
}
_SAMPLE_NUMBER = "1"
_SOME_TIME = datetime(2026, 1, 1)


def fault_of_query(query: DefinedQuery, lookup: Callable[[str], Ontology]) -> str | None:
    """What is wrong with a query's text, or None. ``lookup`` gives an ontology or raises OntologyNotFoundError."""
    from sib.query.native import plan_native
    from sib.query.parameters import bind_parameters
    from sib.query.sqlplan import plan_sql

    types = dict.fromkeys(_PARAMETER.findall(query.text), "string") | dict(query.params)
    samples = {name: _SAMPLES.get(kind, _SAMPLE_NUMBER) for name, kind in types.items()}
    try:
        bound = bind_parameters(samples, types)
        if query.type == "NATIVE":
            plan_native(query.text, ontology=query.ontology, now=_now, parameters=bound)
        elif query.type == "BDH":
            from storage.bdh.sql import read_statement

            read_statement(query.text, lookup=lookup, parameters=bound)
        else:
            plan_sql(query.text, lookup=lookup, now=_now, parameters=bound)
    except SibError as error:
        return error.message
    return None


def unused_parameters(query: DefinedQuery) -> list[str]:
    """The declared parameters that the text does not have."""
    used = set(_PARAMETER.findall(query.text))
    return [name for name in query.params if name not in used]


def _now() -> datetime:
    return _SOME_TIME
