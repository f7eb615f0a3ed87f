"""The files that ``sofia2 init`` writes, and the settings as people are shown them: all from the one table."""

from __future__ import annotations

import itertools
import json
from typing import Any

from sofia2.settings import Origin, Settings
from sofia2.settingtable import BY_NAME, LISTENERS, TABLE, Setting
from sofia2.urlsecrets import without_secrets

APPLY_NAME = "sofia2-apply.yaml"

_HEAD = """\
# Settings of a Sofia2 platform. Lines that begin with # are off; the value shown is the default.
# Order, later ones win: this file, settings that were applied, SOFIA2_* variables, options of the command line.
# Every setting has a variable: limits.write_timeout_s is SOFIA2_LIMITS__WRITE_TIMEOUT_S.
# With a password in a URL, this file must be readable by you only: chmod 600 sofia2.toml
"""
_LISTENERS = """
# More listeners, or other options for the standard ones (mqtt, mqtts, http, https); "off" turns one off.
# [listeners]
# mqtt = "mqtt://127.0.0.1:1883?auth=true"
# devices = "mqtt://127.0.0.1:1884?ssap=false&pubsub=true"
"""
_APPLY = """\
# An example for: sofia2 apply sofia2-apply.yaml     (or: sofia2 start --apply sofia2-apply.yaml)
# Applying it again changes nothing; what is not named here is left as it is.
sofia2: 1
users:
  - name: example
    password_env: EXAMPLE_PASSWORD        # or password, password_file, password_hash
    role: COLABORADOR                     # ADMINISTRADOR | COLABORADOR | USUARIO
ontologies:
  - name: LecturaTermostato
    owner: example
    description: Readings of a thermostat
    schema:
      $schema: http://json-schema.org/draft-04/schema#
      title: LecturaTermostato Schema
      type: object
      required: [LecturaTermostato]
      properties:
        LecturaTermostato: {$ref: "#/datos"}
      datos:
        type: object
        required: [temp, hum]
        properties:
          temp: {type: number}
          hum: {type: integer}
        additionalProperties: false
    indexes: [LecturaTermostato.temp]
kps:
  - name: KPTermostato
    owner: example
    ontologies: [LecturaTermostato]
    # tokens: [8 to 64 characters of 0-9, A-Z, a-z and -]     absent: one is generated, see 'sofia2 token list'
settings:
  query.row_cap: 100
"""


def apply_sample() -> str:
    """An example of a file for ``sofia2 apply``."""
    return _APPLY


def settings_sample() -> str:
    """A commented ``sofia2.toml`` that changes nothing."""
    parts = [_HEAD]
    shown = [setting for setting in TABLE if setting.name not in ("config", "json", "detach", "apply")]
    groups = itertools.groupby(shown, key=lambda setting: setting.name.rpartition(".")[0])
    for section, settings in sorted(((name, list(group)) for name, group in groups), key=lambda group: bool(group[0])):
        if section:
            parts.append(f"\n# [{section}]")
        parts += [
            f"\n# {describe(setting)}\n# {setting.name.rpartition('.')[2]} = {_toml(setting)}" for setting in settings
        ]
    return "\n".join(parts) + "\n" + _LISTENERS


def describe(setting: Setting) -> str:
    """One line of help: what it is, its unit, and when a change acts."""
    unit = f" In {setting.unit}." if setting.unit else ""
    hot = " Applied, it acts at once." if setting.is_hot else ""
    return f"{setting.help}{unit}{hot}"


def shown_settings(settings: Settings, *, changed: bool) -> list[dict[str, Any]]:
    """Every setting with value, origin and when a change acts; passwords are left out."""
    names = [setting.name for setting in TABLE]
    names += sorted(name for name in settings.values if name.startswith(LISTENERS))
    rows = [_shown(settings, name) for name in names]
    return [row for row in rows if not changed or row["origin"] != Origin.DEFAULT.name.lower()]


def _shown(settings: Settings, name: str) -> dict[str, Any]:
    setting = BY_NAME.get(name)
    return {
        "name": name,
        "value": _hidden(settings.get(name) if setting else settings.values[name]),
        "unit": setting.unit if setting else "",
        "origin": settings.origin(name).name.lower(),
        "in_force": "at once" if setting and setting.is_hot else "at start",
    }


def _hidden(value: Any) -> Any:
    if isinstance(value, tuple):
        return list(value)
    return without_secrets(value) if isinstance(value, str) else value


def _toml(setting: Setting) -> str:
    if setting.default is None:
        return {"text": '"TEXT"', "path": '"FILE"', "url": '"URL"', "integer": "0"}[setting.kind]
    return json.dumps(list(setting.default) if isinstance(setting.default, tuple) else setting.default)
