"""The ontology that a command means: of a platform, of a template, or of a file with a schema."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from sib.errors import ConfigurationError, SibError
from sib.ontology import Ontology, compile_ontology
from sib.ontology.templates import template as find_template

if TYPE_CHECKING:
    from sofia2.settings import Settings


def find_ontology(
    *,
    ontology: str | None = None,
    template: str | None = None,
    schema: str | None = None,
    settings: Callable[[], Settings],
) -> Ontology:
    """Compile the one that is named; exactly one name must be given.

    Args:
        ontology: the name of an ontology of the platform.
        template: NAME or NAME@VERSION of a template of the catalogue.
        schema: the path of a file with a JSON Schema.
        settings: where the platform is; asked only for ``ontology``.

    Raises:
        ConfigurationError: none or several are given, or the name or file is unknown.
        SchemaError: the schema is wrong.
    """
    if sum(name is not None for name in (ontology, template, schema)) != 1:
        raise ConfigurationError("Name one: an ontology of the platform, --template NAME, or --schema FILE.")
    if template is not None:
        return _of_template(template)
    if schema is not None:
        try:
            return compile_ontology(Path(schema).stem, Path(schema).read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no UTF-8 text"
            raise ConfigurationError(f"The schema {schema} cannot be read: {reason}.") from None
    return _of_platform(str(ontology), settings())


def _of_template(told: str) -> Ontology:
    name, _, version = told.partition("@")
    try:
        found = find_template(name, int(version) if version.isdecimal() else None)
    except SibError as error:
        raise ConfigurationError(error.message) from None
    return compile_ontology(found.name, found.schema_for(found.name))


def _of_platform(name: str, settings: Settings) -> Ontology:
    from sofia2.commands.options import configuration, platform_config
    from storage.bdc.quick import read_schema

    quick = read_schema(platform_config(settings).bdc_url, name)
    if quick is not None:
        return compile_ontology(name, quick[0], version=quick[1])
    with configuration(settings) as bdc, bdc.read() as snapshot:
        record = snapshot.ontologies.get(name)
    if record is None:
        raise ConfigurationError(f"There is no ontology {name!r} on the platform of {settings.data}.")
    return compile_ontology(record.name, record.schema_text, version=record.version)
