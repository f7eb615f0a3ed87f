"""``sofia2 rule``: script rules, what they did, and what failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sofia2.commands import objects
from sofia2.commands.cep import Changed, Since, Until, period, printed
from sofia2.commands.options import Config, Data, Json, configuration, folder_of, platform_config, settings_of
from sofia2.console import DONE, NO, WRONG_INPUT, CliError, output

if TYPE_CHECKING:
    from sib.rules.rule import Rule
    from sofia2.settings import Settings

app = typer.Typer(help="Script rules: what they are, what they did, what failed.", no_args_is_help=True)

LOG_LINES = 20
LOG_LINES_READ = 20_000
REDRIVE_S = 600.0
TEST_S = 330.0
BACKTEST_SHOWN = 50

Name = Annotated[str, typer.Argument(metavar="NAME", help="The rule's name, case-sensitive.")]
OptionalName = Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only those of one rule.")]


@app.command(name="list")
def list_(data: Data = None, config: Config = None, json: Json = False) -> int:
    """List the rules and how each is doing."""
    settings = settings_of(data, config)
    rules = objects.read(settings, lambda snapshot: snapshot.rules.all())
    states = _states(settings, rules)
    with configuration(settings) as bdc:
        dead = bdc.rules.dead_letter_counts()
    value = [_listed(rule, states.get(rule.name, {}), dead.get(rule.name, 0)) for rule in rules]
    columns = ("name", "owner", "type", "of", "active", "state", "runs", "failures", "waiting", "dead letters")
    keys = ("name", "owner", "type", "of", "active", "state", "runs", "failures", "waiting", "dead_letters")
    output.table(value, columns, ([each.get(key) for key in keys] for each in value))
    return DONE


@app.command()
def show(name: Name, data: Data = None, config: Config = None, json: Json = False) -> int:
    """Show a rule as an applied file has it."""
    from sofia2.apply_rules import export_rule

    objects.show(export_rule(_require(settings_of(data, config), name)))
    return DONE


@app.command(name="test")
def try_(
    name: Name,
    instance: Annotated[
        str | None, typer.Option("--instance", metavar="FILE", help="A sample instance, JSON; - for standard input.")
    ] = None,
    cep_data: Annotated[
        str | None, typer.Option("--cep-data", metavar="FILE", help="A sample of cepData, JSON: its inEvents, or all.")
    ] = None,
    data: Data = None,
    config: Config = None,
    json: Json = False,
) -> int:
    """Run a rule once with a sample, without effects, and show what it would do. Exit 1: it failed."""
    settings = settings_of(data, config)
    rule = _require(settings, name)
    given = {"ontology": _sample(instance), "cepData": _cep_sample(settings, rule, _sample(cep_data))}
    answer = _call(settings, name, "test", name, given, timeout_s=TEST_S)
    branch = answer["branch"]
    head = "the condition is not fulfilled: nothing runs" if branch is None else f"ends in {branch.upper()}"
    lines = [f"{name}: {head}, {answer['duration_ms']:g} ms"]
    lines += [f"would {_effect(effect)}" for effect in answer["effects"]]
    lines += [f"output: {line}" for line in answer["output"].splitlines()]
    if answer["error"]:
        lines.append(f"error: {_error(answer['error'])}")
    output.result(answer, lines)
    return DONE if answer["ok"] else NO


@app.command()
def backtest(
    name: Name,
    file: Changed = None,
    since: Since = "30 days",
    until: Until = None,
    data: Data = None,
    config: Config = None,
    json: Json = False,
) -> int:
    """Run a rule over the stored instances, real time and history, without effects, and list what it would have done."""
    from sofia2 import rulebacktest as testing
    from sofia2.apply import planned
    from sofia2.bdh import open_history

    first, last = period(since, until)
    with open_history(config or data, None) as history:
        if file is None:
            with history.bdc.read() as snapshot:
                rule = snapshot.rules.get(name)
            if rule is None:
                raise objects.missing("rule", name)
        else:
            rule = planned(history.bdc, file, "rules", name)
        report = testing.backtest(history, rule, first, last)
    value = {
        "rule": name,
        "since": f"{first.isoformat(timespec='milliseconds')}Z",
        "until": f"{last.isoformat(timespec='milliseconds')}Z",
        "events": report.events,
        "seconds": round(report.seconds, 3),
        "count": report.count,
        "failed": report.failed,
        "branches": dict(report.branches),
        "effects": dict(report.effects),
        "runs": [run.as_dict() for run in report.runs],
    }
    output.result(value, _backtest_lines(value))
    return DONE


def _backtest_lines(value: dict[str, Any]) -> list[str]:
    lines = [
        f"{value['rule']}: {value['events']} events in {value['seconds']:g} s, {value['count']} runs, "
        f"{value['failed']} failed"
    ]
    for title, counts in (("ended in", value["branches"]), ("would", value["effects"])):
        if counts:
            lines.append(f"{title}: " + ", ".join(f"{name} {count}" for name, count in counts.items()))
    told = [run for run in value["runs"] if run["effects"] or run["error"] or run["output"]]
    for run in told[:BACKTEST_SHOWN]:
        at = printed(run["ts"])
        lines += [f"{at}  {_effect(effect)}" for effect in run["effects"]]
        lines += [f"{at}  output: {line}" for line in run["output"].splitlines()]
        lines += [f"{at}  error: {_error(run['error'])}"] if run["error"] else []
    if len(told) > BACKTEST_SHOWN or value["count"] > len(value["runs"]):
        lines.append(f"… the first {BACKTEST_SHOWN} runs that did something; --json lists {len(value['runs'])}")
    return lines


@app.command()
def log(
    name: OptionalName = None,
    lines: Annotated[int, typer.Option(metavar="N", min=1, max=1000, help="The newest executions.")] = LOG_LINES,
    data: Data = None,
    config: Config = None,
    json: Json = False,
) -> int:
    """Show what was executed, newest first: result, duration, output."""
    settings = settings_of(data, config)
    with configuration(settings) as bdc:
        records = bdc.read_log(LOG_LINES_READ if name else lines, kind="SCRIPT")
    found = [record for record in records if name in (None, (record.details or {}).get("rule"))][:lines]
    value = [{"at": record.at.isoformat(), "text": record.summary, **(record.details or {})} for record in found]
    columns = ("at", "rule", "result", "branch", "ms", "text", "output")
    keys = ("at", "rule", "result", "branch", "duration_ms", "text", "output")
    output.table(value, columns, ([each.get(key) for key in keys] for each in value))
    return DONE


@app.command(name="dead-letters")
def dead_letters(name: OptionalName = None, data: Data = None, config: Config = None, json: Json = False) -> int:
    """List the runs that failed for good, newest first. 'redrive' runs them again."""
    settings = settings_of(data, config)
    with configuration(settings) as bdc:
        letters = bdc.rules.dead_letters(name)
    value = [
        {
            "id": letter.id,
            "rule": letter.rule,
            "at": letter.at.isoformat(),
            "attempts": letter.attempts,
            "reason": letter.reason,
            "execution": letter.key,
            "trigger": letter.content,
        }
        for letter in letters
    ]
    keys = ("id", "rule", "at", "attempts", "reason")
    output.table(value, keys, ([each[key] for key in keys] for each in value))
    return DONE


@app.command()
def redrive(
    name: Name,
    id_: Annotated[
        list[int] | None, typer.Option("--id", metavar="N", help="Only this dead letter (repeatable). Default: all.")
    ] = None,
    data: Data = None,
    config: Config = None,
    json: Json = False,
) -> int:
    """Run the dead letters of a rule again, oldest first. Exit 1: some failed again."""
    settings = settings_of(data, config)
    _require(settings, name)
    answer = _call(settings, name, "redrive", name, id_ or None, timeout_s=REDRIVE_S)
    output.result(answer, [f"{name}: {answer['redriven']} ended well, {answer['failed']} failed again"])
    return NO if answer["failed"] else DONE


@app.command()
def pause(name: Name, data: Data = None, config: Config = None, json: Json = False) -> int:
    """Turn a rule off: what would trigger it is not kept."""
    return _turn(settings_of(data, config), name, active=False)


@app.command()
def resume(name: Name, data: Data = None, config: Config = None, json: Json = False) -> int:
    """Turn a rule on again."""
    return _turn(settings_of(data, config), name, active=True)


@app.command()
def remove(name: Name, data: Data = None, config: Config = None, json: Json = False) -> int:
    """Delete a rule with its dead letters and values."""
    settings = settings_of(data, config)
    _require(settings, name)
    objects.change(settings, lambda snapshot: snapshot.rules.delete(name))
    output.result({"kind": "rule", "name": name, "outcome": "removed"}, [f"rule {name}: removed"])
    return DONE


def _turn(settings: Settings, name: str, *, active: bool) -> int:
    from dataclasses import replace

    rule = _require(settings, name)
    outcome = objects.change(settings, lambda snapshot: snapshot.rules.put(replace(rule, active=active)))
    state = "active" if active else "paused"
    output.result({"kind": "rule", "name": name, "outcome": outcome.value, "active": active}, [f"rule {name}: {state}"])
    return DONE


def _require(settings: Settings, name: str) -> Rule:
    rule: Rule | None = objects.read(settings, lambda snapshot: snapshot.rules.get(name))
    if rule is None:
        raise objects.missing("rule", name)
    return rule


def _listed(rule: Rule, state: dict[str, Any], dead: int) -> dict[str, Any]:
    of = {"ontology": list(rule.ontologies), "timed": rule.schedule, "cep": rule.cep}[rule.type]
    return {
        "name": rule.name,
        "owner": rule.owner,
        "type": rule.type.value,
        "of": of,
        "active": rule.active,
        "version": rule.version,
        **({"state": "paused"} if not rule.active else {"state": "stopped", **state}),
        "dead_letters": dead,
    }


def _states(settings: Settings, rules: list[Rule]) -> dict[str, dict[str, Any]]:
    """How the rules of a running platform do; nothing of one that does not run."""
    from sib.errors import SibError
    from sofia2.control import call

    folder = folder_of(settings)
    if not folder.running():
        return {}
    found: dict[str, dict[str, Any]] = {}
    runners = platform_config(settings).topology.rule_runners
    if not runners and rules:
        output.warn("the module script is not on: no rule runs (setting modules)")
    for runner in runners:
        try:
            answer = call(folder, runner, "rules")
        except SibError as error:
            output.warn(f"{runner} does not answer: {error.message}")
            continue
        if answer["refusal"]:
            output.warn(answer["refusal"])
        found |= answer["rules"]
    return found


def _call(settings: Settings, rule: str, method: str, *arguments: Any, timeout_s: float) -> Any:
    """Ask the runner of a rule."""
    from sib.placement import place
    from sofia2.control import call

    runners = platform_config(settings).topology.rule_runners
    if not runners:
        raise CliError(NO, "the module script is not on: start the platform with --modules sib,script")
    return call(folder_of(settings), place(rule, runners), method, *arguments, timeout_s=timeout_s)


def _sample(file: str | None) -> str | None:
    return None if file is None else objects.read_text(file, bytes_max=1 << 20)


def _cep_sample(settings: Settings, rule: Rule, text: str | None) -> Any:
    """``cepData`` as a script gets it; the values of ``inEvents`` alone will do."""
    import json

    from storage.bdc.cep import origin

    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError:
        raise CliError(WRONG_INPUT, "the sample of cepData is no JSON") from None
    if isinstance(value, dict) and "inEvents" in value:
        return value
    ontology = objects.read(settings, lambda snapshot: origin(snapshot, rule.cep))
    if rule.cep and not ontology:
        sample = '{"Ontology": …, "Subscription": …, "inEvents": …}'
        output.say(f"No active CEP rule puts out {rule.cep}: if the script reads cepData['Ontology'], pass {sample}.")
    return {"Ontology": ontology, "Subscription": rule.cep, "inEvents": value}


def _effect(effect: dict[str, Any]) -> str:
    fields = ", ".join(f"{name} {str(value)[:200]}" for name, value in effect.items() if name != "kind")
    return f"{effect['kind']}: {fields}"


def _error(error: dict[str, Any]) -> str:
    line = f", line {error['line']}" if error.get("line") else ""
    return f"{error['type']} in {error['block'].upper()}{line}: {error['message']}"
