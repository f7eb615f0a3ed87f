"""``sofia2 start``, ``stop``, ``status``."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sofia2.commands.options import Config, Data, Json, folder_of, settings_of
from sofia2.console import FAULT, NO, TIMED_OUT, WRONG_INPUT, CliError, output

if TYPE_CHECKING:
    from sofia2.launch import Launch
    from sofia2.settings import Settings


def start(
    config: Config = None,
    apply: Annotated[list[str] | None, typer.Option(metavar="FILE", help="Apply it before the start (repeatable).")] = None,
    data: Data = None,
    host: Annotated[str | None, typer.Option(metavar="ADDR", help="Default 127.0.0.1; another one exposes the listeners.")] = None,
    mqtt_port: Annotated[int | None, typer.Option(metavar="PORT", help="SSAP over MQTT. Default 1883; 0: any free one.")] = None,
    mqtts_port: Annotated[int | None, typer.Option(metavar="PORT", help="With TLS. 8883 once there is a certificate.")] = None,
    http_port: Annotated[int | None, typer.Option(metavar="PORT", help="WebSocket, REST and metrics. Default 8080.")] = None,
    https_port: Annotated[int | None, typer.Option(metavar="PORT", help="The same with TLS.")] = None,
    serve_port: Annotated[int | None, typer.Option(metavar="PORT", help="Ray Serve, if a module needs it. Default 8000.")] = None,
    tls_cert: Annotated[str | None, typer.Option(metavar="FILE", help="Certificate of the TLS listeners (PEM).")] = None,
    tls_key: Annotated[str | None, typer.Option(metavar="FILE", help="Its private key (PEM).")] = None,
    listener: Annotated[list[str] | None, typer.Option(metavar="NAME=URL", help="One more listener (repeatable).")] = None,
    modules: Annotated[str | None, typer.Option(metavar="sib,…", help="The parts that run.")] = None,
    bdc: Annotated[str | None, typer.Option(metavar="URL", help="The configuration database.")] = None,
    bdtr: Annotated[str | None, typer.Option(metavar="URL", help="The real-time database.")] = None,
    bdh: Annotated[str | None, typer.Option(metavar="URL", help="The historical database.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return when the platform is ready; it runs on.")] = False,
    ready_timeout: Annotated[float | None, typer.Option(metavar="S", help="How long to wait. Default 120.")] = None,
    json: Json = False,
) -> int:  # fmt: skip
    """Start the platform; without --detach it runs until Ctrl-C."""
    from sofia2.listeners import split_listener
    from sofia2.settingtable import LISTENERS

    given = {
        "apply": apply, "host": host, "mqtt_port": mqtt_port, "mqtts_port": mqtts_port, "http_port": http_port,
        "https_port": https_port, "serve_port": serve_port, "tls_cert": tls_cert, "tls_key": tls_key, "modules": modules,
        "bdc": bdc, "bdtr": bdtr, "bdh": bdh, "ready_timeout": ready_timeout, "detach": detach or None, "json": json or None,
    }  # fmt: skip
    given |= {LISTENERS + name: url for name, url in map(split_listener, listener or [])}
    settings = settings_of(data, config, **given)
    output.is_json = settings.get("json")
    return _start(settings)


def _start(settings: Settings) -> int:
    from sofia2.daemon import StartError
    from sofia2.launch import Launch, NotAppliedError

    is_detached = settings.get("detach")
    _end_on_signals()
    try:
        with Launch(settings) as launch:
            with output.busy("starting") as progress:
                launch.prepare(settings.get("apply"), progress.update)
                _tell_before(settings, launch)
                ready = launch.run(progress.update, timeout_s=settings.get("ready_timeout"), is_detached=is_detached)
            if not is_detached:
                return _stay(settings, launch, ready)
            _tell_ready(settings, launch, ready)
            return 0
    except NotAppliedError as error:
        return _refused(error)
    except StartError as error:
        raise CliError(error.status, error.message) from None


def _tell_before(settings: Settings, launch: Launch) -> None:
    for text in (*settings.warnings, *(str(warning) for report in launch.reports for warning in report.warnings)):
        output.warn(text)
    for listener in settings.exposed():
        clear = "" if listener.certificate else ", and what it carries, tokens included, can be read on the way"
        output.warn(f"the listener {listener.name} on {listener.host} can be reached from other machines{clear}")
    for report in launch.reports:
        for line in map(str, report.objects):
            output.say(line)


def _tell_ready(settings: Settings, launch: Launch, ready: dict[str, Any]) -> None:
    if output.is_json:
        output.result(ready)
        return
    output.table(ready, ("listener", "endpoint"), ready["endpoints"].items(), title="The platform is ready")
    output.say(f"data folder  {settings.data}\nlog          {launch.folder.log}")
    if settings.file is not None:
        output.say(f"settings     {settings.file}")
    output.say("Ctrl-C stops it." if not settings.get("detach") else "'sofia2 stop' stops it.")


def _end_on_signals() -> None:
    """A kill of this process ends what it started as Ctrl-C does; a script's background job begins with SIGINT ignored."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)


