"""What the thermostat example has besides: a CEP rule, a script rule that reacts to it, and a KP that the platform runs.

Each needs its module; without it nothing is made.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

from sofia2.commands import objects
from sofia2.commands.options import configuration, in_force
from sofia2.demo import HOT, ONTOLOGY, USER

if TYPE_CHECKING:
    from sofia2.settings import Settings

WARNING, REPORT, KP_INSIDE = "AvisoTermostato", "InformeTermostato", "KPResumen"
RULE = "TermostatoCaliente"
SCRIPT_RULE = "InformeDeAvisos"

_SCRIPT: list[tuple[str, dict[str, Any]]] = [
    ("ontologies", {"name": WARNING, "schema": {"type": "object", "properties": {"temp": {"type": "number"}}}}),
    ("ontologies", {"name": REPORT, "schema": {"type": "object"}}),
    ("cep_events", {"name": "termostato", "ontology": ONTOLOGY, "attributes": ["temp", "hum"]}),
    (
        "cep_rules",
        {
            "name": RULE,
            "from": f"every a=TERMOSTATO[{ONTOLOGY.upper()}__TEMP > {HOT:g}] -> "
            f"b=TERMOSTATO[{ONTOLOGY.upper()}__TEMP > a.{ONTOLOGY.upper()}__TEMP] within 1 min",
            "select": f"b.{ONTOLOGY.upper()}__TEMP as temp",
            "insert_into": WARNING,
        },
    ),
    (
        "rules",
        {
            "name": SCRIPT_RULE,
            "type": "cep",
            "cep": WARNING,
            "then": "import json\n"
            'warning = json.loads(cepData)["inEvents"]\n'
            f'sofia.insert("{REPORT}", {{"text": f"hot and rising: {{warning[\'temp\']}}"}})\n',
        },
    ),
]
_PROGRAM = f"""import asyncio
import sofia2


async def main():
    count, total = 0, 0.0
    async with sofia2.KP() as kp, kp.subscribe("{ONTOLOGY}") as readings:
        async for reading in readings:
            count, total = count + 1, total + reading["{ONTOLOGY}"]["temp"]
            print(f"{{count}} readings, {{total / count:.1f}} degrees on average", flush=True)


asyncio.run(main())
"""
_MANIFEST = f"""name = "{KP_INSIDE}"
instance = "house"
entry = "main.py"
ontologies = ["{ONTOLOGY}"]
"""


def prepare(settings: Settings, modules: Collection[str]) -> Iterator[str]:
    """Create what is missing, as far as its module is on; one line for each object."""
    if "script" in modules:
        for section, given in _SCRIPT:
            yield _ensure(settings, section, given)
    if "kp" in modules:
        yield _ensure(settings, "kps", {"name": KP_INSIDE, "ontologies": [ONTOLOGY]})
        yield _deploy(settings)


def _ensure(settings: Settings, section: str, given: dict[str, Any]) -> str:
    kind, name = objects.KINDS[section][0], given["name"]
    if objects.exists(settings, section, name):
        return f"{kind} {name}: is there already"
    report = objects.declare(settings, section, {"owner": _owner(settings), **given}, is_new=True)
    return str(report.objects[0])


def _owner(settings: Settings) -> str:
    """Whose the example is."""
    ontology = objects.read(settings, lambda snapshot: snapshot.ontologies.get(ONTOLOGY))
    return USER if ontology is None else str(ontology.owner)


def _deploy(settings: Settings) -> str:
    from actors.kp.bundle import manifest_of, pack

    files = {"kp.toml": _MANIFEST.encode(), "main.py": _PROGRAM.encode()}
    manifest, owner = manifest_of(files), _owner(settings)
    with configuration(settings, for_change=True) as bdc:
        with bdc.change() as snapshot:
            if snapshot.deployments.get(manifest.name, manifest.instance) is not None:
                return f"KP {manifest.name}:{manifest.instance}: is deployed already"
            deployers = list(snapshot.settings.all().get("kp.deployers", settings.get("kp.deployers")))
            if owner not in deployers:
                snapshot.settings.put("kp.deployers", [*deployers, owner])
            content = manifest.to_json()
            snapshot.deployments.deploy(manifest.name, manifest.instance, pack(files), content, user=owner)
        version = bdc.config_version()
    in_force(settings, version)
    return f"KP {manifest.name}:{manifest.instance}: deployed (sofia2 kp logs {manifest.name})"
