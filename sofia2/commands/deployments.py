"""``sofia2 kp deploy``, ``start``, ``stop``, ``undeploy``, ``logs`` and ``ps``: KPs that run inside the platform."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sofia2.commands import objects
from sofia2.commands.options import Config, Data, Json, configuration, folder_of, platform_config, settings_of
from sofia2.console import NO, NOT_PERMITTED, TIMED_OUT, WRONG_INPUT, CliError, output

if TYPE_CHECKING:
    from actors.kp.bundle import Files
    from actors.kp.manifest import Manifest
    from sofia2.settings import Settings
    from storage.bdc.bdc import Bdc
    from storage.bdc.configuration import Configuration
    from storage.bdc.deployments import Deployment

STARTED_S, STOPPED_S = 30.0, 30.0
POLL_S = 0.1
LINES = 1000
SECRET_BYTES_MAX = 64 * 1024

secrets = typer.Typer(help="Secrets: texts that the programs of a KP may ask for.", no_args_is_help=True)
Kp = Annotated[str, typer.Argument(metavar="NAME", help="The KP.")]
Key = Annotated[str, typer.Argument(metavar="KEY", help="The secret's name.")]
Which = Annotated[
    str, typer.Argument(metavar="NAME[:INSTANCE]", help="The KP; without an instance all that are deployed.")
]


def register(app: typer.Typer) -> None:
    """Make these commands of ``sofia2 kp``."""
    for command in (deploy, start, stop, undeploy, logs, ps):
        app.command()(command)
    app.add_typer(secrets, name="secret")


def deploy(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder (or zip file) with a kp.toml.")],
    user: Annotated[str | None, typer.Option(metavar="USER", help="The owner of the KP.")] = None,
    data: Data = None,
    config: Config = None,
    json: Json = False,
) -> int:
    """Have the platform run a KP, in place of the release that runs. It needs the module kp."""
    from actors.kp.bundle import manifest_of, pack, read_files

    settings = settings_of(data, config)
    files = read_files(folder)
    manifest = manifest_of(files)
    _check_program(manifest, files)
    with configuration(settings, for_change=True) as bdc:
        owner = _check_grants(bdc, settings, manifest, user)
        manifest = _with_layer(settings, manifest)
        with bdc.change() as snapshot:
            snapshot.deployments.deploy(
                manifest.name, manifest.instance, pack(files), manifest.to_json(), user=user or owner
            )
            snapshot.audit(f"deployed the KP {manifest.name}:{manifest.instance}", user=user or owner)
        deployment = _find(bdc, f"{manifest.name}:{manifest.instance}")[0]
    _tell([_started(settings, deployment)], is_one=True)
    return 0


def start(
    which: Which,
    release: Annotated[
        int | None, typer.Option(metavar="N", help="An earlier release; default: the one in force.")
    ] = None,
    data: Data = None,
    config: Config = None,
    json: Json = False,
) -> int:
    """Start a deployed KP; one that runs is started anew."""
    settings = settings_of(data, config)
    with configuration(settings, for_change=True) as bdc:
        found = _find(bdc, which)
        with bdc.change() as snapshot:
            for each in found:
                snapshot.deployments.start(each.kp, each.instance, release=release)
        found = _find(bdc, which)
    _tell([_started(settings, each) for each in found])
    return 0


def stop(which: Which, data: Data = None, config: Config = None, json: Json = False) -> int:
    """Stop a deployed KP; returns when its processes have ended."""
    from storage.bdc.deployments import RunState

    def act(snapshot: Configuration, each: Deployment) -> None:
        snapshot.deployments.set_state(each.kp, each.instance, RunState.STOPPED)

    return _end(settings_of(data, config), which, act, "stopped")


def undeploy(which: Which, data: Data = None, config: Config = None, json: Json = False) -> int:
    """Stop a deployed KP and remove its files. The KP itself stays."""

    def act(snapshot: Configuration, each: Deployment) -> None:
        snapshot.deployments.delete(each.kp, each.instance)

    return _end(settings_of(data, config), which, act, "removed")


def _end(settings: Settings, which: str, act: Callable[[Configuration, Deployment], None], state: str) -> int:
    """End what is meant, and return when it has ended."""
    with configuration(settings, for_change=True) as bdc:
        found = _find(bdc, which)
        with bdc.change() as snapshot:
            for each in found:
                act(snapshot, each)
        version = bdc.config_version()
    _wait_in_force(settings, version)
    _tell([{"name": each.kp, "instance": each.instance, "state": state} for each in found])
    return 0


def logs(
    which: Which,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what it prints from now on.")] = False,
    lines: Annotated[int, typer.Option(metavar="N", min=0, help="The newest lines.")] = LINES,
    data: Data = None,
    config: Config = None,
) -> int:
    """What a deployed KP has printed: moment, source (out, err, or --- for the platform) and text."""
    from actors.kp.log import LogReader, log_path
    from actors.kp.places import worker_name

    settings = settings_of(data, config)
    found = find_one(settings, which)
    reader = LogReader(log_path(platform_config(settings).data, worker_name(found.kp, found.instance)))
    show = _harmless if sys.stdout.isatty() else str
    for line in reader.tail(lines):
        print(show(line))
    if follow:
        sys.stdout.flush()
        for line in reader.follow():
            print(show(line), flush=True)
    return 0


def ps(data: Data = None, config: Config = None, json: Json = False) -> int:
    """The deployed KPs and what each does: running, stopped, failed (it is started again), paused (it is not)."""
    found = _states(settings_of(data, config))
    columns = ("name", "instance", "state", "release", "since", "pid", "MiB", "CPU s", "detail")
    output.table(found, columns, ([*_row(each)] for each in found))
    return 0


@secrets.command(name="set")
def set_secret(
    name: Kp,
    key: Key,
    file: Annotated[str, typer.Option("--file", metavar="FILE", help="Where it stands; - for the standard input.")],
    data: Data = None,
    config: Config = None,
    json: Json = False,
) -> int:
    """Give a KP a secret: the text of a file, without the end of its last line."""
    text = objects.read_text(file, bytes_max=SECRET_BYTES_MAX).removesuffix("\n").removesuffix("\r")
    objects.change(settings_of(data, config), lambda snapshot: snapshot.deployments.put_secret(name, key, text))
    output.result({"kp": name, "secret": key, "outcome": "set"}, [f"{name}: the secret {key} is set"])
    return 0


@secrets.command(name="list")
def list_secrets(name: Kp, data: Data = None, config: Config = None, json: Json = False) -> int:
    """The names of a KP's secrets."""
    found = objects.read(settings_of(data, config), lambda snapshot: snapshot.deployments.secret_names(name))
    output.result(found, found)
    return 0


