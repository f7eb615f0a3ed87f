"""``sofia2 sandbox run`` and ``sofia2 sandbox check``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sofia2.commands.options import Json

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
    from sofia2.sandbox import environment_of, run_file

    return run_file(file, arguments or [], level=level, timeout_s=timeout, environment=environment_of(env_of))


@app.command()
def check(level: Level = None, json: Json = False) -> int:
    """See how well programs are isolated on this machine. Exit 0: well enough for KPs and rules (level 2 or 3), 1: not."""
    from sofia2.sandbox import show_check

    return show_check(level)
