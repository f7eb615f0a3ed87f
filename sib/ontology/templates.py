"""The catalogue of templates: schemas to begin an ontology with. Each is one JSON file in ``catalogue/``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from sib.errors import NotFoundError


@dataclass(frozen=True, slots=True)
class Template:
    """A schema of the catalogue.

    ``schema_text`` is the schema as it stands in the catalogue; ``schema_for`` makes an ontology's schema of it.
    """

    name: str
    version: int
    category: str
    description: str
    schema_text: str
    root_is_ontology_name: bool = False

    def schema_for(self, ontology: str) -> str:
        """The text of the schema of an ontology made from this template.

        Only EmptyBase has no root name of its own and takes the ontology's; SensorPoint stays ``Sensor`` whatever the
        ontology is called.
        """
        if not self.root_is_ontology_name:
            return self.schema_text
        schema = json.loads(self.schema_text)
        schema["title"] = f"{ontology} Schema"
        schema["required"] = [ontology]
        schema["properties"] = {ontology: schema["properties"][self.name]}
        schema["datos"]["description"] = f"Info {ontology}"
        return _print(schema)


def template(name: str, version: int | None = None) -> Template:
    """Find a template. Case, blanks, ``-`` and ``_`` of its name do not matter (``gsma_weatherObserved``).

    Raises:
        NotFoundError: no such template, or not in this version; the message lists what there is.
    """
    found = _BY_PLAIN_NAME.get(_plain(name))
    if found is None:
        raise NotFoundError(f'There is no template "{name}": take one of {", ".join(TEMPLATES)}.')
    if version is not None and version != found.version:
        raise NotFoundError(f'Template "{found.name}" has version {found.version}, not {version}.')
    return found


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _read(text: str) -> Template:
    fields = json.loads(text)
    return Template(schema_text=_print(fields.pop("schema")), **fields)


def _print(schema: dict[str, Any]) -> str:
    return json.dumps(schema, indent=2, ensure_ascii=False)


def _load() -> Mapping[str, Template]:
    folder = files(__package__) / "catalogue"
    texts = [entry.read_text(encoding="utf-8") for entry in folder.iterdir() if entry.name.endswith(".json")]
    found = sorted(map(_read, texts), key=lambda template: (template.category, template.name))
    return MappingProxyType({template.name: template for template in found})


TEMPLATES = _load()
"""All templates by name, sorted by category and name."""

_BY_PLAIN_NAME = {_plain(name): found for name, found in TEMPLATES.items()}
