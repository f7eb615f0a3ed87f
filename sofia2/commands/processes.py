"""``sofia2 process``: what the platform does by itself, and by hand."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sofia2.commands.options import (
    Config,
    Data,
    Json,
    compact,
    configuration,
    folder_of,
    in_force,
    platform_config,
    settings_of,
)
from sofia2.console import NO, TAKEN, TIMED_OUT, WRONG_INPUT, CliError, output

if TYPE_CHECKING:
    from sofia2.settings import Settings
    from storage.bdc.bdc import Bdc
    from storage.bdc.processes import LoadRecord, ProcessRecord

app = typer.Typer(
    help="Processes: transfers to the history, cleaning, compaction, loads of files.", no_args_is_help=True
)

POLL_S = 0.2
LOADS_SHOWN = 100
LOG_LINES_READ_MAX = 100_000

Name = Annotated[str, typer.Argument(metavar="NAME", help="The process: see 'sofia2 process list'.")]
OntologyName = Annotated[str | None, typer.Option("--ontology", metavar="NAME", help="Only this ontology.")]


@app.command(name="list")
def list_(data: Data = None, config: Config = None, json: Json = False) -> int:
    """List the processes: when each runs next, and what became of its last run."""
    settings = settings_of(data, config)
    with configuration(settings) as bdc:
        processes = _all(bdc)
        progress = bdc.processes.progress()
    value = []
    for name, process in sorted(processes.items()):
        known = progress.get(name)
        detail = {} if known is None else known.detail
        value.append(
            {
                "name": name,
                "type": process.kind.value,
                "ontology": process.ontology or None,
                "schedule": process.schedule or None,
                "active": process.active,
                "paused": known is not None and known.is_paused,
                "next": known and known.next_at and known.next_at.isoformat(),
                "state": known and known.run_state and known.run_state.value,
                "last": detail.get("ended_at") or detail.get("started_at"),
                "counts": detail.get("counts") or {},
                "error": detail.get("error"),
                "options": dict(process.options),
            }
        )
    columns = ("name", "type", "ontology", "schedule", "active", "paused", "next", "state", "last")
    output.table(value, columns, ([row[column] for column in columns] for row in value))
    return 0


@app.command()
def run(name: Name, ontology: OntologyName = None, data: Data = None, config: Config = None, json: Json = False) -> int:
    """Run a process now, in the foreground, whether the platform runs or not. Exit 3: it runs already.

    It may be killed at any moment: what it did is whole, and the next run goes on from there.
    """
    from actors.processes.jobs import Jobs
    from actors.processes.runs import BY_HAND, ProcessRunningError, Runs, locks_folder
    from storage.bdc.processes import ProcessKind
    from storage.bdh.lock import TransferRunningError

    settings = settings_of(data, config)
    with configuration(settings) as bdc:
        process = _find(bdc, name)
        if ontology is not None:
            _check_ontology(bdc, process, ontology)
        if process.kind is ProcessKind.LOAD:
            return _run_there(settings, bdc, process)
        platform = platform_config(settings)
        runs = Runs(bdc, locks_folder(platform.data), now=_utc_now)
        try:
            with (
                output.busy(f"{name} …") as busy,
                runs.run(name, process.kind, BY_HAND, ontology=ontology or "") as begun,
            ):
                began = time.monotonic()
                jobs = Jobs(platform, bdc, now=_utc_now, progress=busy.update)
                jobs.run(process, begun.counts, ontology=ontology or "")
        except (ProcessRunningError, TransferRunningError) as error:
            raise CliError(TAKEN, error.message) from None
    duration_s = round(time.monotonic() - began, 3)
    value = {"process": name, "ontology": ontology or process.ontology or None, "state": "done", "run": begun.id}
    _tell({**value, "duration_s": duration_s, "counts": begun.counts})
    return 0


@app.command()
def adopt(
    ontology: OntologyName = None,
    forget_missing: Annotated[
        bool, typer.Option("--forget-missing", help="The manifest no longer names files that are not there.")
    ] = False,
    data: Data = None,
    config: Config = None,
    json: Json = False,
) -> int:
    """Enter files of the history that the manifest does not know into it: after a BDC was restored from an older backup.

    Each instance counts once, whichever files and databases have it. Exit 1: files that the manifest names are missing, or
    some are damaged. May be run again.
    """
    from actors.processes.jobs import Jobs
    from actors.processes.runs import BY_HAND, ProcessRunningError, Runs, locks_folder
    from storage.bdc.processes import ProcessKind
    from storage.bdh.lock import TransferRunningError

    settings = settings_of(data, config)
    with configuration(settings) as bdc:
        platform = platform_config(settings)
        runs = Runs(bdc, locks_folder(platform.data), now=_utc_now)
        name = ontology or ""
        try:
            with (
                output.busy("adopt …") as busy,
                runs.run("adopt", ProcessKind.COMPACT, BY_HAND, ontology=name, has_state=False) as begun,
            ):
                began = time.monotonic()
                jobs = Jobs(platform, bdc, now=_utc_now, progress=busy.update)
                jobs.adopt(name, begun.counts, forget_missing=forget_missing)
        except (ProcessRunningError, TransferRunningError) as error:
            raise CliError(TAKEN, error.message) from None
    counts = begun.counts
    value = {"process": "adopt", "ontology": ontology, "state": "done", "run": begun.id}
    _tell({**value, "duration_s": round(time.monotonic() - began, 3), "counts": counts})
    return NO if counts.get("missing", 0) > counts.get("forgotten", 0) or counts.get("damaged") else 0


@app.command()
def pause(name: Name, data: Data = None, config: Config = None, json: Json = False) -> int:
    """Keep a process from starting by itself. A run that is under way goes on."""
    with configuration(settings_of(data, config)) as bdc:
        _find(bdc, name)
        bdc.processes.pause(name, True)
    output.result({"process": name, "paused": True}, [f"process {name}: paused"])
    return 0


@app.command()
def resume(name: Name, data: Data = None, config: Config = None, json: Json = False) -> int:
    """Let a process start by itself again, from its next time on."""
    with configuration(settings_of(data, config)) as bdc:
        process = _find(bdc, name)
        bdc.processes.plan(name, process.schedule, None)
        bdc.processes.pause(name, False)
    output.result({"process": name, "paused": False}, [f"process {name}: resumed"])
    return 0


@app.command()
def remove(name: Name, data: Data = None, config: Config = None, json: Json = False) -> int:
    """Forget a process that was defined; a predefined one is as it was in the beginning then."""
    settings = settings_of(data, config)
    with configuration(settings, for_change=True) as bdc:
        with bdc.change() as snapshot:
            snapshot.processes.delete(name)
            snapshot.audit(f"process {name}: removed")
        version = bdc.config_version()
    in_force(settings, version)
    output.result({"process": name, "removed": True}, [f"process {name}: removed"])
    return 0


@app.command(name="log")
def log_(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only this process.")] = None,
    state: Annotated[
        str | None, typer.Option(metavar="STATE", help="Only runs that ended so: done, failed, interrupted.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The newest so many runs.")] = 50,
    data: Data = None,
    config: Config = None,
    json: Json = False,
) -> int:
    """Show the runs, newest first: what started each, how long it took, what it did, and why it failed."""
    from actors.processes.runs import LOG_KIND

    with configuration(settings_of(data, config)) as bdc:
        lines = bdc.read_log(limit if name is None and state is None else LOG_LINES_READ_MAX, kind=LOG_KIND)
    found = [line.details for line in lines if isinstance(line.details, dict)]
    chosen = [
        detail for detail in found if name in (None, detail.get("process")) and state in (None, detail.get("state"))
    ][:limit]
    columns = ("started_at", "process", "ontology", "trigger", "state", "duration_s", "counts", "error")
    rows = ([_cell(detail.get(column)) for column in columns] for detail in chosen)
    output.table(chosen, columns, rows)
    return 0


@app.command()
def load(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A CSV, JSON or Excel (.xlsx) file.")],
    ontology: Annotated[str, typer.Option("--ontology", metavar="NAME", help="Where its rows become instances.")],
    user: Annotated[
        str | None, typer.Option(metavar="USER", help="Who inserts them. Default: the ontology's owner.")
    ] = None,
    format_: Annotated[
        str | None, typer.Option("--format", metavar="FORMAT", help="csv, json or xlsx. Default: by the file's name.")
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Also if this file was loaded before.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return when it is loaded, or at once.")] = True,
    timeout: Annotated[float, typer.Option(metavar="S", help="How long to wait; the load goes on.")] = 3600.0,
    data: Data = None,
    config: Config = None,
    json: Json = False,
) -> int:
    """Load a file into an ontology of a running platform. Exit 0: every row is stored, 1: some were rejected.

    Each row is checked as an INSERT is. What is rejected goes to a file, with the reasons. Tables begin with a row of names.
    """
    settings = settings_of(data, config)
    path = str(Path(file).expanduser().absolute())
    with configuration(settings) as bdc:
        begun = _call(settings, "load", path, ontology, user or "", format_, again)
        if begun["was_loaded"]:
            output.warn("this file was loaded before, so there was nothing to do; --again loads it as new instances")
        if wait and not begun["was_loaded"]:
            begun = _until_loaded(bdc, begun["load"], timeout)
    _tell_load(begun)
    if begun["state"] == "failed":
        return output.fail(NO, begun["error"])
    return NO if begun["rejected"] else 0


@app.command()
def loads(data: Data = None, config: Config = None, json: Json = False) -> int:
    """List the loads of files, newest first."""
    from actors.processes.loads import as_json

    with configuration(settings_of(data, config)) as bdc:
        value = [as_json(record) for record in bdc.processes.loads(LOADS_SHOWN)]
    columns = ("load", "file", "ontology", "user", "state", "rows", "stored", "rejected", "started_at", "error")
    output.table(value, columns, ([row[column] for column in columns] for row in value))
    return 0


def _all(bdc: Bdc) -> dict[str, ProcessRecord]:
    from actors.processes.definitions import all_processes

    with bdc.read() as snapshot:
        return all_processes(snapshot.processes.all())


def _find(bdc: Bdc, name: str) -> ProcessRecord:
    found = _all(bdc).get(name)
    if found is None:
        raise CliError(NO, f"there is no process {name!r}: see what there is with 'sofia2 process list'")
    return found


def _check_ontology(bdc: Bdc, process: ProcessRecord, ontology: str) -> None:
    if process.ontology not in ("", ontology):
        raise CliError(WRONG_INPUT, f"the process {process.name} is of the ontology {process.ontology}")
    if process.kind.value not in ("transfer", "compact"):
        raise CliError(WRONG_INPUT, f"a process of the type {process.kind} is of no ontology: leave --ontology out")
    with bdc.read() as snapshot:
        if snapshot.ontologies.get(ontology) is None:
            raise CliError(NO, f"there is no ontology {ontology!r}: see what there is with 'sofia2 ontology list'")


def _run_there(settings: Settings, bdc: Bdc, process: ProcessRecord) -> int:
    """A load is of the running platform: it inserts as a KP does."""
    from actors.processes.definitions import load_options

    options = load_options(process)
    begun = _call(settings, "load", options.file, process.ontology, options.user, options.format.value)
    if not begun["was_loaded"]:
        begun = _until_loaded(bdc, begun["load"], 3600.0)
    _tell_load(begun)
    if begun["state"] == "failed":
        return output.fail(NO, begun["error"])
    return 0


def _call(settings: Settings, method: str, *arguments: Any) -> Any:
    from sofia2.control import call

    folder = folder_of(settings)
    if folder.running() is None:
        raise CliError(NO, f"no platform runs on {settings.data}: start it with sofia2 start --modules sib,process")
    runners = platform_config(settings).topology.process_runners
    if not runners:
        raise CliError(WRONG_INPUT, "the platform runs without the module process: start it with --modules sib,process")
    return call(folder, runners[0], method, *arguments)


def _until_loaded(bdc: Bdc, number: int, timeout_s: float) -> dict[str, Any]:
    from actors.processes.loads import as_json

    deadline = time.monotonic() + timeout_s
    with output.busy("loading …") as busy:
        while True:
            record: LoadRecord = bdc.processes.load(number)
            if record.state.value != "loading":
                return as_json(record)
            if time.monotonic() > deadline:
                raise CliError(TIMED_OUT, f"the load {number} goes on: see 'sofia2 process loads'", **as_json(record))
            busy.update(f"{record.n_done} rows, {record.n_rejected} rejected")
            time.sleep(POLL_S)


def _tell(value: Mapping[str, Any]) -> None:
    counts = ", ".join(f"{key.replace('_', ' ')} {count}" for key, count in value["counts"].items())
    output.result(
        value, [f"process {value['process']}: done in {value['duration_s']:g} s{': ' if counts else ''}{counts}"]
    )


def _tell_load(value: Mapping[str, Any]) -> None:
    lines = [f"load {value['load']}: {value['state']}, {value['stored']} stored, {value['rejected']} rejected"]
    if value["reject_file"]:
        lines.append(f"rejected rows: {value['reject_file']}")
    output.result(value, lines)


def _cell(value: Any) -> Any:
    return compact(value) if isinstance(value, dict) and value else value or None


def _utc_now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
