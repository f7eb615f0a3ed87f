"""``kp.toml``: what a KP that the platform runs is, needs and may use."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from actors.sandbox.limits import Limits
from sib.cron import Schedule, parse_schedule
from sib.errors import ConfigurationError

FILE = "kp.toml"
NAME_CHARS_MAX = 191
LIST_MAX = 1000
"""Ontologies, or dependencies."""
RESOURCES = ("memory_mb", "cpu", "disk_mb", "processes")
NODE_MEMORY_MB_MIN = 256
"""Node does not start with less."""
_KEYS = ("name", "instance", "entry", "ontologies", "schedule", "every", "resources", "dependencies", "arguments")
NODE_ENDINGS = (".js", ".mjs", ".cjs")
_REQUIREMENT = re.compile(
    r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\s*(\[[A-Za-z0-9._,\s-]*\])?\s*"
    r"((===|==|~=|!=|<=|>=|<|>)\s*[A-Za-z0-9.*+!_-]+\s*(,\s*(===|==|~=|!=|<=|>=|<|>)\s*[A-Za-z0-9.*+!_-]+\s*)*)?"
)
"""A name with extras and versions; no URL, no path, no option of the installer."""


class ManifestError(ConfigurationError):
    """``kp.toml`` or the folder is wrong; the sentence names the line."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What ``kp.toml`` says."""

    name: str
    """Of the KP."""
    instance: str
    entry: str
    """The file that is run, relative to the folder."""
    ontologies: tuple[str, ...] | None = None
    """What it may use of the KP's ontologies; None: all of them."""
    schedule: str = ""
    """When it is run; "": once, at its start."""
    resources: Mapping[str, float] | None = None
    dependencies: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    layer: str = ""
    """The name of its installed dependencies; given at the deployment."""

    @property
    def is_node(self) -> bool:
        return self.entry.endswith(NODE_ENDINGS)

    @property
    def limits(self) -> Limits:
        return Limits(**(self.resources or {}))  # type: ignore[arg-type]

    @property
    def times(self) -> Schedule | None:
        return parse_schedule(self.schedule) if self.schedule else None

    def to_json(self) -> dict[str, Any]:
        """For the BDC."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Manifest:
        """The inverse of ``to_json``."""
        given = dict(value)
        for key in ("ontologies", "dependencies", "arguments"):
            if given.get(key) is not None:
                given[key] = tuple(given[key])
        return cls(**given)


def parse_manifest(content: bytes) -> Manifest:
    """The meaning of a ``kp.toml``.

    Raises:
        ManifestError: it is no TOML, or something in it is wrong; the message names the line.
    """
    try:
        text = content.decode("utf-8")
        return _Reader(text, tomllib.loads(text)).manifest()
    except UnicodeDecodeError:
        raise ManifestError(f"{FILE} is no UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ManifestError(f"{FILE}: {_with_line(str(error), content)}") from None


def _with_line(message: str, content: bytes) -> str:
    found = re.search(r"\(at line (\d+), column (\d+)\)|\(at end of document\)", message)
    line = found[1] if found and found[1] else content.count(b"\n") + 1
    reason = message[: found.start()].strip() if found else message
    return f"line {line}: {reason}"


class _Reader:
    """Reads the keys, and knows where each stands."""

    def __init__(self, text: str, table: dict[str, Any]) -> None:
        self._source, self._table = text, table

    def manifest(self) -> Manifest:
        self._check_keys(self._table, _KEYS, "")
        resources = self._resources()
        entry = self._entry()
        if entry.endswith(NODE_ENDINGS) and resources.get("memory_mb", NODE_MEMORY_MB_MIN) < NODE_MEMORY_MB_MIN:
            raise self._wrong("memory_mb", f"Node needs at least {NODE_MEMORY_MB_MIN}")
        return Manifest(
            name=self._name("name"),
            instance=self._name("instance"),
            entry=entry,
            ontologies=self._texts("ontologies") if "ontologies" in self._table else None,
            schedule=self._schedule(),
            resources=resources or None,
            dependencies=self._dependencies(),
            arguments=self._texts("arguments"),
        )

    def _wrong(self, key: str, sentence: str) -> ManifestError:
        line = self._line_of(key)
        return ManifestError(f"{FILE}{f', line {line}' if line else ''}: {key}: {sentence}")

    def _line_of(self, key: str) -> int | None:
        pattern = re.compile(rf"""\s*(\[\s*)?(["']?){re.escape(key)}\2\s*(=|\]|\.)|.*[{{,]\s*{re.escape(key)}\s*=""")
        for number, line in enumerate(self._source.splitlines(), 1):
            if pattern.match(line):
                return number
        return None

    def _check_keys(self, table: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
        for key in table:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
                raise self._wrong(key, f"there is no such key{where}; {hint}")

    def _text(self, key: str) -> str:
        value = self._table.get(key)
        if value is None:
            raise ManifestError(f"{FILE} has no {key}: it needs name, instance and entry")
        if not isinstance(value, str) or not value.strip():
            raise self._wrong(key, "it is a text in quotes that is not empty")
        return value

    def _name(self, key: str) -> str:
        value = self._text(key)
        if len(value) > NAME_CHARS_MAX or not value.isprintable() or ":" in value:
            raise self._wrong(key, f"a name has at most {NAME_CHARS_MAX} printable characters and no colon")
        return value

    def _entry(self) -> str:
        value = self._text("entry")
        path = PurePosixPath(value)
        if path.is_absolute() or ".." in path.parts or path.suffix not in (".py", *NODE_ENDINGS):
            raise self._wrong("entry", "it is a file of the folder that ends in .py (or .js, .mjs, .cjs)")
        return str(path)

    def _texts(self, key: str) -> tuple[str, ...]:
        value = self._table.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise self._wrong(key, 'it is a list of texts, for example ["A", "B"]')
        if len(value) > LIST_MAX:
            raise self._wrong(key, f"it has more than {LIST_MAX} items")
        return tuple(value)

    def _dependencies(self) -> tuple[str, ...]:
        found = self._texts("dependencies")
        for item in found:
            if not _REQUIREMENT.fullmatch(item.strip()):
                raise self._wrong("dependencies", f"{item!r} is no package with a version, as numpy or numpy==2.3.1")
        return tuple(item.strip() for item in found)

    def _schedule(self) -> str:
        if "every" in self._table:
            return self._checked_schedule("every", self._table["every"])
        value = self._table.get("schedule", "")
        if isinstance(value, dict):
            self._check_keys(value, ("every", "cron"), " in schedule")
            if len(value) != 1:
                raise self._wrong("schedule", 'it is a cron line, or every = "10s"')
            ((key, value),) = value.items()
            return self._checked_schedule(key, value)
        return self._checked_schedule("schedule", value) if value != "" else ""

    def _checked_schedule(self, key: str, value: Any) -> str:
        if not isinstance(value, str):
            raise self._wrong(key, 'it is a text: a cron line, or a period such as "10s"')
        text = re.sub(r"[=\"']", " ", value).strip()
        try:
            parse_schedule(text)
        except ConfigurationError as error:
            raise self._wrong(key, error.message) from None
        return " ".join(text.split())

    def _resources(self) -> dict[str, float]:
        table = self._table.get("resources", {})
        if not isinstance(table, dict):
            raise self._wrong("resources", "it is a table: [resources]")
        self._check_keys(table, RESOURCES, " in resources")
        for key, value in table.items():
            try:
                Limits(**{key: value})
            except ConfigurationError as error:
                raise self._wrong(key, error.message) from None
        return dict(table)
