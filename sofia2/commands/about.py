"""``sofia2 init``, ``settings`` and ``version``."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from sofia2.commands.options import Config, Data, Json, configuration, settings_of
from sofia2.console import WRONG_INPUT, CliError, output


def init(
    folder: Annotated[str, typer.Argument(metavar="[DIR]", help="Where to write them.")] = ".",
    force: Annotated[bool, typer.Option("--force", help="Write over files that are there.")] = False,
    json: Json = False,
) -> int:
    """Write a commented sofia2.toml and an example for apply, sofia2-apply.yaml."""
    from sofia2.samples import APPLY_NAME, apply_sample, settings_sample
    from sofia2.settings import FILE_NAME

    target = Path(folder)
    files = {target / FILE_NAME: settings_sample(), target / APPLY_NAME: apply_sample()}
    present = [str(path) for path in files if path.exists()]
    if present and not force:
        raise CliError(WRONG_INPUT, f"{' and '.join(present)} exists already: choose another folder, or --force")
    target.mkdir(parents=True, exist_ok=True)
    for path, text in files.items():
        path.unlink(missing_ok=True)
        path.touch(mode=0o600)
        path.write_text(text, encoding="utf-8")
    written = [str(path) for path in files]
    output.result({"written": written}, [f"written: {path}" for path in written])
    output.say(f"Edit them, then: sofia2 start --config {target / FILE_NAME} --apply {target / APPLY_NAME}")
    return 0


def settings(
    changed: Annotated[bool, typer.Option("--changed", help="Only those that are not as by default.")] = False,
    data: Data = None,
    config: Config = None,
    json: Json = False,
) -> int:
    """Show every setting, its value and where it comes from."""
    from sofia2.samples import shown_settings

    found = settings_of(data, config)
    with contextlib.suppress(CliError), configuration(found) as bdc:  # no platform yet: nothing is applied
        found.add_applied(bdc.catalog().settings)
    rows = shown_settings(found, changed=changed)
    columns = ("name", "value", "unit", "origin", "in_force")
    output.table(
        rows, ("setting", "value", "unit", "from", "in force"), ([row[column] for column in columns] for row in rows)
    )
    return 0


def version(json: Json = False) -> int:
    """Show the versions of sofia2, Python and Ray."""
    import platform
    from importlib import metadata

    value = {"sofia2": metadata.version("sofia2"), "python": platform.python_version(), "ray": metadata.version("ray")}
    output.result(value, [f"sofia2 {value['sofia2']} (Python {value['python']}, Ray {value['ray']})"])
    return 0
