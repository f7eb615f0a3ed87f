"""``sofia2 validate``, ``query`` and ``explain``: what needs no running platform."""

from __future__ import annotations

import itertools
import json as json_module
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sofia2.commands import objects
from sofia2.commands.options import Config, Data, Json, configuration, platform_config, settings_of
from sofia2.console import NO, WRONG_INPUT, CliError, output

if TYPE_CHECKING:
    from sib.ontology import Ontology

QUIET_CONTEXT = ("session_key", "timezoneId", "kp_instancia", "user")

Text = Annotated[str, typer.Argument(metavar="QUERY", help="The query; - reads it from the standard input.")]
Kind = Annotated[
    str | None, typer.Option("--type", metavar="TYPE", help="native, sql, bdh or bdc. Default: by how it begins.")
]
OntologyName = Annotated[
    str | None, typer.Option("--ontology", metavar="NAME", help="For a native criterion alone: what it reads.")
]


def validate(
    files: Annotated[list[str], typer.Argument(metavar="FILE…", help="One instance a file; - is the standard input.")],
    ontology: Annotated[str | None, typer.Option(metavar="NAME", help="An ontology of the platform.")] = None,
    template: Annotated[str | None, typer.Option(metavar="NAME[@VERSION]", help="A template of the catalogue.")] = None,
    schema: Annotated[str | None, typer.Option(metavar="FILE", help="A JSON Schema.")] = None,
    data: Data = None,
    config: Config = None,
    json: Json = False,
) -> int:
    """Check instances against an ontology. Exit 0: all valid, 1: some are not, 2: something could not be read."""
    from sofia2.schemas import find_ontology

    found = find_ontology(
        ontology=ontology, template=template, schema=schema, settings=lambda: settings_of(data, config)
    )
    results = [_check(found, file) for file in files]
    output.result(results, [_verdict(result) for result in results])
    if any(result["valid"] is None for result in results):
        return WRONG_INPUT
    return 0 if all(result["valid"] for result in results) else NO


def _check(ontology: Ontology, file: str) -> dict[str, Any]:
    from sib.errors import InvalidInstanceError
    from sib.ontology.instance import parse_instance

    try:
        text = objects.read_text(file)
        instance = parse_instance(text)
    except (CliError, InvalidInstanceError) as error:
        return {"file": file, "valid": None, "message": error.message, "path": None, "rule": None, "value": None}
    try:
        ontology.read(text)
    except InvalidInstanceError as error:
        return {"file": file, "valid": False, "message": error.message, **_fault(error.message, instance)}
    return {"file": file, "valid": True, "message": None, "path": None, "rule": None, "value": None}


def _fault(message: str, instance: Mapping[str, Any]) -> dict[str, Any]:
    """Path, rule and value of a fault, from its sentence ``PATH: … (RULE)`` and the instance."""
    path, _, rest = message.partition(": ")
    head, bracket, tail = rest.rpartition(" (")
    rule = tail.partition(")")[0] if bracket and head else None
    value: Any = instance
    for step in [] if path == "instance" else path.split("."):
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            value = None
            break
    return {"path": path, "rule": rule, "value": value}


def _verdict(result: Mapping[str, Any]) -> str:
    state = {True: "valid", False: "invalid", None: "unusable"}[result["valid"]]
    return f"{result['file']}: {state}" + (f": {result['message']}" if result["message"] else "")


def query(
    text: Text,
    type_: Kind = None,
    ontology: OntologyName = None,
    timeout: Annotated[float, typer.Option(metavar="S", help="How long it may take.")] = 300.0,
    data: Data = None,
    config: Config = None,
    json: Json = False,
) -> int:
    """Run a query on the data of a platform, running or not. All rows, without the cap of SSAP queries."""
    from sofia2 import reading

    settings = settings_of(data, config)
    text = objects.read_text("-") if text == "-" else text
    with configuration(settings) as bdc:
        reader = reading.Reader(platform_config(settings), bdc)
        result = reader.run(text, reading.type_of(text, type_), ontology=ontology, time_limit_s=timeout)
    _print(result)
    return 0


def _print(result: Any) -> None:
    from sib.ssap.printing import print_one

    if output.is_json:
        print(print_one(result).decode(), flush=True)
        return
    if not isinstance(result, list):
        print(print_one(result).decode())
        return
    rows = [_flat(row) for row in result if isinstance(row, dict)]
    columns = list(dict.fromkeys(itertools.chain.from_iterable(rows)))
    lines = (print_one(row).decode() for row in result)
    if len(rows) < len(result):
        output.result(result, lines)
    elif rows:
        cells = ([row.get(column) for column in columns] for row in rows)
        output.table(result, columns, cells, instead=lines)
    output.say(f"{len(result)} row{'' if len(result) == 1 else 's'}")


def _flat(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A document's leaves by their paths; of contextData only what tells rows apart."""
    found: dict[str, Any] = {}
    for key, value in document.items():
        if prefix == "contextData." and key in QUIET_CONTEXT:
            continue
        if isinstance(value, dict) and value:
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def explain(
    text: Text,
    type_: Kind = None,
    ontology: OntologyName = None,
    data: Data = None,
    config: Config = None,
    json: Json = False,
) -> int:
    """Show every stage of a query: its text, syntax tree and plan, and what the database does."""
    from sofia2 import reading

    settings = settings_of(data, config)
    text = objects.read_text("-") if text == "-" else text
    with configuration(settings) as bdc:
        reader = reading.Reader(platform_config(settings), bdc)
        stages = reader.explain(text, reading.type_of(text, type_), ontology=ontology)
    value = [{"stage": stage.title, "text": stage.text} for stage in stages]
    output.result(value, itertools.chain.from_iterable((f"== {stage.title}", stage.text, "") for stage in stages))
    return 0


def as_json(text: str) -> Any:
    """A JSON text of a person.

    Raises:
        CliError: it is none.
    """
    try:
        return json_module.loads(text)
    except ValueError as error:
        raise CliError(WRONG_INPUT, f"this is no JSON: {error}") from None
