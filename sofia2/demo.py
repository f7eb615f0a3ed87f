"""The thermostat example: an ontology, a KP, and a simulated device whose readings can be watched.

Source: Sofia2 documentation, "Primeros pasos": the ontology LecturaTermostato.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sofia2.commands import objects
from sofia2.commands.options import in_force

if TYPE_CHECKING:
    from sofia2.kp import KP as Client
    from sofia2.settings import Settings

USER, ONTOLOGY, KP = "demo", "LecturaTermostato", "KPTermostato"
HOT = 25.0
PERIOD = 20
"""Readings of one swing of the temperature."""

SCHEMA: dict[str, Any] = {
    "$schema": "http://json-schema.org/draft-04/schema#",
    "title": "LecturaTermostato Schema",
    "type": "object",
    "required": ["LecturaTermostato"],
    "properties": {"LecturaTermostato": {"type": "string", "$ref": "#/datos"}},
    "datos": {
        "description": "Info LecturaTermostato",
        "type": "object",
        "required": ["temp", "hum"],
        "properties": {"temp": {"type": "number"}, "hum": {"type": "integer"}},
        "additionalProperties": False,
    },
}


@dataclass(slots=True)
class Totals:
    """What happened."""

    stored: int = 0
    notified: int = 0


def prepare(settings: Settings) -> Iterator[str]:
    """Create what is missing of the example; one line for each object. What is there is left as it is."""
    return ensure(settings, {"name": ONTOLOGY, "description": "Readings of a thermostat", "schema": SCHEMA}, KP)


def ensure(settings: Settings, ontology: dict[str, Any], kp: str) -> Iterator[str]:
    """Create an ontology, a KP for it and their owner, as far as they are missing."""
    present = objects.read(settings, lambda snapshot: snapshot.ontologies.get(ontology["name"]))
    owner = USER if present is None else present.owner
    wanted: list[tuple[str, dict[str, Any]]] = [
        ("users", {"name": owner, "role": "COLABORADOR", "password": secrets.token_urlsafe(24)}),
        ("ontologies", {"owner": owner, **ontology}),
        ("kps", {"name": kp, "owner": owner, "ontologies": [ontology["name"]]}),
    ]
    for section, given in wanted:
        kind, name = objects.KINDS[section][0], given["name"]
        if not objects.exists(settings, section, name):
            report = objects.declare(settings, section, given, is_new=True)
            in_force(settings, report.version)
            yield str(report.objects[0])
        else:
            yield f"{kind} {name}: is there already"


async def run(
    url: str, token: str, totals: Totals, *, count: int, interval_s: float, told: Callable[[str], None]
) -> None:
    """Let the device send readings, and tell each and each notification; ends after ``count`` (0: never)."""
    from sofia2.kp import KP as Client

    async with (
        Client(url, kp=f"{KP}:kitchen", token=token) as device,
        Client(url, kp=f"{KP}:panel", token=token) as panel,
    ):
        told(f"joined       session {device.session_key}")
        watching = asyncio.create_task(_watch(panel, totals, told))
        await asyncio.sleep(0)
        try:
            number = 0
            while not count or number < count:
                await _read_once(device, number, totals, told)
                number += 1
                await asyncio.sleep(interval_s)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)


async def _read_once(device: Client, number: int, totals: Totals, told: Callable[[str], None]) -> None:
    swing = math.sin(2 * math.pi * number / PERIOD)
    reading = {"temp": round(22.0 + 6.0 * swing, 1), "hum": round(50 - 10 * swing)}
    id_ = await device.insert(ONTOLOGY, {ONTOLOGY: reading})
    totals.stored += 1
    told(f"stored       {reading['temp']:5.1f} °C  {reading['hum']} %   _id {id_}")


async def _watch(panel: Client, totals: Totals, told: Callable[[str], None]) -> None:
    async with panel.subscribe(ONTOLOGY, f"{{{ONTOLOGY}.temp: {{$gt: {HOT}}}}}") as hot:
        told(f"subscribed   to readings above {HOT:g} °C")
        async for instance in hot:
            totals.notified += 1
            told(f"  NOTIFIED   it is hot: {instance[ONTOLOGY]['temp']} °C")
