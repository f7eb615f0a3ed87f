"""The statement of the Mongo shell: ``db.X.find({...}).sort({...}).limit(3);`` as a collection and a chain of calls."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sib.query.constructors import Clock
from sib.query.parameters import Parameters
from sib.query.relaxed import Reader

MAX_CALLS = 50

_STARTS = re.compile(r"\s*(?:db\s*[.\[]|\{\s*db\s*(?:\[|\.[^:,{}()]*\())")
_NAME = re.compile(r"[^\s.()\[\]{}\"'`;,:]+")


@dataclass(frozen=True, slots=True)
class Call:
    """One ``.name(arguments)`` of a statement."""

    name: str
    arguments: list[Any]


@dataclass(frozen=True, slots=True)
class Statement:
    """A whole statement: at least one call."""

    collection: str
    calls: tuple[Call, ...]


def is_statement(text: str) -> bool:
    """Whether the text begins as a statement of the shell does, perhaps inside one pair of braces."""
    return _STARTS.match(text) is not None


def parse_statement(text: str, *, now: Clock | None = None, parameters: Parameters | None = None) -> Statement:
    """The one statement in the text; braces around it and ``;`` after it are tolerated.

    Raises:
        QuerySyntaxError: with the position and what was expected there; also for a second statement.
    """
    reader = Reader(text, now=now, parameters=parameters)
    is_braced = reader.take("{")
    if reader.word("db") != "db":
        reader.fail("expected db.ONTOLOGY.METHOD(...)", 0)
    collection, method = _collection(reader)
    calls = [Call(method, reader.arguments())]
    while reader.take("."):
        if len(calls) == MAX_CALLS:
            reader.fail(f"more than {MAX_CALLS} calls in one statement are refused")
        calls.append(Call(reader.word("the name of a method"), reader.arguments()))
    while reader.take(";"):
        pass
    if is_braced:
        reader.expect("}")
    _refuse_more(reader)
    return Statement(collection, tuple(calls))


def _collection(reader: Reader) -> tuple[str, str]:
    """Name and first method of ``db.X.find``, ``db["X"].find`` and ``db.getCollection("X").find``."""
    if reader.take("["):
        collection = _one_string(reader, reader.value())
        reader.expect("]")
        reader.expect(".")
        return collection, reader.word("the name of a method")
    reader.expect(".")
    names = [_name(reader)]
    if names[0] == "getCollection" and reader.peek() == "(":
        arguments = reader.arguments()
        collection = _one_string(reader, arguments[0] if len(arguments) == 1 else None)
        reader.expect(".")
        return collection, reader.word("the name of a method")
    while reader.take("."):
        names.append(_name(reader))
    if len(names) < 2 or reader.peek() != "(":
        reader.fail("expected db.ONTOLOGY.METHOD(...), for example db.SensorTemperatura.find({})")
    return ".".join(names[:-1]), names[-1]


def _name(reader: Reader) -> str:
    match = _NAME.match(reader.text, reader.skip())
    if match is None:
        reader.fail("expected the name of an ontology or method")
    reader.position = match.end()
    return match.group()


def _one_string(reader: Reader, value: Any) -> str:
    if not isinstance(value, str) or not value:
        reader.fail("expected the name of an ontology in quotes")
    return value


def _refuse_more(reader: Reader) -> None:
    while reader.take(";"):
        pass
    if reader.peek():
        reader.fail("one statement at a time is accepted; expected the end")
