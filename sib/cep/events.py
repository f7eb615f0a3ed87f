"""CEP events and rules as Sofia2's console has them: an ontology with ticked attributes, and three boxes.

An event makes a stream of an ontology: its name in capitals, with attributes ``ONTOLOGY__ATTRIBUTE``.
Source: Sofia2 console, "Mis Eventos CEP" and "Mis Reglas CEP".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sib.cep import nulls

AHEAD_MS_MAX = 60_000
"""An event time further ahead of the time of insertion is impossible: it would make all that comes later late."""
_EPOCH, _EPOCH_UTC, _MILLISECOND = datetime(1970, 1, 1), datetime(1970, 1, 1, tzinfo=UTC), timedelta(milliseconds=1)
_NUMBER_TYPES = frozenset({"number", "integer"})
_TYPES = {"string": "string", "boolean": "bool"}


@dataclass(frozen=True, slots=True)
class EventDefinition:
    """A CEP event.

    Attributes:
        name: Identification; the stream is called this in capitals, and rules may spell it as they like.
        ontology: The ontology whose instances are the events.
        attributes: Path of each ticked attribute in the instance (dots, numbers for places in arrays) to its JSON Schema
            type; an unknown type makes the attribute a text.
        time_path: The attribute that holds the event time (a date, or ms since 1970); None = the time of insertion.
    """

    name: str
    ontology: str
    attributes: Mapping[str, str]
    time_path: str | None = None
    _readers: tuple[tuple[str, tuple[str | int, ...], Callable[[Any], Any]], ...] = field(
        init=False, repr=False, compare=False
    )
    """Name and path of each attribute, and what makes it one of its type: made once, as every instance needs them."""
    _time: tuple[str | int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        types = self.types()
        readers = tuple((name, _parts(path), _OF_TYPE[types[name]]) for path, name in self.names().items())
        object.__setattr__(self, "_readers", readers)
        object.__setattr__(self, "_time", _parts(self.time_path) if self.time_path else ())

    @property
    def stream(self) -> str:
        """The name of the stream."""
        return self.name.upper()

    def names(self) -> dict[str, str]:
        """Path to attribute name: ``ONTOLOGY__FIELD``, with the whole path where two fields have the same end."""
        ends = [path.rsplit(".", 1)[-1].upper() for path in self.attributes]
        prefix = self.ontology.upper()
        return {
            path: f"{prefix}__{end if ends.count(end) == 1 else path.upper().replace('.', '_')}"
            for path, end in zip(self.attributes, ends, strict=True)
        }

    def types(self) -> dict[str, str]:
        """Attribute name to type, as :func:`sib.cep.compile_rules` takes the attributes of a stream."""
        return {
            name: "number" if self.attributes[path] in _NUMBER_TYPES else _TYPES.get(self.attributes[path], "string")
            for path, name in self.names().items()
        }

    def event(self, document: Mapping[str, Any], inserted_ms: int) -> tuple[str, int, dict[str, Any]]:
        """An instance as (stream, event time in ms, attributes). Missing and ill-typed attributes are null.

        The instance may be stored (with BSON values). A missing or impossible event time is the time of insertion.
        """
        attributes = {name: typed(nulls.dig(document, path)) for name, path, typed in self._readers}
        ts = milliseconds(nulls.dig(document, self._time)) if self._time else None
        return self.stream, inserted_ms if ts is None or ts > inserted_ms + AHEAD_MS_MAX else ts, attributes


def _parts(path: str) -> tuple[str | int, ...]:
    return tuple(int(part) if part.isdigit() else part for part in path.split("."))


def _number(value: Any) -> Any:
    if type(value) is int or (type(value) is float and not value.is_integer()):
        return value
    return nulls.plain(value) if nulls.is_number(value) else milliseconds(value)


def _bool(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _string(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, datetime):
        return value.replace(tzinfo=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return None


_OF_TYPE: dict[str, Callable[[Any], Any]] = {"number": _number, "bool": _bool, "string": _string}


def milliseconds(value: Any) -> int | None:
    """A date (naive = UTC) or a number as milliseconds since 1970; None for anything else."""
    if isinstance(value, datetime):
        return round((value - (_EPOCH if value.tzinfo is None else _EPOCH_UTC)) / _MILLISECOND)
    return int(value) if nulls.is_number(value) and abs(value) < 2**53 else None


def rule_of_boxes(from_box: str, select_box: str, insert_box: str) -> str:
    """The rule that the console's three boxes make; each may or may not begin with its own keyword."""
    return (
        f"from {_without(from_box, 'from')}\nselect {_without(select_box, 'select')}\n"
        f"insert into {_without(insert_box, 'insert', 'into')}"
    )


def _without(box: str, *keywords: Sequence[str] | str) -> str:
    text = box.strip().rstrip(";").strip()
    for keyword in keywords:
        head = text.split(None, 1)
        if head and head[0].casefold() == keyword and len(head) > 1:
            text = head[1]
    return text
