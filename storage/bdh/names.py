"""What a name in a SQL statement means in the history of an ontology, in any case of its letters.

Source: Sofia2 documentation (BDH tables are Hive tables with lower-cased columns) and the clients' tests of BDH results:
``_id``, ``contextdata.session_key`` … ``contextdata.timestamp``, then the ontology's fields without their root.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from sib.errors import UnknownFieldError
from sib.ontology import Ontology
from storage.bdh.columns import CONTEXT, CONTEXT_COLUMNS, ID, RAW, STRING, Column, Layout, Scalar, Struct
from storage.bdh.layout import DAY_COLUMN

CONTEXT_ALIASES = {"kp_identificador": "kp_instancia", "kpinstance": "kp_instancia", "sessionkey": "session_key"}
SHOWN_CONTEXT = (
    ("session_key", "session_key"),
    ("user", "user"),
    ("kp", "kp"),
    ("kp_identificador", "kp_instancia"),
    ("timestamp", "timestamp"),
)
"""The columns of ``contextData`` that ``select *`` shows: (name shown, field)."""


@dataclass(frozen=True, slots=True)
class Named:
    """What a name means.

    ``path`` leads to the value through structs; ``rest`` is what is left of it inside ``_raw`` (the field has no column);
    ``shown`` is the name of the column in a result.
    """

    path: tuple[str, ...]
    shown: str
    rest: tuple[str, ...] = ()

    @property
    def is_time(self) -> bool:
        return self.path == (CONTEXT, "timestamp")

    @property
    def is_day(self) -> bool:
        return self.path == (DAY_COLUMN,)


def find(parts: Sequence[str], ontology: Ontology, layout: Layout) -> Named:
    """What a dotted name means.

    Raises:
        UnknownFieldError: the ontology has no such field.
    """
    first = parts[0].lower()
    if len(parts) == 1 and first in (ID, RAW, DAY_COLUMN):
        return Named((first,), first)
    if first == CONTEXT.lower():
        return _in_context(parts)
    if first == ontology.name.lower() and len(parts) > 1 and _child(layout.fields, parts[0]) is None:
        with suppress(UnknownFieldError):
            return find(parts[1:], ontology, layout)
        parts = [ontology.name, *parts[1:]]
    fields = _walk(layout.fields, parts)
    if fields is not None:
        return Named(fields, _shown(fields, layout))
    root = None if layout.root is None else _child(layout.fields, layout.root)
    inside = None if root is None else _walk(root[1], parts)
    if root is not None and inside is not None:
        path = (root[0], *inside)
        return Named(path, _shown(path, layout))
    resolved = tuple(ontology.resolve_column(".".join(parts)).split("."))  # not declared, but allowed: it is in _raw
    return Named((RAW,), ".".join(resolved[1:] if resolved[0] == layout.root else resolved).lower(), resolved)


def all_columns(layout: Layout) -> Iterator[Named]:
    """What ``select *`` shows, in order."""
    yield Named((ID,), ID)
    for shown, name in SHOWN_CONTEXT:
        yield Named((CONTEXT, name), f"{CONTEXT.lower()}.{shown}")
    for name, column in layout.fields.fields:
        yield from _leaves((name,), column, layout)


def _leaves(path: tuple[str, ...], column: Column, layout: Layout) -> Iterator[Named]:
    if isinstance(column, Struct):
        for name, child in column.fields:
            yield from _leaves((*path, name), child, layout)
    else:
        yield Named(path, _shown(path, layout))


def _shown(path: tuple[str, ...], layout: Layout) -> str:
    return ".".join(path[1:] if len(path) > 1 and path[0] == layout.root else path).lower()


def _in_context(parts: Sequence[str]) -> Named:
    if len(parts) == 1:
        return Named((CONTEXT,), CONTEXT.lower())
    asked = parts[1].lower()
    found = _walk(CONTEXT_COLUMNS, [CONTEXT_ALIASES.get(asked, asked), *parts[2:]])
    if found is None:
        names = ", ".join(name for name, _ in CONTEXT_COLUMNS.fields)
        raise UnknownFieldError(f"contextData has no field {'.'.join(parts[1:])!r}: its fields are {names}.")
    return Named((CONTEXT, *found), f"{CONTEXT.lower()}.{asked}")


def _walk(column: Column, parts: Sequence[str]) -> tuple[str, ...] | None:
    """The path of a name with the letters of the schema, or None."""
    path: list[str] = []
    for at, part in enumerate(parts):
        if part in ("$date", "$oid") and at == len(parts) - 1 and isinstance(column, Scalar) and column.kind != STRING:
            break
        found = _child(column, part)
        if found is None:
            return None
        name, column = found
        path.append(name)
    return tuple(path)


def _child(column: Column, name: str) -> tuple[str, Column] | None:
    if not isinstance(column, Struct):
        return None
    exact = next((field for field in column.fields if field[0] == name), None)
    return exact or next((field for field in column.fields if field[0].lower() == name.lower()), None)
