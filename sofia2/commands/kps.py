"""``sofia2 kp`` and ``sofia2 token``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sofia2.commands import deployments, objects
from sofia2.commands.options import Config, Data, Json, settings_of
from sofia2.console import NO, WRONG_INPUT, CliError, output

if TYPE_CHECKING:
    from sofia2.settings import Settings
    from storage.bdc.records import TokenRecord

app = typer.Typer(help="KPs: the devices and applications that speak to the platform.", no_args_is_help=True)
deployments.register(app)
tokens = typer.Typer(help="Tokens: what a KP shows to join.", no_args_is_help=True)

PREFIX_CHARS_MIN = 4

Name = Annotated[str, typer.Argument(metavar="NAME", help="The KP's name, case-sensitive.")]
Owner = Annotated[str | None, typer.Option(metavar="USER", help="The user it belongs to.")]
OntologyNames = Annotated[
    list[str] | None,
    typer.Option("--ontology", metavar="NAME", help="An ontology it may use (repeatable); replaces all of them."),
]
Description = Annotated[str | None, typer.Option(metavar="TEXT", help="What it is.")]
CipherOnly = Annotated[bool | None, typer.Option("--cipher-only/--clear", help="Refuse its messages in clear.")]
Meta = Annotated[
    list[str] | None, typer.Option(metavar="NAME=VALUE", help="Meta-information (repeatable); replaces all.")
]
Token = Annotated[
    str, typer.Argument(metavar="TOKEN", help=f"The token, or its first characters (at least {PREFIX_CHARS_MIN}).")
]
Kp = Annotated[str, typer.Argument(metavar="KP", help="The KP's name.")]


@app.command()
def add(
    name: Name, owner: Owner = None, ontology: OntologyNames = None, description: Description = None,
    cipher_only: CipherOnly = None, meta: Meta = None, data: Data = None, config: Config = None, json: Json = False,
) -> int:  # fmt: skip
    """Create a KP; prints the token that was generated for it. For a token of your own use 'sofia2 apply'."""
    settings = settings_of(data, config)
    report = objects.declare(
        settings, "kps", _given(name, owner, ontology, description, cipher_only, meta), is_new=True
    )
    found = objects.read(settings, lambda snapshot: snapshot.tokens.all(name))
    objects.tell(report, token=found[0].token)
    return 0


@app.command(name="set")
def set_(
    name: Name, owner: Owner = None, ontology: OntologyNames = None, description: Description = None,
    cipher_only: CipherOnly = None, meta: Meta = None, data: Data = None, config: Config = None, json: Json = False,
) -> int:  # fmt: skip
    """Change a KP."""
    given = _given(name, owner, ontology, description, cipher_only, meta)
    objects.tell(objects.declare(settings_of(data, config), "kps", given, is_new=False))
    return 0


def _given(
    name: str,
    owner: str | None,
    ontologies: list[str] | None,
    description: str | None,
    cipher_only: bool | None,
    meta: list[str] | None,
) -> dict[str, Any]:
    return {
        "name": name,
        "owner": owner,
        "ontologies": ontologies or None,
        "description": description,
        "cipher_only": cipher_only,
        "meta": objects.pairs(meta or None, "NAME=VALUE"),
    }


@app.command(name="list")
def list_(data: Data = None, config: Config = None, json: Json = False) -> int:
    """List the KPs."""
    records = objects.read(settings_of(data, config), lambda snapshot: snapshot.kps.all())
    value = [
        {
            "name": record.name,
            "owner": record.owner,
            "ontologies": sorted(record.ontologies),
            "cipher_only": record.cipher_only,
        }
        for record in records
    ]
    output.table(value, ("name", "owner", "ontologies", "cipher only"), (record.values() for record in value))
    return 0


@app.command()
def show(
    name: Name,
    with_secrets: Annotated[bool, typer.Option("--with-secrets", help="Also the cipher key and the tokens.")] = False,
    data: Data = None,
    config: Config = None,
    json: Json = False,
) -> int:
    """Show a KP, its instances and where each was last seen."""
    settings = settings_of(data, config)
    record = objects.require(settings, "kps", name)
    instances = objects.read(settings, lambda snapshot: snapshot.instances.all(name))
    found = objects.read(settings, lambda snapshot: snapshot.tokens.all(name))
    value = {
        "name": record.name,
        "owner": record.owner,
        "description": record.description,
        "ontologies": sorted(record.ontologies),
        "cipher_only": record.cipher_only,
        "meta": dict(record.meta),
        "tokens": [_shown(token, with_secrets) for token in found],
        "instances": [
            {
                "name": instance.name,
                "last_address": instance.last_address,
                "last_seen_at": instance.last_seen_at and instance.last_seen_at.isoformat(),
            }
            for instance in instances
        ],
    }
    if with_secrets:
        value["cipher_key"] = record.cipher_key
    objects.show(value)
    return 0


@app.command()
def remove(name: Name, data: Data = None, config: Config = None, json: Json = False) -> int:
    """Delete a KP with its tokens; its sessions end."""
    objects.remove(settings_of(data, config), "kps", name, lambda snapshot: snapshot.kps.delete(name))
    return 0


@tokens.command(name="add")
def add_token(kp: Kp, data: Data = None, config: Config = None, json: Json = False) -> int:
    """Generate a token for a KP and print it."""
    settings = settings_of(data, config)
    objects.require(settings, "kps", kp)
    token = objects.change(settings, lambda snapshot: snapshot.tokens.add(kp))
    output.result({"kp": kp, "token": token, "active": True}, [token])
    return 0


@tokens.command(name="list")
def list_tokens(
    kp: Annotated[str | None, typer.Argument(metavar="[KP]", help="Only those of one KP.")] = None,
    with_secrets: Annotated[
        bool, typer.Option("--with-secrets", help="The whole tokens, not their beginnings.")
    ] = False,
    data: Data = None,
    config: Config = None,
    json: Json = False,
) -> int:
    """List tokens."""
    settings = settings_of(data, config)
    if kp is not None:
        objects.require(settings, "kps", kp)
    found = objects.read(settings, lambda snapshot: snapshot.tokens.all(kp))
    value = [{"kp": token.kp, **_shown(token, with_secrets)} for token in found]
    output.table(value, ("KP", "token", "active", "created", "last used"), (token.values() for token in value))
    return 0


@tokens.command(name="set")
def set_token(
    kp: Kp,
    token: Token,
    active: Annotated[bool, typer.Option("--active/--inactive", help="Whether the KP may join with it.")],
    data: Data = None,
    config: Config = None,
    json: Json = False,
) -> int:
    """Turn a token on or off; off ends its sessions within a second."""
    from dataclasses import replace

    settings = settings_of(data, config)
    record = _find(settings, kp, token)
    objects.change(settings, lambda snapshot: snapshot.tokens.put(replace(record, active=active)))
    state = "active" if active else "inactive"
    output.result(
        {"kp": kp, **_shown(replace(record, active=active), False)}, [f"token {_begin(record)} of {kp}: {state}"]
    )
    return 0


@tokens.command(name="remove")
def remove_token(kp: Kp, token: Token, data: Data = None, config: Config = None, json: Json = False) -> int:
    """Delete a token; its sessions end."""
    settings = settings_of(data, config)
    record = _find(settings, kp, token)
    objects.change(settings, lambda snapshot: snapshot.tokens.delete(record.token))
    output.result(
        {"kp": kp, "token": _begin(record), "outcome": "removed"}, [f"token {_begin(record)} of {kp}: removed"]
    )
    return 0


def _find(settings: Settings, kp: str, beginning: str) -> TokenRecord:
    if len(beginning) < PREFIX_CHARS_MIN:
        raise CliError(WRONG_INPUT, f"give at least {PREFIX_CHARS_MIN} characters of the token")
    objects.require(settings, "kps", kp)
    found = objects.read(settings, lambda snapshot: snapshot.tokens.all(kp))
    matching = [record for record in found if record.token.startswith(beginning)]
    exact = [record for record in matching if record.token == beginning]
    if len(exact or matching) != 1:
        what = "several tokens begin" if matching else "no token begins"
        raise CliError(WRONG_INPUT if matching else NO, f"{what} so at the KP {kp!r}: see 'sofia2 token list {kp}'")
    record: TokenRecord = (exact or matching)[0]
    return record


def _begin(record: TokenRecord) -> str:
    return f"{record.token[:6]}…"


def _shown(record: TokenRecord, with_secrets: bool) -> dict[str, Any]:
    return {
        "token": record.token if with_secrets else _begin(record),
        "active": record.active,
        "created_at": record.created_at and record.created_at.isoformat(timespec="seconds"),
        "used_at": record.used_at and record.used_at.isoformat(timespec="seconds"),
    }