@secrets.command(name="remove")
def remove_secret(name: Kp, key: Key, data: Data = None, config: Config = None, json: Json = False) -> int:
    """Forget a secret of a KP."""
    objects.change(settings_of(data, config), lambda snapshot: snapshot.deployments.delete_secret(name, key))
    output.result({"kp": name, "secret": key, "outcome": "removed"}, [f"{name}: the secret {key} is removed"])
    return 0


# ---------------------------------------------------------------------- deploying


def _check_program(manifest: Manifest, files: Files) -> None:
    if manifest.is_node:
        from actors.kp.process import find_node

        find_node()
        return
    try:
        compile(files[manifest.entry], manifest.entry, "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None) or 1
        raise CliError(WRONG_INPUT, f"{manifest.entry}, line {line}: {getattr(error, 'msg', error)}") from None


def _check_grants(bdc: Bdc, settings: Settings, manifest: Manifest, user: str | None) -> str:
    """The owner of the KP, who may have it run and whose ontologies it names."""
    from actors.kp.grants import check_may_deploy, unregistered

    with bdc.read() as snapshot:
        kp = snapshot.kps.get(manifest.name)
        if kp is None:
            raise CliError(NO, f"there is no KP {manifest.name!r}: make it with 'sofia2 kp add' or 'sofia2 apply'")
        if user is not None and user != kp.owner:
            raise CliError(NOT_PERMITTED, f"the KP {manifest.name!r} does not belong to {user!r}")
        deployers = snapshot.settings.all().get("kp.deployers", settings.get("kp.deployers"))
        check_may_deploy(snapshot.users.get(kp.owner), deployers)
    missing = unregistered(manifest, kp)
    if missing:
        raise CliError(WRONG_INPUT, f"kp.toml: ontologies: {missing[0]!r} is not registered with the KP {kp.name!r}")
    return kp.owner


def _with_layer(settings: Settings, manifest: Manifest) -> Manifest:
    """Install the dependencies, so that what is missing is told now."""
    from dataclasses import replace

    from actors.kp.layers import install, layer_name
    from actors.kp.places import layers_folder, wheelhouse_of

    if not manifest.dependencies:
        return manifest
    platform = platform_config(settings)
    wheelhouse = wheelhouse_of(platform.data, settings.get("kp.wheelhouse"))
    name = layer_name(manifest.dependencies, wheelhouse)
    install(name, manifest.dependencies, wheelhouse, layers_folder(platform.data))
    return replace(manifest, layer=name)


def _harmless(line: str) -> str:
    """A line of a program for a terminal, which would obey its control characters."""
    return "".join(char if char.isprintable() or char == "\t" else f"\\x{ord(char):02x}" for char in line)


def _find(bdc: Bdc, which: str) -> list[Deployment]:
    name, _, instance = which.partition(":")
    with bdc.read() as snapshot:
        found = snapshot.deployments.all(name)
    found = [each for each in found if not instance or each.instance == instance]
    if not found:
        raise CliError(NO, f"no KP {which!r} is deployed: see 'sofia2 kp ps'")
    return found


def find_one(settings: Settings, which: str) -> Deployment:
    """The one deployed KP instance that ``NAME`` or ``NAME:INSTANCE`` means.

    Raises:
        CliError: none is deployed, or several instances are.
    """
    with configuration(settings) as bdc:
        found = _find(bdc, which)
    if len(found) > 1:
        names = ", ".join(f"{each.kp}:{each.instance}" for each in found)
        raise CliError(WRONG_INPUT, f"{which} has several instances: say which one of {names}")
    return found[0]


# ---------------------------------------------------------------------- the running platform


def _runs(settings: Settings) -> bool:
    return folder_of(settings).running() is not None


def _wait_in_force(settings: Settings, version: int) -> None:
    from sofia2.control import wait_in_force

    if not wait_in_force(folder_of(settings), version, timeout_s=STOPPED_S):
        raise CliError(TIMED_OUT, f"it is stored, but the platform has not done it within {STOPPED_S:g} s")


def _started(settings: Settings, deployment: Deployment) -> dict[str, Any]:
    """What the KP does after its start: it runs, has ended already, or has failed."""
    from actors.kp.container import stored_kp
    from actors.kp.places import RESTARTS, STARTS

    if not _runs(settings):
        output.warn("no platform runs on this data folder: the KP starts with it")
        return {**stored_kp(deployment), "state": "stopped"}
    if "kp" not in platform_config(settings).modules:
        output.warn("the module kp is off: the KP starts when the platform is started with --modules …,kp")
        return {**stored_kp(deployment), "state": "stopped"}
    deadline = time.monotonic() + STARTED_S
    while time.monotonic() < deadline:
        for each in _states(settings):
            if (each["name"], each["instance"]) != (deployment.kp, deployment.instance):
                continue
            if each["starts"] == deployment.starts and each["detail"] not in (STARTS, RESTARTS):
                return each
        time.sleep(POLL_S)
    raise CliError(TIMED_OUT, f"{deployment.kp} is deployed, but has not started within {STARTED_S:g} s")


def _states(settings: Settings) -> list[dict[str, Any]]:
    from actors.kp.container import stored_kp
    from sofia2.control import call
    from storage.bdc.deployments import RunState

    if _runs(settings):
        found: list[dict[str, Any]] = call(folder_of(settings), "platform", "kps")
        return found
    deployments = objects.read(settings, lambda snapshot: snapshot.deployments.all())
    return [
        {**stored_kp(each), **({"state": "stopped"} if each.state is RunState.RUNNING else {})} for each in deployments
    ]


def _tell(entries: list[dict[str, Any]], *, is_one: bool = False) -> None:
    lines = []
    for each in entries:
        detail = each.get("detail")
        lines.append(f"{each['name']}:{each['instance']}: {each['state']}{f' ({detail})' if detail else ''}")
    output.result(entries[0] if is_one or len(entries) == 1 else entries, lines)


def _row(entry: dict[str, Any]) -> list[Any]:
    memory, cpu = entry.get("memory_bytes"), entry.get("cpu_s")
    shown = [entry.get(key) for key in ("name", "instance", "state", "release", "since", "pid")]
    return [
        *shown,
        None if memory is None else round(memory / 2**20),
        None if cpu is None else round(cpu, 1),
        entry["detail"],
    ]
