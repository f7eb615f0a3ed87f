"""What all groups of objects (users, ontologies, KPs, …) share: they are written the way ``sofia2 apply`` writes them.

One code path: every check and every sentence is that of an applied file with this one object in it.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sofia2.commands.options import configuration, in_force
from sofia2.console import NO, WRONG_INPUT, CliError, output

if TYPE_CHECKING:
    from sofia2.apply import Report
    from sofia2.settings import Settings
    from storage.bdc.configuration import Configuration

Get = Callable[["Configuration", str], Any]

KINDS: dict[str, tuple[str, Get]] = {
    "users": ("user", lambda snapshot, name: snapshot.users.get(name)),
    "ontologies": ("ontology", lambda snapshot, name: snapshot.ontologies.get(name)),
    "kps": ("KP", lambda snapshot, name: snapshot.kps.get(name)),
    "queries": ("query", lambda snapshot, name: snapshot.queries.get(name)),
    "assets": ("asset", lambda snapshot, name: snapshot.assets.get(name)),
    "cep_events": ("CEP event", lambda snapshot, name: snapshot.cep_events.get(name)),
    "cep_rules": ("CEP rule", lambda snapshot, name: snapshot.cep_rules.get(name)),
    "rules": ("rule", lambda snapshot, name: snapshot.rules.get(name)),
}
SECRET_BYTES_MAX = 4096


def declare(settings: Settings, section: str, given: dict[str, Any], *, is_new: bool, key: str = "name") -> Report:
    """Create (``is_new``) or change one object; keys that are None are left as they are.

    Raises:
        CliError: it exists already, or does not, or what was given is wrong.
    """
    from sofia2.apply import STANDARD_INPUT, apply_files
    from sofia2.export import dump
    from sofia2.settings import check_setting

    kind, get = KINDS[section]
    name = given[key]
    wanted = {option: value for option, value in given.items() if value is not None}
    with configuration(settings, for_change=True) as bdc:
        with bdc.read() as snapshot:
            exists = get(snapshot, name) is not None
        if exists and is_new:
            raise CliError(WRONG_INPUT, f"there is a {kind} {name!r} already: change it with 'set'")
        if not exists and not is_new:
            raise missing(kind, name)
        text = io.StringIO(dump({"sofia2": 1, section: [wanted]}))
        report = apply_files(bdc, [STANDARD_INPUT], check_setting=check_setting, standard_input=text)
    for warning in report.warnings:
        output.warn(warning.message)
    if not report.is_ok:
        raise CliError(WRONG_INPUT, " ".join(problem.message for problem in report.problems))
    in_force(settings, report.version)
    return report


def tell(report: Report, **facts: Any) -> None:
    """What became of the one object of a report, with facts such as a generated token."""
    item = report.objects[0]
    value = {"kind": item.kind, "name": item.name, "outcome": item.outcome.value, **facts}
    output.result(value, [str(item), *(f"{name.replace('_', ' ')}: {fact}" for name, fact in facts.items())])


def change(settings: Settings, act: Callable[[Configuration], Any]) -> Any:
    """Carry out a change of the configuration in one transaction and wait until it is in force."""
    with configuration(settings, for_change=True) as bdc:
        with bdc.change() as snapshot:
            result = act(snapshot)
        version = bdc.config_version()
    in_force(settings, version)
    return result


def remove(settings: Settings, section: str, name: str, act: Callable[[Configuration], Any]) -> None:
    """Delete one object.

    Raises:
        CliError: there is none. StoreError: something depends on it.
    """
    kind, get = KINDS[section]

    def delete(snapshot: Configuration) -> None:
        if get(snapshot, name) is None:
            raise missing(kind, name)
        act(snapshot)

    change(settings, delete)
    output.result({"kind": kind, "name": name, "outcome": "removed"}, [f"{kind} {name}: removed"])


def read(settings: Settings, act: Callable[[Configuration], Any]) -> Any:
    """Read the configuration of one moment."""
    with configuration(settings) as bdc, bdc.read() as snapshot:
        return act(snapshot)


def exists(settings: Settings, section: str, name: str) -> bool:
    """Whether there is such an object."""
    _, get = KINDS[section]
    return read(settings, lambda snapshot: get(snapshot, name)) is not None


def require(settings: Settings, section: str, name: str) -> Any:
    """The record of one object.

    Raises:
        CliError: there is none.
    """
    kind, get = KINDS[section]
    record = read(settings, lambda snapshot: get(snapshot, name))
    if record is None:
        raise missing(kind, name)
    return record


def missing(kind: str, name: str) -> CliError:
    """There is no such object."""
    return CliError(NO, f"there is no {kind} {name!r}: see what there is with 'list'")


def show(value: dict[str, Any]) -> None:
    """One object: its keys and values."""
    output.table(value, ("key", "value"), ((name, _shown(item)) for name, item in value.items()))


def pairs(texts: Sequence[str] | None, what: str) -> dict[str, str] | None:
    """``NAME=VALUE`` options as a map; None if none was given.

    Raises:
        CliError: one has another form.
    """
    if texts is None:
        return None
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise CliError(WRONG_INPUT, f"{text!r} is not {what}")
        found[name] = value
    return found


def read_secret(file: str | None, *, prompt: str) -> str:
    """A password or another secret: from a file (``-``: standard input), or asked for. Never from the command line.

    Raises:
        CliError: the file cannot be read, or nobody is there to be asked.
    """
    if file is None:
        if not sys.stdin.isatty():
            raise CliError(
                WRONG_INPUT,
                f"{prompt.lower()} is needed: name a file with --password-file, or - for the standard input",
            )
        import typer

        secret: str = typer.prompt(prompt, hide_input=True, confirmation_prompt=True, err=True)
        return secret
    return read_text(file, bytes_max=SECRET_BYTES_MAX).removesuffix("\n").removesuffix("\r")


def read_text(file: str, *, bytes_max: int = 16 << 20) -> str:
    """The text of a file, or of the standard input (``-``).

    Raises:
        CliError: it cannot be read or is too long.
    """
    try:
        content = sys.stdin.buffer.read(bytes_max + 1) if file == "-" else _read_bytes(file, bytes_max + 1)
        text = content.decode("utf-8").removeprefix("\ufeff")
    except OSError as error:
        raise CliError(WRONG_INPUT, f"the file {file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CliError(WRONG_INPUT, f"the file {file} is no UTF-8 text") from None
    if len(content) > bytes_max:
        raise CliError(WRONG_INPUT, f"the file {file} is longer than {bytes_max} bytes")
    return text


def _read_bytes(file: str, size: int) -> bytes:
    with Path(file).open("rb") as stream:
        return stream.read(size)


def _shown(value: Any) -> Any:
    from sofia2.commands.options import compact

    return (
        compact(value)
        if isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict))
        else value
    )
