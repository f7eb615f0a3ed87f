"""``sofia2 apply`` and ``sofia2 export``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from sofia2.commands.options import Config, Data, Json, configuration, in_force, settings_of
from sofia2.console import output

if TYPE_CHECKING:
    from sofia2.apply import Report


def apply(
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help="YAML or JSON files; - is the standard input.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing, show what would change.")] = False,
    data: Data = None,
    config: Config = None,
    json: Json = False,
) -> int:
    """Bring users, ontologies, KPs, tokens, queries, assets and settings to what files say: all of it or nothing.

    What a file does not name stays as it is, objects and their fields: a user, ontology, rule or process that was disabled is
    enabled by 'active: true' only. A token that is written as its text alone is active.
    """
    from sofia2.apply import apply_files
    from sofia2.settings import check_setting

    settings = settings_of(data, config)
    with configuration(settings, for_change=True) as bdc:
        report = apply_files(bdc, files, dry_run=dry_run, check_setting=check_setting)
    if report.is_ok and not dry_run:
        in_force(settings, report.version)
    for warning in report.warnings:
        output.warn(str(warning))
    tell_problems(report)
    output.result(report.to_json(), report.lines())
    return report.exit_status


def tell_problems(report: Report) -> None:
    """Every problem of a report with its file and line."""
    for problem in report.problems:
        output.say(str(problem))


def export(
    with_secrets: Annotated[
        bool, typer.Option("--with-secrets", help="Also password hashes, API keys, cipher keys and tokens.")
    ] = False,
    data: Data = None,
    config: Config = None,
    json: Json = False,
) -> int:
    """Print the configuration in the format that apply reads (YAML, or JSON with --json)."""
    from sofia2.export import dump, export_objects

    settings = settings_of(data, config)
    with configuration(settings) as bdc, bdc.read() as snapshot:
        objects = export_objects(snapshot, with_secrets=with_secrets)
    output.result(objects, [] if output.is_json else [dump(objects).rstrip("\n")])
    return 0
