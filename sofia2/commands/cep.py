"""``sofia2 cep``: rules over files and over what was stored, and the deployed ones."""

from __future__ import annotations

import json as json_module
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sofia2.commands import objects
from sofia2.commands.options import Config, Data, Json, folder_of, platform_config, settings_of
from sofia2.console import DONE, WRONG_INPUT, CliError, output

if TYPE_CHECKING:
    from sib.cep.definitions import CepRule
    from sofia2.backtest import Label, Report, Score
    from sofia2.settings import Settings
    from storage.bdc.configuration import Configuration

app = typer.Typer(help="CEP: check rules, run them over files or over what was stored.", no_args_is_help=True)

_ON_ITS_OWN = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
LABELS_BYTES_MAX = 64 << 20
SHOWN = 50

Name = Annotated[str, typer.Argument(metavar="NAME", help="The rule's name, case-sensitive.")]

Changed = Annotated[
    str | None,
    typer.Option(
        "--file", metavar="FILE", help="An applied file with the rule RULE as it shall be; nothing is applied."
    ),
]
Since = Annotated[str, typer.Option(metavar="WHEN", help="A date and time in UTC, or how long ago, such as '7 days'.")]
Until = Annotated[str | None, typer.Option(metavar="WHEN", help="The same; default: now.")]


@app.command(add_help_option=False, context_settings=_ON_ITS_OWN)
def check(context: typer.Context) -> int:
    """Check a file of rules, without a platform: cep check FILE."""
    from sofia2.cep import main

    return main(["check", *context.args])


@app.command(add_help_option=False, context_settings=_ON_ITS_OWN)
def run(context: typer.Context) -> int:
    """Run rules over a file of events, without a platform: cep run RULES --events FILE.jsonl."""
    from sofia2.cep import main

    return main(["run", *context.args])


@app.command(name="list")
def list_(data: Data = None, config: Config = None, json: Json = False) -> int:
    """List the deployed rules: whose they are, what they insert into, and what is wrong with them."""
    settings = settings_of(data, config)
    rules = objects.read(settings, lambda snapshot: snapshot.cep_rules.all())
    states = _states(settings)
    value = [_listed(rule, states.get(rule.name, {"state": "stopped"})) for rule in rules]
    columns = ("name", "owner", "active", "version", "into", "state", "problem")
    output.table(value, columns, ([each[key] for key in columns] for each in value))
    return DONE


def _states(settings: Settings) -> dict[str, dict[str, Any]]:
    """How the rules of a running platform do: what each holds and has dropped, or why it does not run."""
    from sib.errors import SibError
    from sofia2.control import call

    found: dict[str, dict[str, Any]] = {}
    if folder_of(settings).running():
        for shard in platform_config(settings).topology.cep_shards:
            try:
                found |= call(folder_of(settings), shard, "rules")
            except SibError as error:
                output.warn(f"{shard} does not answer: {error.message}")
    return found


def _listed(rule: CepRule, state: dict[str, Any]) -> dict[str, Any]:
    from sib.cep.definitions import problems_of

    problems = problems_of(rule)
    into = "" if problems else rule.parse().target
    listed = {"name": rule.name, "owner": rule.owner, "active": rule.active, "version": rule.version}
    problem = "; ".join(problems) or state.get("reason", "")
    counts = {what: count for what, count in state.items() if what not in ("state", "reason")}
    return {**listed, "into": into, "problem": problem, "state": state["state"] if rule.active else "off", **counts}


@app.command()
def pause(name: Name, data: Data = None, config: Config = None, json: Json = False) -> int:
    """Turn a rule off: it follows nothing, and its windows are forgotten."""
    return _turn(settings_of(data, config), name, active=False)


@app.command()
def resume(name: Name, data: Data = None, config: Config = None, json: Json = False) -> int:
    """Turn a rule on again; it begins empty."""
    return _turn(settings_of(data, config), name, active=True)


def _turn(settings: Settings, name: str, *, active: bool) -> int:
    report = objects.declare(settings, "cep_rules", {"name": name, "active": active}, is_new=False)
    objects.tell(report, active=active)
    return DONE


@app.command()
def remove(
    name: Name,
    event: Annotated[bool, typer.Option("--event", help="NAME is a CEP event, not a rule.")] = False,
    data: Data = None,
    config: Config = None,
    json: Json = False,
) -> int:
    """Delete a rule, or with --event an event that no rule reads."""
    settings = settings_of(data, config)
    if event:
        objects.remove(settings, "cep_events", name, lambda snapshot: _remove_event(snapshot, name))
    else:
        objects.remove(settings, "cep_rules", name, lambda snapshot: snapshot.cep_rules.delete(name))
    return DONE


def _remove_event(snapshot: Configuration, name: str) -> None:
    from sib.cep.definitions import problems_of, streams_of

    for rule in snapshot.cep_rules.all():
        if not problems_of(rule) and name.casefold() in streams_of(rule.parse()):
            raise CliError(WRONG_INPUT, f"the CEP rule {rule.name!r} reads {name!r}: change or remove it first")
    snapshot.cep_events.delete(name)


