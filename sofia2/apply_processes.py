"""The section ``processes`` of the applied file: what the platform does by itself, when, and how.

processes:
- {name: transfer, schedule: "30 1 * * *"}            # a predefined one at another time
- name: hourly-means
type: transfer
ontology: SensorTemperatura
schedule: "@hourly"                                # without one it runs with the others, each night
group: {every: 1h, by: [Sensor.assetId], values: {Sensor.measure: avg}}
prepare: [{$set: {Sensor.unit: C}}]
- {name: forget-logs, type: transfer, ontology: Log, action: delete}
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import Any

from actors.processes.definitions import (
    PREDEFINED,
    PROCESSES_MAX,
    Action,
    LoadFormat,
    check,
)
from sib.errors import ConfigurationError, SibError
from sib.ontology import Ontology, compile_ontology
from sofia2.applyfile import Declared, Section, read_ontology_name, read_user_name
from sofia2.applysections import Extension, Planning
from sofia2.export import window_text
from sofia2.filereaders import (
    choice_reader,
    list_reader,
    map_reader,
    name_reader,
    nullable,
    read_flag,
    read_free_map,
    read_object,
    read_optional_text,
    read_text,
    read_window,
)
from sofia2.yamlnodes import Node
from storage.bdc.processes import ProcessKind, ProcessRecord
from storage.bdc.types import NAME_CHARS_MAX


class GroupFunction(StrEnum):
    """How the values of a group become one."""

    AVG = "avg"
    SUM = "sum"
    MIN = "min"
    MAX = "max"
    FIRST = "first"
    LAST = "last"
    COUNT = "count"


def _read_group(node: Node) -> dict[str, Any]:
    given = read_object(
        node,
        {
            "every": read_window,
            "by": list_reader(read_text),
            "values": map_reader(read_text, choice_reader(GroupFunction)),
        },
        required=("every",),
    )
    values = {str(path): function.value for path, function in given.get("values", {}).items()}
    return {"every_s": given["every"], "by": [str(path) for path in given.get("by", ())], "values": values}


_TEXTS = {"file": read_text, "user": read_user_name}
_OPTIONS = {
    "action": choice_reader(Action),
    "group": nullable(_read_group),
    "prepare": list_reader(read_free_map),
    "keep_log": read_window,
    "keep_audit": read_window,
    "format": choice_reader(LoadFormat),
    **_TEXTS,
}
_SECTION = Section(
    "processes",
    "process",
    "name",
    {
        "name": name_reader("the name of a process", forbidden=":", chars_max=NAME_CHARS_MAX),
        "type": choice_reader(ProcessKind),
        "ontology": nullable(read_ontology_name),
        "schedule": read_optional_text,
        "active": read_flag,
        **_OPTIONS,
    },
)
_SECONDS = {"keep_log": "keep_log_s", "keep_audit": "keep_audit_s"}
_PREDEFINED = {record.name: record for record in PREDEFINED}


def _plan(planning: Planning, declared: Declared) -> ProcessRecord | None:
    given = declared.given
    current = planning.configuration.processes.get(declared.name) or _PREDEFINED.get(declared.name)
    if current is None and not planning.require(declared, ("type",), "a new process needs a type."):
        return None
    changes: dict[str, Any] = {}
    if "ontology" in given:
        named = given["ontology"]
        changes["ontology"] = planning.known("ontologies", "ontology", named) if named is not None else ""
    if "type" in given:
        changes["kind"] = given["type"]
    if "schedule" in given:
        changes["schedule"] = str(given["schedule"])
    if "active" in given:
        changes["active"] = given["active"]
    if "user" in given:
        planning.known("users", "user", given["user"])
    options = {
        _SECONDS.get(key, key): _plain(key, given[key]) for key in _OPTIONS if key in given and given[key] is not None
    }
    cleared = {_SECONDS.get(key, key) for key in _OPTIONS if key in given and given[key] in (None, ())}
    kept = {} if current is None else {key: value for key, value in current.options.items() if key not in cleared}
    options = {key: value for key, value in {**kept, **options}.items() if value not in (None, [])}
    base = current or ProcessRecord(declared.name, given["type"])
    record = replace(base, **changes, options=options)
    try:
        record = _resolved(planning, record)
        check(record)
        _check_alone(planning, record)
    except SibError as error:
        planning.refuse(declared.line, error.message)
        return None
    return record


def _resolved(planning: Planning, record: ProcessRecord) -> ProcessRecord:
    """The paths of a group as stored documents have them: ``Sensor.measure`` for ``measure``."""
    group: Any = record.options.get("group")
    found = planning.ontology(record.ontology) if group and record.ontology else None
    if found is None:
        return record
    ontology = compile_ontology(found.name, found.schema_text)
    by = [_path(ontology, path) for path in group["by"]]
    values = {ontology.resolve_column(path): function for path, function in group["values"].items()}
    return replace(record, options={**record.options, "group": {**group, "by": by, "values": values}})


def _path(ontology: Ontology, path: str) -> str:
    return path if path.startswith("contextData.") else ontology.resolve_column(path)


def _check_alone(planning: Planning, record: ProcessRecord) -> None:
    """One transfer an ontology says how its instances are treated; and there are not too many processes."""
    others = [each for each in planning.configuration.processes.all() if each.name != record.name]
    if len(others) >= PROCESSES_MAX:
        raise ConfigurationError(f"There are {PROCESSES_MAX} processes already: remove some.")
    if record.kind is ProcessKind.TRANSFER and record.ontology:
        for other in others:
            if (other.kind, other.ontology) == (record.kind, record.ontology):
                raise ConfigurationError(
                    f"The transfer of {record.ontology!r} is {other.name!r} already: an ontology has one. Change that one."
                )


def _plain(key: str, value: Any) -> Any:
    if isinstance(value, StrEnum):
        return value.value
    if key in _TEXTS:
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _export(record: ProcessRecord) -> dict[str, Any]:
    exported: dict[str, Any] = {"name": record.name, "type": record.kind.value}
    if record.ontology:
        exported["ontology"] = record.ontology
    exported |= {"schedule": record.schedule, "active": record.active}
    for key, value in record.options.items():
        if key == "group":
            exported["group"] = {
                "every": window_text(value["every_s"]),
                "by": list(value["by"]),
                "values": dict(value["values"]),
            }
        elif key in _SECONDS.values():
            exported[key.removesuffix("_s")] = window_text(value)
        else:
            exported[key] = value
    return exported


def extension() -> Extension:
    """The section, for the registry."""
    return Extension(_SECTION, "processes", _plan, _export)
