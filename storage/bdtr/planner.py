"""From a filter to the ways of finding a superset of its documents by index. The exact matcher decides afterwards.

So a plan can be slow, never wrong, as long as each access holds for every document that matches.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bson.decimal128 import Decimal128
from bson.objectid import ObjectId
from bson.regex import Regex

from sib.query.matcher import has_operators
from storage.bdtr import geo_index
from storage.bdtr.catalogue import MULTIKEY, TIME_OFF, CollectionInfo, IndexInfo
from storage.bdtr.keys import KEY_BYTES_MAX, NULL_KEY, key_of, milliseconds, nested_key, type_range

LOOKUPS_MAX = 10_000
"""Keys of one ``$in`` or branches of one ``$or`` that are looked up by index; more are read without it."""

TIME_PATH = "contextData.timestamp"
_RANGE_OPERATORS = frozenset({"$gt", "$gte", "$lt", "$lte"})
_GEO_OPERATORS = frozenset({"$near", "$nearSphere", "$geoWithin", "$within", "$geoIntersects"})
_END = b"\xff"

Condition = tuple[str, Mapping[str, Any]]
"""(path, operators)"""


@dataclass(frozen=True, slots=True)
class KeyLookup:
    """Documents under these keys of an index."""

    index: IndexInfo
    keys: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class KeyRange:
    """Documents between two keys of an index, both included."""

    index: IndexInfo
    low: bytes
    high: bytes
    is_bounded: bool = True


@dataclass(frozen=True, slots=True)
class GeoBoxes:
    """Documents whose boxes meet one of these."""

    index: IndexInfo
    boxes: tuple[geo_index.Box, ...]


@dataclass(frozen=True, slots=True)
class IdLookup:
    """Documents with these ids."""

    ids: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Union:
    """Documents of any of these."""

    parts: tuple[Access, ...]


Access = KeyLookup | KeyRange | GeoBoxes | IdLookup | Union


@dataclass(slots=True)
class Plan:
    """Each access holds for all matching documents; the best one is enough. The ranges narrow it further.

    ``time_ms``: (first, last) of ``contextData.timestamp``. ``id_numbers``: (first, last) of generated ids.
    """

    accesses: list[Access] = field(default_factory=list)
    time_ms: tuple[int, int] | None = None
    id_numbers: tuple[int, int] | None = None


_FOREVER = (-(2**62) + 1, 2**62)


def plan_filter(filter_spec: Mapping[str, Any], info: CollectionInfo) -> Plan:
    """The ways to find a superset of what the filter matches. The filter must have been compiled before (it is valid)."""
    plan = Plan()
    conditions = list(_conditions(filter_spec))
    for path, operators in conditions:
        if path == "_id":
            _plan_id(plan, operators, info)
        elif path == TIME_PATH and not info.flags & TIME_OFF:
            _plan_time(plan, operators)
    for index in info.indexes.values():
        if index.is_ready:
            plan.accesses += _index_accesses(index, conditions)
    for clauses in _disjunctions(filter_spec):
        union = _union(clauses, info)
        if union is not None:
            plan.accesses.append(union)
    return plan


def _conditions(filter_spec: Mapping[str, Any], prefix: str = "") -> Iterator[Condition]:
    """The conditions on paths that all must hold."""
    for name, argument in filter_spec.items():
        if name == "$and":
            for clause in argument:
                yield from _conditions(clause, prefix)
        elif not name.startswith("$"):
            path = prefix + name
            operators = argument if has_operators(argument) else {"$eq": argument}
            yield path, operators
            yield from _inner_conditions(path, operators)


def _inner_conditions(path: str, operators: Mapping[str, Any]) -> Iterator[Condition]:
    element = operators.get("$elemMatch")
    if isinstance(element, Mapping):
        if has_operators(element):
            if next(iter(element)) not in ("$and", "$or", "$nor", "$expr"):
                yield path, {**element, "$sameElement": True}
        else:
            # A number in front would index into an element that is an array itself, which the keys do not know.
            plain = {name: value for name, value in element.items() if not name.split(".")[0].isdigit()}
            yield from _conditions(plain, path + ".")
    members = operators.get("$all")
    if isinstance(members, list):
        for member in members:
            if isinstance(member, Mapping) and "$elemMatch" in member:
                yield from _inner_conditions(path, member)
            else:
                yield path, {"$eq": member}


def _disjunctions(filter_spec: Mapping[str, Any]) -> Iterator[list[Mapping[str, Any]]]:
    for name, argument in filter_spec.items():
        if name == "$or" and len(argument) <= LOOKUPS_MAX:
            yield list(argument)
        elif name == "$and":
            for clause in argument:
                yield from _disjunctions(clause)


def _union(clauses: list[Mapping[str, Any]], info: CollectionInfo) -> Access | None:
    parts: list[Access] = []
    for clause in clauses:
        accesses = plan_filter(clause, info).accesses
        if not accesses:
            return None
        parts.append(min(accesses, key=rank))
    return Union(tuple(parts))


def rank(access: Access) -> int:
    """A guess at how much an access finds, without looking: less is better."""
    match access:
        case IdLookup():
            return 0
        case KeyLookup(index, keys):
            return (1 if index.spec.unique else 2) + (len(keys) > 10)
        case GeoBoxes():
            return 5
        case KeyRange(is_bounded=is_bounded):
            return 4 if is_bounded else 7
        case Union(parts):
            return 1 + max(map(rank, parts))


# ids and time


def _plan_id(plan: Plan, operators: Mapping[str, Any], info: CollectionInfo) -> None:
    for operator, argument in operators.items():
        if operator == "$eq" and _is_key(argument):
            plan.accesses.append(IdLookup((argument,)))
        elif operator == "$in" and len(argument) <= LOOKUPS_MAX and all(map(_is_key, argument)):
            plan.accesses.append(IdLookup(tuple(argument)))
        elif operator in _RANGE_OPERATORS and isinstance(argument, ObjectId) and not info.has_foreign_ids:
            second = int.from_bytes(argument.binary[:4], "big")
            low, high = plan.id_numbers or (0, 2**62)
            if operator in ("$gt", "$gte"):
                low = max(low, second << 24)
            else:
                high = min(high, (second + 1 << 24) - 1)
            plan.id_numbers = low, high


def _plan_time(plan: Plan, operators: Mapping[str, Any]) -> None:
    for operator, argument in operators.items():
        if not isinstance(argument, datetime):
            continue
        low, high = plan.time_ms or _FOREVER
        moment = milliseconds(argument)
        if operator in ("$gt", "$gte", "$eq"):
            low = max(low, moment)
        if operator in ("$lt", "$lte", "$eq"):
            high = min(high, moment)
        if operator in _RANGE_OPERATORS or operator == "$eq":
            plan.time_ms = low, high


# indexes


def _index_accesses(index: IndexInfo, conditions: list[Condition]) -> Iterator[Access]:
    if index.spec.is_geo:
        yield from _geo_accesses(index, conditions)
    elif len(index.spec.fields) == 1:
        for operators in _on_path(index.spec.fields[0][0], conditions):
            yield from _single_accesses(index, operators)
    else:
        yield from _compound_accesses(index, conditions)


def _on_path(path: str, conditions: list[Condition]) -> Iterator[Mapping[str, Any]]:
    for other, operators in conditions:
        if other == path:
            yield operators


def _geo_accesses(index: IndexInfo, conditions: list[Condition]) -> Iterator[Access]:
    for operators in _on_path(index.spec.fields[0][0], conditions):
        for operator in _GEO_OPERATORS & operators.keys():
            boxes = geo_index.query_boxes(index.spec.fields[0][0], {**operators, operator: operators[operator]})
            if boxes is not None:
                yield GeoBoxes(index, tuple(boxes))
                return


def _single_accesses(index: IndexInfo, operators: Mapping[str, Any]) -> Iterator[Access]:
    for operator, argument in operators.items():
        values = [argument] if operator == "$eq" else argument if operator == "$in" else None
        if values is not None and len(values) <= LOOKUPS_MAX and all(map(_is_key, values)):
            keys = tuple(sorted({key_of(value)[0] for value in values}))
            if not (index.spec.sparse and NULL_KEY in keys):
                yield KeyLookup(index, keys)
    yield from _ranges(index, operators)
    prefix = _regex_prefix(operators)
    if prefix:
        low = b"\x04" + prefix.encode()
        yield KeyRange(index, low[:KEY_BYTES_MAX], low[:KEY_BYTES_MAX] + _END * 4)


def _ranges(index: IndexInfo, operators: Mapping[str, Any]) -> Iterator[Access]:
    """Ranges of one type. Over arrays two bounds may be met by different elements: then each bound stands alone."""
    bounds = [_bounds(operator, argument) for operator, argument in operators.items() if operator in _RANGE_OPERATORS]
    known = [bound for bound in bounds if bound is not None]
    if index.flags & MULTIKEY and "$sameElement" not in operators:
        for low, high in known:
            yield KeyRange(index, low, high, is_bounded=False)
    elif known:
        low, high = max(low for low, _ in known), min(high for _, high in known)
        yield KeyRange(index, low, high, is_bounded=len(known) > 1)


def _bounds(operator: str, argument: Any) -> tuple[bytes, bytes] | None:
    if not _is_ordered(argument):
        return None
    key = key_of(argument)[0]
    low, high = type_range(key[0])
    return (key, high) if operator in ("$gt", "$gte") else (low, key)


def _compound_accesses(index: IndexInfo, conditions: list[Condition]) -> Iterator[Access]:
    """Equalities on the leading fields, then one range: a range of composite keys."""
    prefix = b""
    for path, direction in index.spec.fields:
        of_path = list(_on_path(path, conditions))
        equal = next((ops["$eq"] for ops in of_path if "$eq" in ops and _is_key(ops["$eq"])), _NOTHING)
        if equal is not _NOTHING and not (index.spec.sparse and equal is None):
            prefix += nested_key(equal, direction)
            continue
        ranges = [
            _composite_range(prefix, operator, argument, direction)
            for operators in of_path
            for operator, argument in operators.items()
            if operator in _RANGE_OPERATORS and _is_ordered(argument)
        ]
        if index.flags & MULTIKEY:
            yield from (KeyRange(index, low, high, is_bounded=bool(prefix)) for low, high in ranges)
        elif ranges:
            yield KeyRange(index, max(low for low, _ in ranges), min(high for _, high in ranges), bool(prefix))
        if ranges:
            return
        break
    if prefix:
        yield KeyRange(index, prefix[:KEY_BYTES_MAX], _last_with(prefix))


def _composite_range(prefix: bytes, operator: str, argument: Any, direction: int | str) -> tuple[bytes, bytes]:
    key = nested_key(argument, direction)
    of_type = key[:1]
    if (operator in ("$gt", "$gte")) == (direction != -1):
        return (prefix + key)[:KEY_BYTES_MAX], _last_with(prefix + of_type)
    return (prefix + of_type)[:KEY_BYTES_MAX], _last_with(prefix + key)


def _last_with(prefix: bytes) -> bytes:
    return prefix[:KEY_BYTES_MAX] + _END * max(4, KEY_BYTES_MAX + 1 - len(prefix))


_NOTHING = object()


def _is_key(value: Any) -> bool:
    """Whether equality with the value means an equal key."""
    return not isinstance(value, (re.Pattern, Regex)) and not has_operators(value)


def _is_ordered(value: Any) -> bool:
    """Whether a range from the value stays within its type and its keys."""
    if isinstance(value, float) and value != value:
        return False
    return isinstance(value, (bool, int, float, Decimal128, str, datetime, ObjectId))


_PREFIX = re.compile(r"\^((?:[^\W_]|[ _\-/:@])+)", re.ASCII)


def _regex_prefix(operators: Mapping[str, Any]) -> str:
    """The literal text that every match of an anchored expression starts with."""
    pattern = operators.get("$regex", operators.get("$eq"))
    options = operators.get("$options", "")
    if isinstance(pattern, (re.Pattern, Regex)):
        flags = int(pattern.flags) & ~re.UNICODE
        if flags:
            return ""
        pattern = pattern.pattern
    elif "$regex" not in operators:
        return ""
    if options or not isinstance(pattern, str) or "|" in pattern:
        return ""
    found = _PREFIX.match(pattern)
    if found is None:
        return ""
    prefix = found.group(1)
    following = pattern[found.end() : found.end() + 1]
    return prefix[:-1] if following in ("*", "?", "{") and following else prefix


def describe(access: Access) -> str:
    """One line about an access, for people."""
    match access:
        case IdLookup(ids):
            return f"look up {len(ids)} _id"
        case KeyLookup(index, keys):
            return f"look up {len(keys)} key(s) in the index {index.spec.name}"
        case KeyRange(index):
            return f"read a range of the index {index.spec.name}"
        case GeoBoxes(index, boxes):
            return f"search {len(boxes)} box(es) in the geo index {index.spec.name}"
        case Union(parts):
            return "any of: " + "; ".join(map(describe, parts))


def leaves(access: Access) -> Iterable[Access]:
    """The accesses that a union is made of, or the access itself."""
    if isinstance(access, Union):
        for part in access.parts:
            yield from leaves(part)
    else:
        yield access