def _stay(settings: Settings, launch: Launch, ready: dict[str, Any]) -> int:
    try:
        _tell_ready(settings, launch, ready)
        status = launch.wait()
    except KeyboardInterrupt:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        output.say("stopping")
        launch.stop()
        return 0
    if status:
        raise CliError(FAULT, f"the platform has ended by itself (status {status}): see {launch.folder.log}")
    output.say("the platform was stopped")
    return 0


def _refused(error: Any) -> int:
    from sofia2.commands.configure import tell_problems

    tell_problems(error.report)
    if output.is_json:
        output.result(error.report.to_json())
    output.say("sofia2: nothing was changed or started; correct the file and start again")
    return WRONG_INPUT


def stop(data: Data = None, config: Config = None, json: Json = False) -> int:
    """Stop the platform of a data folder; returns when all of it has ended."""
    from sofia2.daemon import StartError
    from sofia2.launch import stop_platform

    settings = settings_of(data, config)
    folder = folder_of(settings)
    try:
        with output.busy("stopping"):
            was_running = stop_platform(folder)
    except StartError as error:
        raise CliError(TIMED_OUT, error.message) from None
    told = "stopped" if was_running else f"no platform runs on {settings.data}"
    output.result({"stopped": was_running, "data": str(settings.data)}, [told])
    return 0


def status(data: Data = None, config: Config = None, json: Json = False) -> int:
    """Show the endpoints, databases and actors of a running platform. Exit 1 when none runs or it is not ready."""
    from sofia2 import control

    settings = settings_of(data, config)
    folder = folder_of(settings)
    answer = control.ask(folder, "status")
    if answer is None:
        holder = folder.holder()
        told = f"it is being started or stopped (process {holder})" if holder else "no platform runs"
        output.result(
            {
                "ready": False,
                "running": False,
                "pid": holder,
                "data": str(settings.data),
                "endpoints": {},
                "actors": [],
            },
            [f"{told} on {settings.data}; 'sofia2 start' starts one"],
        )
        return NO
    if output.is_json:
        output.result({"running": True, **answer})
    else:
        _show(answer)
    return 0 if answer["ready"] else NO


def _show(answer: dict[str, Any]) -> None:
    state = "ready" if answer["ready"] else "not ready"
    output.table(
        answer, ("listener", "endpoint"), answer["endpoints"].items(), title=f"Platform {answer['data']}: {state}"
    )
    databases = ((name, health["state"], health.get("detail", "")) for name, health in answer["databases"].items())
    output.table(answer, ("database", "state", "detail"), databases)
    columns = ("name", "kind", "pid", "node", "state", "restarts")
    output.table(answer, ("actor", *columns[1:]), ([actor[column] for column in columns] for actor in answer["actors"]))
    print(f"modules {', '.join(answer['modules'])}; process {answer['pid']}")
