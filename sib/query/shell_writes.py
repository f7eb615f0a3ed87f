"""Plans of the shell's writing methods: insert, save, update, replaceOne, findOneAnd..., remove and their kin."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sib.errors import QuerySyntaxError
from sib.query.arguments import (
    at_most,
    criterion,
    document,
    optional,
    options,
    pipeline_of,
    refuse_javascript,
    required,
    sort_of,
    type_in_words,
)
from sib.query.extended import to_extended
from sib.query.plan import Delete, Filter, Insert, Plan, Returned, Update
from sib.query.shell import Statement
from sib.query.shell_reads import refuse_more

MAX_DOCUMENTS = 10_000

_UPDATE_OPTIONS = frozenset({"upsert", "arrayFilters", "sort"})
_OLD_UPDATE_OPTIONS = frozenset({"upsert", "multi", "arrayFilters"})
_FIND_AND_OPTIONS = frozenset(
    {"sort", "projection", "fields", "upsert", "arrayFilters", "returnNewDocument", "returnOriginal", "returnDocument"}
)
_FIND_AND_MODIFY_KEYS = frozenset({"query", "update", "remove", "new", "sort", "fields", "upsert", "arrayFilters"})
_FIXED_FIELDS = ("_id", "contextData")


def _insert(statement: Statement) -> Plan:
    call = statement.calls[0]
    value = required(call, 0, "an instance")
    is_many = isinstance(value, list)
    if is_many != (call.name == "insertMany") and call.name != "insert":
        raise QuerySyntaxError(f"{call.name}() takes {'one instance' if is_many else 'a list of instances'}.")
    options(call, 1, frozenset())
    instances = value if is_many else [value]
    if not 1 <= len(instances) <= MAX_DOCUMENTS:
        raise QuerySyntaxError(f"{call.name}() takes 1 to {MAX_DOCUMENTS} instances at once, not {len(instances)}.")
    return Insert(statement.collection, tuple(to_extended(document(each, "An instance")) for each in instances))


def _save(statement: Statement) -> Plan:
    """With an ``_id`` the instance of that id is replaced (or made), without one it is inserted."""
    call = statement.calls[0]
    instance = document(required(call, 0, "an instance"), "The instance")
    if "_id" not in instance:
        return Insert(statement.collection, (to_extended(instance),))
    return _replacement(statement, {"_id": instance["_id"]}, instance, upsert=True)


def _update(statement: Statement) -> Plan:
    """``update(q, u, upsert, multi)`` of old and ``update(q, u, {upsert, multi, arrayFilters})``: the first match."""
    call = statement.calls[0]
    at_most(call, 4)
    found: dict[str, Any]
    if isinstance(optional(call, 2), dict):
        found = options(call, 2, _OLD_UPDATE_OPTIONS)
    else:
        found = {"upsert": optional(call, 2, False), "multi": optional(call, 3, False)}
    multi, upsert = flag(found, "multi"), flag(found, "upsert")
    change = required(call, 1, "a change")
    filter_ = criterion(required(call, 0, "a criterion"))
    if not _is_replacement(change):
        return _change(statement, filter_, change, multi=multi, upsert=upsert, array_filters=_array_filters(found))
    if multi:
        raise QuerySyntaxError("update() of several instances takes operators such as {$set: {...}}, not an instance.")
    return _replacement(statement, filter_, change, upsert=upsert)


def _update_one(statement: Statement) -> Plan:
    call = statement.calls[0]
    at_most(call, 3)
    found = options(call, 2, _UPDATE_OPTIONS)
    return _change(
        statement,
        criterion(required(call, 0, "a criterion")),
        required(call, 1, "a change"),
        multi=call.name == "updateMany",
        upsert=flag(found, "upsert"),
        array_filters=_array_filters(found),
        sort=sort_of(found.get("sort", {})),
    )


def _replace_one(statement: Statement) -> Plan:
    call = statement.calls[0]
    at_most(call, 3)
    found = options(call, 2, _UPDATE_OPTIONS)
    return _replacement(
        statement,
        criterion(required(call, 0, "a criterion")),
        required(call, 1, "the new instance"),
        upsert=flag(found, "upsert"),
        sort=sort_of(found.get("sort", {})),
    )


def _find_one_and(statement: Statement) -> Plan:
    """findOneAndUpdate, findOneAndReplace, findOneAndDelete: answer the instance as it was, or as it is after."""
    call = statement.calls[0]
    is_delete = call.name == "findOneAndDelete"
    found = options(call, 1 if is_delete else 2, _FIND_AND_OPTIONS)
    shared: dict[str, Any] = {"sort": sort_of(found.get("sort") or {}), "projection": _projection(found)}
    filter_ = criterion(required(call, 0, "a criterion"))
    if is_delete:
        return Delete(statement.collection, filter_, multi=False, returns="before", **shared)
    shared |= {"upsert": flag(found, "upsert"), "returns": _returned(found)}
    change = required(call, 1, "a change")
    if call.name == "findOneAndReplace":
        return _replacement(statement, filter_, change, **shared)
    return _change(statement, filter_, change, multi=False, array_filters=_array_filters(found), **shared)


def _find_and_modify(statement: Statement) -> Plan:
    call = statement.calls[0]
    found = options(call, 0, _FIND_AND_MODIFY_KEYS)
    filter_ = criterion(found.get("query") or {})
    shared: dict[str, Any] = {"sort": sort_of(found.get("sort") or {}), "projection": _projection(found)}
    if flag(found, "remove"):
        return Delete(statement.collection, filter_, multi=False, returns="before", **shared)
    if found.get("update") is None:
        raise QuerySyntaxError("findAndModify() needs update or remove: true.")
    shared |= {"upsert": flag(found, "upsert"), "returns": "after" if flag(found, "new") else "before"}
    if _is_replacement(found["update"]):
        return _replacement(statement, filter_, found["update"], **shared)
    return _change(statement, filter_, found["update"], multi=False, array_filters=_array_filters(found), **shared)


def _remove(statement: Statement) -> Plan:
    """``remove(q)``, ``remove(q, justOne)`` and ``remove(q, {justOne: true})``: all matches, or the first."""
    call = statement.calls[0]
    at_most(call, 2)
    filter_ = criterion(required(call, 0, "a criterion; {} stands for every instance"))
    second = optional(call, 1, False)
    just_one = flag(
        options(call, 1, frozenset({"justOne"})) if isinstance(second, dict) else {"justOne": second}, "justOne"
    )
    return Delete(statement.collection, filter_, multi=not just_one)


def _delete(statement: Statement) -> Plan:
    call = statement.calls[0]
    at_most(call, 2)
    options(call, 1, frozenset())
    filter_ = criterion(required(call, 0, "a criterion; {} stands for every instance"))
    return Delete(statement.collection, filter_, multi=call.name == "deleteMany")


def _change(statement: Statement, filter_: Filter, change: Any, *, multi: bool, **more: Any) -> Update:
    if isinstance(change, list):
        return Update(statement.collection, filter_, list(pipeline_of(change)), multi, **more)
    operators = document(change, "The change")
    refuse_javascript(operators)
    if not operators or not all(key.startswith("$") for key in operators):
        raise QuerySyntaxError(
            "The change takes operators such as {$set: {...}}; a whole instance goes to replaceOne()."
        )
    for operator, fields in operators.items():
        document(fields, f"The content of {operator}")
    return Update(statement.collection, filter_, operators, multi, **more)


def _replacement(statement: Statement, filter_: Filter, instance: Any, **more: Any) -> Update:
    """The instance without ``_id`` and ``contextData``: those of the stored one stay."""
    fields = document(instance, "The new instance")
    if any(key.startswith("$") for key in fields):
        raise QuerySyntaxError("A new instance has fields, not operators; use update() or updateOne() for operators.")
    kept = {key: value for key, value in fields.items() if key not in _FIXED_FIELDS}
    return Update(statement.collection, filter_, kept, multi=False, replace_root=True, **more)


def _is_replacement(change: Any) -> bool:
    return isinstance(change, dict) and not any(key.startswith("$") for key in change)


def flag(found: dict[str, Any], name: str) -> bool:
    """An option that is true or false; 1 and 0 are accepted, as in the shell."""
    value = found.get(name)
    if value is None:
        return False
    if not isinstance(value, bool | int | float):
        raise QuerySyntaxError(f"{name} takes true or false, not {type_in_words(value)}.")
    return bool(value)


def _array_filters(found: dict[str, Any]) -> tuple[Filter, ...]:
    filters = found.get("arrayFilters") or []
    if not isinstance(filters, list):
        raise QuerySyntaxError("arrayFilters takes a list of criteria.")
    return tuple(criterion(each) for each in filters)


def _projection(found: dict[str, Any]) -> dict[str, Any] | None:
    return document(found.get("projection") or found.get("fields") or {}, "The projection") or None


def _returned(found: dict[str, Any]) -> Returned:
    is_after = (
        flag(found, "returnNewDocument")
        or found.get("returnDocument") == "after"
        or found.get("returnOriginal") is False
    )
    return "after" if is_after else "before"


def _single(planner: Callable[[Statement], Plan]) -> Callable[[Statement], Plan]:
    def plan(statement: Statement) -> Plan:
        refuse_more(statement.calls[0], statement.calls[1:])
        return planner(statement)

    return plan


PLANNERS: dict[str, Callable[[Statement], Plan]] = {
    name: _single(planner)
    for name, planner in {
        "insert": _insert,
        "insertOne": _insert,
        "insertMany": _insert,
        "save": _save,
        "update": _update,
        "updateOne": _update_one,
        "updateMany": _update_one,
        "replaceOne": _replace_one,
        "findOneAndUpdate": _find_one_and,
        "findOneAndReplace": _find_one_and,
        "findOneAndDelete": _find_one_and,
        "findAndModify": _find_and_modify,
        "remove": _remove,
        "deleteOne": _delete,
        "deleteMany": _delete,
    }.items()
}