@app.command()
def backtest(
    rule: Annotated[
        str, typer.Argument(metavar="RULE", help="A deployed rule, or a file of rules; - reads the input.")
    ],
    file: Changed = None,
    since: Since = "30 days",
    until: Until = None,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="What should have been alarmed, a JSON object a line: ts (or since, until), data."
        ),
    ] = None,
    tolerance: Annotated[
        str, typer.Option(metavar="DURATION", help="How far an alarm may lie from its label.")
    ] = "1 min",
    data: Data = None,
    config: Config = None,
    json: Json = False,
) -> int:
    """Run a rule over the stored instances, real time and history, without actions, and list its alarms."""
    from sofia2 import backtest as testing
    from sofia2.apply import planned
    from sofia2.bdh import open_history

    first, last = period(since, until)
    tolerance_ms = _duration_ms(tolerance)
    wanted = _labels(labels) if labels is not None else None
    with open_history(config or data, None) as history:
        if file is not None:
            chosen = [planned(history.bdc, file, "cep_rules", rule)]
        elif rule == "-" or Path(rule).is_file():
            chosen = testing.rules_of_text(objects.read_text(rule), "")
        else:
            chosen = testing.chosen_rules(history, rule)
        report = testing.backtest(history, chosen, first, last)
    score = testing.score(report.alarms, wanted, tolerance_ms) if wanted is not None else None
    value = _value(rule, first, last, report, score)
    output.result(value, _lines(value))
    return DONE


def _value(rule: str, since: datetime, until: datetime, report: Report, score: Score | None) -> dict[str, Any]:
    value: dict[str, Any] = {
        "rule": rule,
        "since": f"{since.isoformat(timespec='milliseconds')}Z",
        "until": f"{until.isoformat(timespec='milliseconds')}Z",
        "events": report.events,
        "seconds": round(report.seconds, 3),
        "count": report.count,
        "alarms": [{"id": alarm.alarm_id, **alarm.as_dict()} for alarm in report.alarms],
        "dropped": report.dropped,
    }
    if score is not None:
        value |= {
            "precision": score.precision,
            "recall": score.recall,
            "right": score.right,
            "wrong": score.wrong,
            "found": score.found,
            "missed": [
                {"since": label.since_ms, "until": label.until_ms, "data": dict(label.data)} for label in score.missed
            ],
        }
    return value


def _lines(value: dict[str, Any]) -> list[str]:
    lines = [f"{value['rule']}: {value['events']} events in {value['seconds']:g} s, {value['count']} alarms"]
    lines += [
        f"{printed(alarm['ts'])}  {alarm['stream']}  {json_module.dumps(alarm['data'], default=str)}"
        for alarm in value["alarms"][:SHOWN]
    ]
    if value["count"] > SHOWN:
        lines.append(f"… and {value['count'] - SHOWN} more: --json lists them")
    lines += [f"rule {rule} dropped: {counts}" for rule, counts in value["dropped"].items()]
    if "precision" in value:
        lines.append(
            f"precision {_share(value['precision'])} ({value['right']} right, {value['wrong']} wrong), "
            f"recall {_share(value['recall'])} ({value['found']} found, {len(value['missed'])} missed)"
        )
        lines += [f"missed: {printed(label['since'])} {label['data'] or ''}" for label in value["missed"][:SHOWN]]
    return lines


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def printed(ts_ms: int) -> str:
    """A moment for people."""
    moment = datetime(1970, 1, 1) + timedelta(milliseconds=ts_ms)
    return f"{moment.isoformat(timespec='milliseconds')}Z"


def period(since: str, until: str | None) -> tuple[datetime, datetime]:
    """The times that options name, UTC without a zone: dates, or how long ago."""
    now = datetime.now(UTC).replace(tzinfo=None)
    first, last = _moment(since, now), _moment(until, now) if until else now
    if first >= last:
        raise CliError(WRONG_INPUT, "--since must lie before --until")
    return first, last


def _moment(text: str, now: datetime) -> datetime:
    """A moment, UTC without a zone."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return now - timedelta(milliseconds=_duration_ms(text))
    return moment if moment.tzinfo is None else moment.astimezone(UTC).replace(tzinfo=None)


def _duration_ms(text: str) -> int:
    from sib.cep.language.durations import parse_duration_ms

    try:
        return parse_duration_ms(text)
    except ValueError:
        what = f"{text!r} is neither a date such as 2026-01-31T12:00 nor a duration such as '10 min'"
        raise CliError(WRONG_INPUT, what) from None


def _labels(file: str) -> list[Label]:
    from sofia2.backtest import read_label

    found = []
    for number, line in enumerate(objects.read_text(file, bytes_max=LABELS_BYTES_MAX).splitlines(), 1):
        if line.strip():
            try:
                found.append(read_label(json_module.loads(line)))
            except (ValueError, TypeError) as error:
                raise CliError(WRONG_INPUT, f"{file}:{number}: {error}") from None
    return found
