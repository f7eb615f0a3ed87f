"""What a process is told: the predefined ones, and its options read and checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from sib.cron import parse_schedule
from sib.errors import ConfigurationError, SibError
from sib.query.budget import Context
from sib.query.pipeline import compile_document_pipeline
from storage.bdc.processes import ProcessKind, ProcessRecord
from storage.bdh.groups import DAY_S, FUNCTIONS, GroupBy

PREDEFINED = (
    ProcessRecord("transfer", ProcessKind.TRANSFER, schedule="0 2 * * *"),
    ProcessRecord("clean", ProcessKind.CLEAN, schedule="7 * * * *"),
    ProcessRecord("compact", ProcessKind.COMPACT, schedule="0 4 * * *"),
)
"""These are always there; a definition of the same name changes their schedule, options, or whether they are active."""
PROCESSES_MAX = 500
LINES_KEPT_S = 30 * DAY_S
AUDITS_KEPT_S = 365 * DAY_S
STAGES_MAX = 50
GROUP_SECONDS_MIN = 1


class Action(StrEnum):
    """What a transfer does with instances that are older than the window."""

    MOVE = "move"
    DELETE = "delete"


class LoadFormat(StrEnum):
    """The formats of files that can be loaded."""

    CSV = "csv"
    JSON = "json"
    EXCEL = "xlsx"


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """How the old instances of one ontology are treated. ``prepare``: stages of a pipeline that reshapes each of them."""

    action: Action = Action.MOVE
    group: GroupBy | None = None
    prepare: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class CleanOptions:
    """How long lines of the process log are kept."""

    lines_kept_s: float = LINES_KEPT_S
    audits_kept_s: float = AUDITS_KEPT_S


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """A file to load, and on whose behalf ("" for the ontology's owner)."""

    file: str
    format: LoadFormat
    user: str = ""


_KEYS: dict[ProcessKind, frozenset[str]] = {
    ProcessKind.TRANSFER: frozenset({"action", "group", "prepare"}),
    ProcessKind.CLEAN: frozenset({"keep_log_s", "keep_audit_s"}),
    ProcessKind.COMPACT: frozenset(),
    ProcessKind.LOAD: frozenset({"file", "format", "user"}),
}


def all_processes(defined: Iterable[ProcessRecord]) -> dict[str, ProcessRecord]:
    """The predefined processes and those that were defined, by name."""
    return {record.name: record for record in (*PREDEFINED, *defined)}


def transfer_of(processes: Mapping[str, ProcessRecord], ontology: str) -> ProcessRecord | None:
    """The ontology's own transfer, if one was defined: it says how its instances are treated whoever starts it."""
    found = (each for each in processes.values() if each.kind is ProcessKind.TRANSFER and each.ontology == ontology)
    return next(found, None)


def check(record: ProcessRecord) -> None:
    """Refuse a definition that cannot work.

    Raises:
        ConfigurationError: what is wrong.
    """
    if ":" in record.name:
        raise ConfigurationError("The name of a process has no colon.")
    predefined = next((each for each in PREDEFINED if each.name == record.name), None)
    if predefined is not None and (predefined.kind, "") != (record.kind, record.ontology):
        raise ConfigurationError(
            f"The process {record.name!r} is predefined: it is a {predefined.kind} of all ontologies. Choose another name."
        )
    if record.schedule:
        parse_schedule(record.schedule)
    unknown = sorted(set(record.options) - _KEYS[record.kind])
    if unknown:
        raise ConfigurationError(f"A process of the type {record.kind} has no {unknown[0]!r}.")
    if record.kind is ProcessKind.TRANSFER:
        if record.options and not record.ontology:
            raise ConfigurationError("action, group and prepare are of one ontology: say which with ontology:")
        transfer_options(record)
    elif record.kind is ProcessKind.CLEAN:
        clean_options(record)
    elif record.kind is ProcessKind.LOAD:
        load_options(record)


def transfer_options(record: ProcessRecord | None) -> TransferOptions:
    """The options of a transfer.

    Raises:
        ConfigurationError: what is wrong.
    """
    if record is None:
        return TransferOptions()
    options = record.options
    action = _one_of(Action, options.get("action", Action.MOVE), "action")
    group = None if options.get("group") is None else _group(options["group"])
    prepare = options.get("prepare") or ()
    if action is Action.DELETE and (group is not None or prepare):
        raise ConfigurationError(
            "What is deleted is neither grouped nor prepared: leave action: delete or the others out."
        )
    if prepare:
        if not isinstance(prepare, list | tuple) or len(prepare) > STAGES_MAX:
            raise ConfigurationError(f"prepare is a list of at most {STAGES_MAX} stages such as {{$set: …}}.")
        try:
            compile_document_pipeline(list(prepare), Context(None, datetime(1970, 1, 1)))
        except SibError as error:
            raise ConfigurationError(f"prepare: {error.message}") from None
    return TransferOptions(action, group, tuple(prepare))


def clean_options(record: ProcessRecord) -> CleanOptions:
    """The options of a cleaning."""
    kept = [record.options.get("keep_log_s", LINES_KEPT_S), record.options.get("keep_audit_s", AUDITS_KEPT_S)]
    if not all(isinstance(seconds, int | float) and seconds > 0 for seconds in kept):
        raise ConfigurationError("How long lines are kept is a duration above 0.")
    return CleanOptions(*kept)


def load_options(record: ProcessRecord) -> LoadOptions:
    """The options of a load.

    Raises:
        ConfigurationError: what is missing.
    """
    options = record.options
    if not record.ontology or not options.get("file"):
        raise ConfigurationError("A load needs an ontology and a file.")
    path = str(options["file"])
    if not Path(path).is_absolute():
        raise ConfigurationError(f"The file of a load is named by its whole path, not {path!r}.")
    return LoadOptions(path, format_of(path, options.get("format")), str(options.get("user") or ""))


def format_of(path: str, told: str | None) -> LoadFormat:
    """The format of a file: as told, else by the end of its name.

    Raises:
        ConfigurationError: it is not known.
    """
    ending = (told or Path(path).suffix.removeprefix(".")).lower()
    ending = {"txt": "csv", "tsv": "csv", "jsonl": "json", "ndjson": "json", "excel": "xlsx"}.get(ending, ending)
    found: LoadFormat = _one_of(LoadFormat, ending, "format")
    return found


def _group(given: Any) -> GroupBy:
    if not isinstance(given, Mapping) or not isinstance(given.get("every_s"), int):
        raise ConfigurationError("group needs the length of its periods: group: {every: 1h, …}.")
    every_s, by, values = given["every_s"], given.get("by") or (), given.get("values") or {}
    if every_s < GROUP_SECONDS_MIN or DAY_S % every_s:
        raise ConfigurationError("The periods of a group divide a day: for example 1m, 15m, 1h, 6h or 1d.")
    for function in values.values():
        if function not in FUNCTIONS:
            raise ConfigurationError(f"The values of a group become one by {', '.join(FUNCTIONS)}, not {function!r}.")
    if any(path.split(".")[0] in ("_id", "contextData") for path in values):
        raise ConfigurationError("_id and contextData of a group are the platform's: they cannot be among its values.")
    return GroupBy(every_s, tuple(by), dict(values))


def _one_of(choices: Any, given: Any, what: str) -> Any:
    try:
        return choices(given)
    except ValueError:
        raise ConfigurationError(f"{what} is one of {', '.join(choices)}, not {str(given)[:40]!r}.") from None
