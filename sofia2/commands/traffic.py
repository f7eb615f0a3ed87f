"""``sofia2 send``, ``demo`` and ``load``: messages to a running platform."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from sofia2.commands import objects
from sofia2.commands.data import as_json
from sofia2.commands.options import Config, Data, Json, folder_of, platform_config, settings_of
from sofia2.console import NO, WRONG_INPUT, CliError, output

if TYPE_CHECKING:
    from sofia2.settings import Settings

SCHEMES = {"mqtt": ("mqtt", "mqtts"), "websocket": ("http", "https")}

Via = Annotated[str, typer.Option(metavar="WAY", help="mqtt or websocket.")]
ListenerName = Annotated[
    str | None, typer.Option("--listener", metavar="NAME", help="A listener other than the standard one.")
]


def send(
    message: Annotated[
        str, typer.Argument(metavar="MESSAGE", help="An SSAP message (JSON); - reads it from the standard input.")
    ],
    via: Via = "mqtt",
    kp: Annotated[
        str | None, typer.Option(metavar="NAME[:INSTANCE]", help="Join as this KP first, with a token of its own.")
    ] = None,
    wait: Annotated[float, typer.Option(metavar="S", help="Print what comes during S seconds after the answer.")] = 0.0,
    timeout: Annotated[float, typer.Option(metavar="S", help="How long to wait for the answer.")] = 35.0,
    listener: ListenerName = None,
    data: Data = None,
    config: Config = None,
    json: Json = False,
) -> int:
    """Send one SSAP message to the running platform and print its answer. Exit 1: the platform says no, 5: it may not."""
    import asyncio

    from sofia2.messenger import exchange

    settings = settings_of(data, config)
    request = as_json(objects.read_text("-") if message == "-" else message)
    if not isinstance(request, dict):
        raise CliError(WRONG_INPUT, 'an SSAP message is a JSON object: {"messageType": "INSERT", …}')
    url = endpoint(settings, via, listener)
    credentials = None if kp is None else (kp, token_of(settings, kp.partition(":")[0]))
    answers = asyncio.run(exchange(url, request, credentials, timeout_s=timeout, wait_s=wait, told=_tell_payload))
    if output.is_json:
        output.result(answers if wait else answers[0])
    return _status(answers[0])


def _tell_payload(payload: Any) -> None:
    import json as json_module

    if not output.is_json:
        print(json_module.dumps(payload, ensure_ascii=False, indent=2), flush=True)


def _status(answer: Any) -> int:
    from sib.errors import SSAPErrorCode
    from sofia2.console import NOT_PERMITTED
    from sofia2.messenger import body_of

    body = body_of(answer)
    if body.get("ok", True):
        return 0
    is_refused = body.get("errorCode") in (SSAPErrorCode.AUTHENTICATION, SSAPErrorCode.AUTHORIZATION)
    return NOT_PERMITTED if is_refused else NO


def endpoint(settings: Settings, via: str, listener: str | None) -> str:
    """The URL of a listener of the running platform.

    Raises:
        CliError: no platform runs, or it has no such listener.
    """
    if via not in SCHEMES:
        raise CliError(WRONG_INPUT, f"--via is mqtt or websocket, not {via!r}")
    state = folder_of(settings).running()
    if state is None:
        raise CliError(NO, f"no platform runs on {settings.data}: start one with 'sofia2 start --detach'")
    found: dict[str, str] = state["endpoints"]
    names = [listener] if listener is not None else [name for name in SCHEMES[via] if name in found]
    if not names or names[0] not in found:
        raise CliError(NO, f"the platform has no such listener: it has {', '.join(found)}")
    return found[names[0]]


def token_of(settings: Settings, kp: str) -> str:
    """An active token of a KP.

    Raises:
        CliError: there is no such KP, or it has none.
    """
    objects.require(settings, "kps", kp)
    found = objects.read(settings, lambda snapshot: snapshot.tokens.all(kp))
    token: str | None = next((record.token for record in found if record.active), None)
    if token is None:
        raise CliError(NO, f"the KP {kp!r} has no active token: make one with 'sofia2 token add {kp}'")
    return token


def demo(
    count: Annotated[int, typer.Option(metavar="N", help="End after N instances; 0: on Ctrl-C.")] = 0,
    interval: Annotated[float, typer.Option(metavar="S", help="Seconds between two instances.")] = 1.0,
    via: Via = "mqtt",
    data: Data = None,
    config: Config = None,
    json: Json = False,
) -> int:
    """Create the thermostat example on the running platform and let a simulated device send readings to it."""
    import asyncio

    from sofia2 import demo as example
    from sofia2 import demo_modules

    settings = settings_of(data, config)
    url = endpoint(settings, via, None)
    for line in example.prepare(settings):
        output.say(line)
    for line in demo_modules.prepare(settings, platform_config(settings).modules):
        output.say(line)
    output.say(f"\nThe thermostat joins at {url} and sends a reading every {interval:g} s. Ctrl-C ends it.\n")
    totals = example.Totals()
    try:
        asyncio.run(
            example.run(url, token_of(settings, example.KP), totals, count=count, interval_s=interval, told=_tell_demo)
        )
    except KeyboardInterrupt:
        output.say("")
    told = f"{totals.stored} readings stored, {totals.notified} notified."
    more = f"See them with: sofia2 query 'select * from {example.ONTOLOGY} limit 5'"
    output.result({"stored": totals.stored, "notified": totals.notified, "ontology": example.ONTOLOGY}, [told, more])
    return 0


def _tell_demo(line: str) -> None:
    if output.is_json:
        output.say(line)
    else:
        print(line, flush=True)


def load(
    clients: Annotated[int, typer.Option(metavar="N", min=1, max=10_000, help="MQTT connections.")] = 20,
    in_flight: Annotated[
        int, typer.Option(metavar="N", min=1, max=1000, help="Requests of each that wait for an answer.")
    ] = 20,
    seconds: Annotated[float, typer.Option(metavar="S", min=0.1, help="How long.")] = 10.0,
    listener: ListenerName = None,
    data: Data = None,
    config: Config = None,
    json: Json = False,
) -> int:
    """Load the running platform with INSERTs over MQTT and watch. The instances go to the ontology LoadTest and stay there."""
    from sofia2.load import KP, ONTOLOGY, LoadPlan, prepare, run

    settings = settings_of(data, config)
    url = endpoint(settings, "mqtt", listener)
    for line in prepare(settings):
        output.say(line)
    plan = LoadPlan(url, KP, token_of(settings, KP), ONTOLOGY, clients=clients, in_flight=in_flight, seconds=seconds)
    result = run(plan, output.console())
    rows = [(name.replace("_", " "), value) for name, value in result.items()]
    output.table(result, ("what", "value"), rows, title="INSERTs over MQTT")
    return 0 if not result["refused"] and not result["lost"] else NO
