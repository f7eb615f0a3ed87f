"""``sofia2 db upgrade``, ``check`` and ``copy``: the databases as a whole."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sofia2.commands.options import Config, Data, Json, folder_of, platform_config, settings_of
from sofia2.console import NO, TAKEN, WRONG_INPUT, CliError, output

if TYPE_CHECKING:
    from sofia2.settings import Settings
    from storage.copying import Progress, Step

app = typer.Typer(help="Make, check and copy the databases.", no_args_is_help=True)

_PLACE_HELP = "sqlite:PATH, mysql://…; with a password: @FILE that holds the URL, env:VARIABLE, or bdc or bdtr, the platform's own."
_VARIABLE = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]*)")
SHOWN_EVERY_DOCUMENTS = 100_000
"""Without a terminal, how often the progress of a copy is told."""


@app.command()
def upgrade(data: Data = None, config: Config = None, json: Json = False) -> int:
    """Make the databases if they are not there, and bring them to this version. The platform must be stopped."""
    from storage.copying import upgrade as upgrade_databases

    settings = settings_of(data, config)
    _refuse_running(settings)
    _make_folder(settings)
    platform = settings.to_platform_config()
    done = upgrade_databases(platform.bdc_url, platform.bdtr_url)
    output.result({"done": done}, done)
    return 0


@app.command()
def check(data: Data = None, config: Config = None, json: Json = False) -> int:
    """Ask each database whether the platform can work with it. Exit 1 when one of them cannot be used."""
    from storage.copying import check as check_databases
    from storage.copying import check_history

    platform = platform_config(settings_of(data, config))
    found = [*check_databases(platform.bdc_url, platform.bdtr_url), check_history(platform.bdh_url)]
    rows = [
        {"database": each.database, "ok": each.is_good, "detail": each.sentence, "ms": round(each.answer_ms, 1)}
        for each in found
    ]
    output.table(rows, ("database", "ok", "detail", "ms"), (row.values() for row in rows))
    return 0 if all(each.is_good for each in found) else NO


@app.command()
def copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help=_PLACE_HELP)],
    target: Annotated[str, typer.Argument(metavar="TO", help="The same; it is made if it is not there.")],
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="bdc|bdtr", help="What is copied, if the URLs do not tell.")
    ] = None,
    data: Data = None,
    config: Config = None,
    json: Json = False,
) -> int:
    """Copy a whole BDC or BDTR to another backend. Stop the platform first; a copy that was interrupted goes on."""
    from sib.errors import ConfigurationError
    from storage.copying import copy_bdc, copy_bdtr, kind_of_database

    settings = settings_of(data, config)
    source_url, target_url = (_address(place, settings) for place in (source, target))
    if kind is None:
        kind = next((place for place in (source, target) if place in ("bdc", "bdtr")), None)
    if kind is None:
        try:
            kind = kind_of_database(source_url)
        except ConfigurationError as error:
            raise CliError(WRONG_INPUT, f"{error.message.rstrip('.')}: --kind bdc or --kind bdtr.") from None
    if kind not in ("bdc", "bdtr"):
        raise CliError(WRONG_INPUT, f"--kind is bdc or bdtr, not {kind[:40]!r}")
    if "bdc" in (source, target) or "bdtr" in (source, target):
        _refuse_running(settings)
    call = copy_bdc if kind == "bdc" else copy_bdtr
    what = "rows" if kind == "bdc" else "instances"
    with _progress(what) as progress:
        n_written = call(source_url, target_url, progress)
    output.result({"kind": kind, "written": n_written}, [f"{n_written} {what} were written; the copy is complete"])
    return 0


def _address(place: str, settings: Settings) -> str:
    """The URL that an argument means. One with a password must not be on the command line itself.

    Raises:
        CliError: it is, or the file or variable cannot be read.
    """
    from sofia2.urlsecrets import has_secret

    if place in ("bdc", "bdtr"):
        platform = settings.to_platform_config()
        return platform.bdc_url if place == "bdc" else platform.bdtr_url
    if variable := _VARIABLE.fullmatch(place):
        if not os.environ.get(variable[1]):
            raise CliError(WRONG_INPUT, f"the variable {variable[1]} is not set: it must hold the URL")
        return os.environ[variable[1]]
    if place.startswith("@"):
        try:
            return Path(place[1:]).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
            raise CliError(
                WRONG_INPUT, f"the file {place[1:]} that shall hold a URL cannot be read: {reason}"
            ) from None
    if has_secret(place):
        raise CliError(
            WRONG_INPUT,
            "the URL holds a password or token, which other users of this machine could read: put the URL into a file and write "
            "@FILE, or into a variable and write env:VARIABLE",
        )
    return place


def _refuse_running(settings: Settings) -> None:
    if (holder := folder_of(settings).holder()) is not None:
        raise CliError(TAKEN, f"the platform on {settings.data} runs (process {holder}): 'sofia2 stop' it first")


def _make_folder(settings: Settings) -> None:
    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)


@contextmanager
def _progress(what: str) -> Iterator[Progress]:
    """A bar for each table or collection on a terminal; lines elsewhere."""
    console = output.console()
    if not console.is_terminal:
        yield _tell_steps(what)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, Any] = {}

        def show(step: Step) -> None:
            if step.name not in tasks:
                tasks[step.name] = bars.add_task(step.name, total=step.n_total)
            bars.update(tasks[step.name], completed=step.n_done, total=max(step.n_total, step.n_done))

        yield show


def _tell_steps(what: str) -> Progress:
    name, at = "", 0

    def tell(step: Step) -> None:
        nonlocal name, at
        is_due = step.name != name or step.n_done - at >= SHOWN_EVERY_DOCUMENTS
        if is_due or (step.n_done == step.n_total and step.n_done != at):
            name, at = step.name, step.n_done
            output.say(f"{step.name}: {step.n_done} of {step.n_total} {what}")

    return tell
