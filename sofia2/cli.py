"""The command ``sofia2``: its tree of commands, and how it ends.

Invariant: whatever happens, the person gets one sentence that says what to do, and the exit status says what kind it is.
"""

from __future__ import annotations

import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import typer

from sofia2.commands import (
    about,
    cep,
    configure,
    data,
    db,
    definitions,
    kps,
    lifecycle,
    offline,
    ontologies,
    processes,
    rules,
    traffic,
    users,
)
from sofia2.console import FAULT, NO, NOT_PERMITTED, WRONG_INPUT, CliError, output

app = typer.Typer(
    name="sofia2",
    help="Sofia2 on Ray: an IoT platform that speaks SSAP over MQTT, WebSocket and REST.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
)
_PANELS = {
    "The platform": (lifecycle.start, lifecycle.stop, lifecycle.status, about.init, about.settings, about.version),
    "Configuration": (configure.apply, configure.export),
    "Data": (data.query, data.explain, data.validate),
    "Messages": (traffic.send, traffic.demo, traffic.load),
}
_GROUPS = {
    "user": users.app,
    "ontology": ontologies.app,
    "kp": kps.app,
    "token": kps.tokens,
    "predefined": definitions.predefined,
    "asset": definitions.assets,
    "rule": rules.app,
}
for _panel, _commands in _PANELS.items():
    for _command in _commands:
        app.command(rich_help_panel=_panel)(_command)
for _tool in (offline.sandbox,):
    app.command(
        rich_help_panel="Without a platform",
        add_help_option=False,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    )(_tool)
for _name, _group in _GROUPS.items():
    app.add_typer(_group, name=_name, rich_help_panel="Configuration")
app.add_typer(cep.app, name="cep", rich_help_panel="The platform")
app.add_typer(processes.app, name="process", rich_help_panel="The platform")
app.add_typer(db.app, name="db", rich_help_panel="The platform")


def main(arguments: list[str] | None = None) -> None:
    """Entry of the command. Ends the process with the status of ``sofia2.console``."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Carry out one command line; gives the exit status."""
    output.is_json = "--json" in arguments
    try:
        status = app(arguments, standalone_mode=False, prog_name="sofia2")
    except CliError as error:
        return output.fail(error.status, error.message, **error.facts)
    except typer.Abort:
        return output.fail(WRONG_INPUT, "stopped: nothing was changed")
    except typer.TyperException as error:
        return _usage(error)
    except KeyboardInterrupt:
        return 130
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else WRONG_INPUT
    except BrokenPipeError:
        sys.stderr.close()
        return FAULT
    except Exception as error:
        return _other(error)
    return status if isinstance(status, int) else 0


def _usage(error: typer.TyperException) -> int:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "sofia2"
    message = error.format_message()
    if not message:  # no command at all: the help has been printed
        return WRONG_INPUT
    end = "" if message.endswith((".", "?")) else "."
    return output.fail(WRONG_INPUT, f"{message}{end} See '{path} --help'.")


def _other(error: Exception) -> int:
    from sib import errors

    if not isinstance(error, errors.SibError):
        return output.fail(FAULT, f"our own fault ({type(error).__name__}): the details are in {_write_details()}")
    return output.fail(_status_of(error), error.message, code=error.code)


def _status_of(error: Any) -> int:
    from sib import errors

    if isinstance(error, errors.AuthenticationError | errors.AuthorizationError):
        return NOT_PERMITTED
    if isinstance(error, errors.NotFoundError | errors.OntologyNotFoundError | errors.DefinedQueryNotFoundError):
        return NO
    if isinstance(error, errors.StoreUnavailableError):
        return FAULT
    return WRONG_INPUT


def _write_details() -> Path:
    with tempfile.NamedTemporaryFile("w", prefix="sofia2-error-", suffix=".log", delete=False) as file:
        traceback.print_exc(file=file)
    return Path(file.name)
