"""``sofia2 sandbox run`` and ``sofia2 sandbox check``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import click
import typer

from sofia2.commands.options import Json
from sofia2.console import NO, WRONG_INPUT, CliError, output

app = typer.Typer(help="Run programs in isolation, as KPs and script rules run.", no_args_is_help=True)

Level = Annotated[
    int | None, typer.Option(metavar="N", help="3 (full) or 2 (without namespaces). Default: the best here.")
]


@app.command(context_settings={"allow_interspersed_args": False})
def run(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A Python program.")],
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[ARG]…", help="Its arguments.")] = None,
    level: Level = None,
    timeout: Annotated[float | None, typer.Option(metavar="S", help="Seconds to its end. Default: none.")] = None,
    env_of: Annotated[str | None, typer.Option(metavar="KP", help="With this deployed KP's dependencies.")] = None,
) -> int:
    """Run FILE as a KP's main; its exit status is passed on (4 after its time)."""
    from sofia2.sandbox import run_file

    if env_of is not None:
        raise CliError(NO, f"no KP {env_of} is deployed here")
    return run_file(file, arguments or [], level=level, timeout_s=timeout)


@app.command()
def check(level: Level = None, json: Json = False) -> int:
    """See how well programs are isolated on this machine. Exit 0: well enough for KPs and rules (level 2 or 3), 1: not."""
    from sofia2.sandbox import check_machine

    report = check_machine(level)
    output.result(report.to_json(), report.lines())
    return 0 if report.is_enough else NO


def main(arguments: list[str]) -> int:
    """The two commands alone, without the rest of ``sofia2``."""
    output.is_json = "--json" in arguments
    try:
        status = app(arguments, standalone_mode=False, prog_name="sofia2 sandbox")
    except CliError as error:
        return output.fail(error.status, error.message)
    except click.ClickException as error:
        return output.fail(WRONG_INPUT, error.format_message())
    return status if isinstance(status, int) else 0
