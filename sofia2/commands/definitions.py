"""``sofia2 predefined`` (queries that KPs use by name) and ``sofia2 asset``."""

from __future__ import annotations

from typing import Annotated

import typer

from sofia2.commands import objects
from sofia2.commands.options import Config, Data, Json, settings_of
from sofia2.console import WRONG_INPUT, CliError, output

predefined = typer.Typer(help="Predefined queries (SIB_DEFINED): KPs use them by name.", no_args_is_help=True)
assets = typer.Typer(help="Assets: the inventory.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The query's name.")]
OntologyName = Annotated[str | None, typer.Option("--ontology", metavar="NAME", help="What it reads.")]
Kind = Annotated[str | None, typer.Option("--type", metavar="TYPE", help="SQLLIKE or NATIVE.")]
Text = Annotated[str | None, typer.Option(metavar="QUERY", help="The query; {$NAME} stands for a parameter.")]
File = Annotated[str | None, typer.Option(metavar="FILE", help="A file with the query; - is standard input.")]
Param = Annotated[
    list[str] | None, typer.Option(metavar="NAME=TYPE", help="A parameter (repeatable): string, number, date, …")
]
Id = Annotated[str, typer.Argument(metavar="ID", help="The asset's identificacion.")]
Owner = Annotated[str | None, typer.Option(metavar="USER", help="The user it belongs to.")]
Tipo = Annotated[str | None, typer.Option(metavar="TEXT", help="Its kind.")]
Descripcion = Annotated[str | None, typer.Option(metavar="TEXT", help="What it is.")]
KpName = Annotated[str | None, typer.Option("--kp", metavar="NAME", help="The KP that speaks for it.")]
Property = Annotated[
    list[str] | None, typer.Option(metavar="NAME=VALUE", help="A property (repeatable); replaces all.")
]


@predefined.command(name="add")
def add_query(
    name: Name, ontology: OntologyName = None, type_: Kind = None, text: Text = None, file: File = None, param: Param = None,
    data: Data = None, config: Config = None, json: Json = False,
) -> int:  # fmt: skip
    """Create a predefined query."""
    _put_query(name, ontology, type_, text, file, param, data, config, is_new=True)
    return 0


@predefined.command(name="set")
def set_query(
    name: Name, ontology: OntologyName = None, type_: Kind = None, text: Text = None, file: File = None, param: Param = None,
    data: Data = None, config: Config = None, json: Json = False,
) -> int:  # fmt: skip
    """Change a predefined query."""
    _put_query(name, ontology, type_, text, file, param, data, config, is_new=False)
    return 0


def _put_query(
    name: str,
    ontology: str | None,
    type_: str | None,
    text: str | None,
    file: str | None,
    param: list[str] | None,
    data: str | None,
    config: str | None,
    *,
    is_new: bool,
) -> None:
    if text is not None and file is not None:
        raise CliError(WRONG_INPUT, "give only one of --text and --file")
    given = {
        "name": name,
        "ontology": ontology,
        "type": type_.upper() if type_ else None,
        "text": text if file is None else objects.read_text(file),
        "params": objects.pairs(param or None, "NAME=TYPE, for example PARAM1=string"),
    }
    objects.tell(objects.declare(settings_of(data, config), "queries", given, is_new=is_new))


@predefined.command(name="list")
def list_queries(data: Data = None, config: Config = None, json: Json = False) -> int:
    """List the predefined queries."""
    records = objects.read(settings_of(data, config), lambda snapshot: snapshot.queries.all())
    value = [
        {
            "name": query.name,
            "ontology": query.ontology,
            "type": query.type,
            "params": dict(query.params),
            "text": query.text,
        }
        for query in records
    ]
    output.table(value, ("name", "ontology", "type", "params", "text"), (query.values() for query in value))
    return 0


@predefined.command(name="show")
def show_query(name: Name, data: Data = None, config: Config = None, json: Json = False) -> int:
    """Show a predefined query."""
    query = objects.require(settings_of(data, config), "queries", name)
    objects.show(
        {
            "name": query.name,
            "ontology": query.ontology,
            "type": query.type,
            "text": query.text,
            "params": dict(query.params),
        }
    )
    return 0


@predefined.command(name="remove")
def remove_query(name: Name, data: Data = None, config: Config = None, json: Json = False) -> int:
    """Delete a predefined query."""
    objects.remove(settings_of(data, config), "queries", name, lambda snapshot: snapshot.queries.delete(name))
    return 0


@assets.command(name="add")
def add_asset(
    id_: Id, owner: Owner = None, tipo: Tipo = None, descripcion: Descripcion = None, kp: KpName = None, property_: Property = None,
    data: Data = None, config: Config = None, json: Json = False,
) -> int:  # fmt: skip
    """Create an asset."""
    _put_asset(id_, owner, tipo, descripcion, kp, property_, data, config, is_new=True)
    return 0


@assets.command(name="set")
def set_asset(
    id_: Id, owner: Owner = None, tipo: Tipo = None, descripcion: Descripcion = None, kp: KpName = None, property_: Property = None,
    data: Data = None, config: Config = None, json: Json = False,
) -> int:  # fmt: skip
    """Change an asset."""
    _put_asset(id_, owner, tipo, descripcion, kp, property_, data, config, is_new=False)
    return 0


def _put_asset(
    id_: str,
    owner: str | None,
    tipo: str | None,
    descripcion: str | None,
    kp: str | None,
    property_: list[str] | None,
    data: str | None,
    config: str | None,
    *,
    is_new: bool,
) -> None:
    given = {
        "identificacion": id_,
        "owner": owner,
        "tipo": tipo,
        "descripcion": descripcion,
        "kp": kp,
        "properties": objects.pairs(property_ or None, "NAME=VALUE"),
    }
    settings = settings_of(data, config)
    objects.tell(objects.declare(settings, "assets", given, is_new=is_new, key="identificacion"))


@assets.command(name="list")
def list_assets(data: Data = None, config: Config = None, json: Json = False) -> int:
    """List the assets."""
    records = objects.read(settings_of(data, config), lambda snapshot: snapshot.assets.all())
    value = [
        {
            "identificacion": asset.identificacion,
            "owner": asset.owner,
            "tipo": asset.tipo,
            "kp": asset.kp,
            "descripcion": asset.descripcion,
        }
        for asset in records
    ]
    output.table(value, ("identificacion", "owner", "tipo", "KP", "descripcion"), (asset.values() for asset in value))
    return 0


@assets.command(name="show")
def show_asset(id_: Id, data: Data = None, config: Config = None, json: Json = False) -> int:
    """Show an asset."""
    asset = objects.require(settings_of(data, config), "assets", id_)
    objects.show(
        {
            "identificacion": asset.identificacion,
            "owner": asset.owner,
            "tipo": asset.tipo,
            "descripcion": asset.descripcion,
            "kp": asset.kp,
            "properties": dict(asset.properties),
        }
    )
    return 0


@assets.command(name="remove")
def remove_asset(id_: Id, data: Data = None, config: Config = None, json: Json = False) -> int:
    """Delete an asset."""
    objects.remove(settings_of(data, config), "assets", id_, lambda snapshot: snapshot.assets.delete(id_))
    return 0
