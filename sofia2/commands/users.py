"""``sofia2 user``."""

from __future__ import annotations

from typing import Annotated

import typer

from sofia2.commands import objects
from sofia2.commands.options import Config, Data, Json, settings_of
from sofia2.console import output

app = typer.Typer(help="Users: who owns ontologies and KPs.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="The user's name, case-sensitive.")]
Role = Annotated[str | None, typer.Option(metavar="ROLE", help="ADMINISTRADOR, COLABORADOR or USUARIO (default).")]
Email = Annotated[str | None, typer.Option(metavar="ADDRESS", help="The e-mail address.")]
PasswordFile = Annotated[
    str | None,
    typer.Option("--password-file", metavar="FILE", help="A file that holds the password; - is standard input."),
]


@app.command()
def add(
    name: Name, role: Role = None, email: Email = None, password_file: PasswordFile = None,
    data: Data = None, config: Config = None, json: Json = False,
) -> int:  # fmt: skip
    """Create a user. The password is asked for, or read from a file."""
    settings = settings_of(data, config)
    password = objects.read_secret(password_file, prompt=f"Password of {name}")
    objects.tell(
        objects.declare(
            settings, "users", {"name": name, "role": role, "email": email, "password": password}, is_new=True
        )
    )
    return 0


@app.command(name="set")
def set_(
    name: Name, role: Role = None, email: Email = None, password_file: PasswordFile = None,
    new_password: Annotated[bool, typer.Option("--password", help="Ask for a new password.")] = False,
    active: Annotated[bool | None, typer.Option("--active/--inactive", help="Whether he may use the platform.")] = None,
    data: Data = None, config: Config = None, json: Json = False,
) -> int:  # fmt: skip
    """Change a user."""
    settings = settings_of(data, config)
    is_asked = new_password or password_file is not None
    password = objects.read_secret(password_file, prompt=f"New password of {name}") if is_asked else None
    given = {"name": name, "role": role, "email": email, "password": password, "active": active}
    objects.tell(objects.declare(settings, "users", given, is_new=False))
    return 0


@app.command(name="list")
def list_(data: Data = None, config: Config = None, json: Json = False) -> int:
    """List the users."""
    users = objects.read(settings_of(data, config), lambda snapshot: snapshot.users.all())
    value = [{"name": user.name, "role": user.role.value, "email": user.email, "active": user.active} for user in users]
    output.table(value, ("name", "role", "email", "active"), (user.values() for user in value))
    return 0


@app.command()
def show(name: Name, data: Data = None, config: Config = None, json: Json = False) -> int:
    """Show a user. Secrets are not shown, except with 'sofia2 export --with-secrets'."""
    user = objects.require(settings_of(data, config), "users", name)
    objects.show(
        {
            "name": user.name,
            "role": user.role.value,
            "email": user.email,
            "active": user.active,
            "has_password": bool(user.password_hash),
            "created_at": user.created_at,
        }
    )
    return 0


@app.command()
def remove(name: Name, data: Data = None, config: Config = None, json: Json = False) -> int:
    """Delete a user who owns nothing any more."""
    objects.remove(settings_of(data, config), "users", name, lambda snapshot: snapshot.users.delete(name))
    return 0
