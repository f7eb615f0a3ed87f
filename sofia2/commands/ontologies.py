"""``sofia2 ontology``."""

from __future__ import annotations

import json as json_module
from typing import Annotated, Any

import typer

from sofia2.commands import objects
from sofia2.commands.options import Config, Data, Json, settings_of
from sofia2.console import WRONG_INPUT, CliError, output

app = typer.Typer(help="Ontologies: what instances look like, and who may use them.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The ontology's name, case-sensitive.")]
Owner = Annotated[str | None, typer.Option(metavar="USER", help="The user it belongs to.")]
Template = Annotated[str | None, typer.Option(metavar="NAME[@VERSION]", help="Take the schema of a template.")]
Schema = Annotated[
    str | None, typer.Option(metavar="FILE", help="Take the JSON Schema of a file; - is standard input.")
]
Description = Annotated[str | None, typer.Option(metavar="TEXT", help="What it is for.")]
Parent = Annotated[str | None, typer.Option(metavar="NAME", help="The ontology it extends.")]
Public = Annotated[bool | None, typer.Option("--public/--private", help="Whether every user may query it.")]
Active = Annotated[bool | None, typer.Option("--active/--inactive", help="Whether it may be used.")]
Index = Annotated[
    list[str] | None, typer.Option(metavar="PATH", help="Index a field (repeatable); replaces all indexes.")
]
Permission = Annotated[
    list[str] | None,
    typer.Option(metavar="USER=RIGHT", help="ALL, INSERT or QUERY (repeatable); replaces all permissions."),
]


@app.command()
def add(
    name: Name, owner: Owner = None, template: Template = None, schema: Schema = None, description: Description = None,
    parent: Parent = None, public: Public = None, active: Active = None, index: Index = None, permission: Permission = None,
    data: Data = None, config: Config = None, json: Json = False,
) -> int:  # fmt: skip
    """Create an ontology from a template or a JSON Schema."""
    if (template is None) == (schema is None):
        raise CliError(WRONG_INPUT, "give either --template NAME (see 'sofia2 ontology templates') or --schema FILE")
    given = _given(name, owner, template, schema, description, parent, public, active, index, permission)
    objects.tell(objects.declare(settings_of(data, config), "ontologies", given, is_new=True))
    return 0


@app.command(name="set")
def set_(
    name: Name, owner: Owner = None, template: Template = None, schema: Schema = None, description: Description = None,
    parent: Parent = None, public: Public = None, active: Active = None, index: Index = None, permission: Permission = None,
    data: Data = None, config: Config = None, json: Json = False,
) -> int:  # fmt: skip
    """Change an ontology; another schema makes a new version of it."""
    given = _given(name, owner, template, schema, description, parent, public, active, index, permission)
    objects.tell(objects.declare(settings_of(data, config), "ontologies", given, is_new=False))
    return 0


def _given(
    name: str,
    owner: str | None,
    template: str | None,
    schema: str | None,
    description: str | None,
    parent: str | None,
    public: bool | None,
    active: bool | None,
    index: list[str] | None,
    permission: list[str] | None,
) -> dict[str, Any]:
    return {
        "name": name,
        "owner": owner,
        "template": template,
        "schema_text": None if schema is None else objects.read_text(schema),
        "description": description,
        "parent": parent,
        "public": public,
        "active": active,
        "indexes": index or None,
        "permissions": objects.pairs(permission or None, "USER=RIGHT, for example ana=QUERY"),
    }


@app.command(name="list")
def list_(data: Data = None, config: Config = None, json: Json = False) -> int:
    """List the ontologies."""
    records = objects.read(settings_of(data, config), lambda snapshot: snapshot.ontologies.all())
    value = [
        {
            "name": record.name,
            "owner": record.owner,
            "version": record.version,
            "template": record.template,
            "active": record.active,
            "public": record.public,
        }
        for record in records
    ]
    output.table(
        value,
        ("name", "owner", "version", "template", "active", "public"),
        (record.values() for record in value),
    )
    return 0


@app.command()
def show(
    name: Name,
    schema: Annotated[bool, typer.Option("--schema", help="Print its JSON Schema only, as it was given.")] = False,
    data: Data = None,
    config: Config = None,
    json: Json = False,
) -> int:
    """Show an ontology."""
    record = objects.require(settings_of(data, config), "ontologies", name)
    if schema:
        output.result({"schema_text": record.schema_text}, [record.schema_text])
        return 0
    from sib.ontology import compile_ontology

    compiled = compile_ontology(record.name, record.schema_text, version=record.version)
    objects.show(
        {
            "name": record.name,
            "owner": record.owner,
            "description": record.description,
            "version": record.version,
            "template": record.template,
            "root": compiled.root,
            "fields": compiled.fields(),
            "active": record.active,
            "public": record.public,
            "parent": record.parent,
            "indexes": [index.to_json() for index in record.indexes],
            "permissions": {user: right.value for user, right in record.permissions.items()},
        }
    )
    return 0


@app.command()
def sample(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="An ontology of the platform.")] = None,
    template: Template = None,
    data: Data = None,
    config: Config = None,
    json: Json = False,
) -> int:
    """Print an instance that the ontology accepts."""
    from sofia2.schemas import find_ontology

    ontology = find_ontology(ontology=name, template=template, settings=lambda: settings_of(data, config))
    instance = ontology.sample()
    output.result(instance, [json_module.dumps(instance, indent=2, ensure_ascii=False)])
    return 0


@app.command()
def templates(json: Json = False) -> int:
    """List the templates."""
    from sib.ontology.templates import TEMPLATES

    value = [
        {"name": item.name, "version": item.version, "category": item.category, "description": item.description}
        for item in TEMPLATES.values()
    ]
    output.table(value, ("name", "version", "category", "description"), (item.values() for item in value))
    return 0


@app.command()
def remove(name: Name, data: Data = None, config: Config = None, json: Json = False) -> int:
    """Delete an ontology that no other one extends. Its instances stay in the database."""
    objects.remove(settings_of(data, config), "ontologies", name, lambda snapshot: snapshot.ontologies.delete(name))
    return 0
