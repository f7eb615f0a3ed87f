"""``sofia2 export``: the configuration in the format that ``sofia2 apply`` reads; applying it changes nothing."""

from __future__ import annotations

import re
from typing import Any

import yaml

from sib.errors import NotFoundError
from sib.ontology import templates
from sofia2.applyfile import FORMAT_VERSION
from sofia2.applysections import extensions
from sofia2.urlsecrets import has_secret
from sofia2.yamlnodes import plain_value
from storage.bdc.bdc import Bdc
from storage.bdc.configuration import Configuration
from storage.bdc.records import IndexDeclaration, KpRecord, OntologyRecord, UserRecord

_UNUSUAL_BREAK = re.compile("[\x85\u2028\u2029]")  # line breaks to YAML, which would become a blank
_WINDOW_UNITS = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))


def export(bdc: Bdc, *, with_secrets: bool = False) -> str:
    """The whole configuration as YAML.

    Without secrets it leaves out password hashes, API keys, cipher keys, tokens and settings that hold a password: applied
    to this platform it still changes nothing; on another one new users lack their passwords.
    """
    with bdc.read() as configuration:
        return dump(export_objects(configuration, with_secrets=with_secrets))


def export_objects(configuration: Configuration, *, with_secrets: bool) -> dict[str, Any]:
    """What ``export`` prints, as plain values."""
    sections = {
        "users": [_user(user, with_secrets) for user in configuration.users.all()],
        "ontologies": [_ontology(configuration, ontology) for ontology in configuration.ontologies.all()],
        "kps": [_kp(configuration, kp, with_secrets) for kp in configuration.kps.all()],
        "queries": [
            {
                "name": query.name,
                "ontology": query.ontology,
                "type": query.type,
                "text": query.text,
                "params": dict(query.params),
            }
            for query in configuration.queries.all()
        ],
        "assets": [
            {
                "identificacion": asset.identificacion,
                "owner": asset.owner,
                "descripcion": asset.descripcion,
                "tipo": asset.tipo,
                "kp": asset.kp,
                "properties": dict(asset.properties),
            }
            for asset in configuration.assets.all()
        ],
        **{
            extension.section.name: [
                extension.export(record) for record in getattr(configuration, extension.repository).all()
            ]
            for extension in extensions()
        },
        "settings": {
            name: value
            for name, value in configuration.settings.all().items()
            if with_secrets or not has_secret(str(value))
        },
    }
    return {"sofia2": FORMAT_VERSION} | {name: content for name, content in sections.items() if content}


def _user(user: UserRecord, with_secrets: bool) -> dict[str, Any]:
    exported: dict[str, Any] = {
        "name": user.name,
        "role": user.role.value,
        "email": user.email,
        "active": user.active,
    }
    if with_secrets:
        exported |= {"api_key": user.api_key}
        if user.password_hash:
            exported |= {"password_hash": user.password_hash}
    return exported


def _ontology(configuration: Configuration, ontology: OntologyRecord) -> dict[str, Any]:
    exported: dict[str, Any] = {
        "name": ontology.name,
        "owner": ontology.owner,
        "description": ontology.description,
        "active": ontology.active,
        "public": ontology.public,
        "parent": ontology.parent,
        "indexes": [_index(index) for index in ontology.indexes],
        "permissions": {user: permission.value for user, permission in ontology.permissions.items()},
        "window": window_text(ontology.window_s),
    }
    if _is_of_template(configuration, ontology):
        return exported | {"template": ontology.template}
    return exported | {"schema_text": ontology.schema_text}


def _is_of_template(configuration: Configuration, ontology: OntologyRecord) -> bool:
    """Whether the template that the ontology was made from still gives exactly its schema."""
    name, _, version = ontology.template.partition("@")
    if not version.isdecimal():
        return False
    own = configuration.templates.get(name, int(version))
    if own is not None:
        return own.schema_text == ontology.schema_text
    try:
        return templates.template(name, int(version)).schema_for(ontology.name) == ontology.schema_text
    except NotFoundError:
        return False


def _kp(configuration: Configuration, kp: KpRecord, with_secrets: bool) -> dict[str, Any]:
    exported: dict[str, Any] = {
        "name": kp.name,
        "owner": kp.owner,
        "description": kp.description,
        "ontologies": sorted(kp.ontologies),
        "cipher_only": kp.cipher_only,
        "meta": dict(kp.meta),
        "instances": [instance.name for instance in configuration.instances.all(kp.name) if instance.static],
    }
    if with_secrets:
        exported["cipher_key"] = kp.cipher_key
        exported["tokens"] = [
            token.token if token.active else {"token": token.token, "active": False}
            for token in configuration.tokens.all(kp.name)
        ]
    return exported


def _index(index: IndexDeclaration) -> str | dict[str, Any]:
    if index == IndexDeclaration(fields=index.fields) and len(index.fields) == 1:
        return index.fields[0]
    exported: dict[str, Any] = {"fields": list(index.fields), "type": index.type}
    exported |= {key: True for key in ("unique", "sparse") if getattr(index, key)}
    if index.expire_after_s is not None:
        exported["expire_after"] = window_text(index.expire_after_s)
    return exported


def window_text(seconds: int | None) -> str | None:
    """A duration as the file has it, in the largest unit that fits."""
    if seconds is None:
        return None
    unit, size = next((unit, size) for unit, size in _WINDOW_UNITS if seconds % size == 0)
    return f"{seconds // size}{unit}"


class _Dumper(yaml.SafeDumper):
    """Writes what ``sofia2.yamlnodes`` reads back unchanged."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None
    if _means_no_text(text) or _UNUSUAL_BREAK.search(text):
        style = '"'
    elif "\n" in text:
        style = "|"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _means_no_text(text: str) -> bool:
    try:
        return not isinstance(plain_value(text), str)
    except ValueError:
        return True


_Dumper.add_representer(str, _represent_text)


def dump(value: Any) -> str:
    """Plain values as YAML."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110))
