"""Sections of the applied file that belong to modules: each has a file of its own that says how it is read and what it makes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

from sib.ontology import Ontology
from sofia2.applyfile import Declared, Section
from sofia2.filereaders import LocatedText
from storage.bdc.configuration import Configuration
from storage.bdc.records import OntologyRecord


class Planning(Protocol):
    """What the making of a plan offers to a section. Problems with a line go to ``refuse``; then nothing is written."""

    configuration: Configuration

    def refuse(self, line: int, message: str) -> None: ...
    def warn(self, line: int, message: str) -> None: ...
    def require(self, declared: Declared, keys: tuple[str, ...], message: str) -> bool: ...
    def known(self, section: str, kind: str, name: LocatedText) -> str: ...
    def known_owner(self, declared: Declared) -> dict[str, str]: ...
    def file_text(self, path: LocatedText) -> str: ...
    def ontology(self, name: str) -> OntologyRecord | None: ...
    def compiled(self, name: str) -> Ontology: ...
    def others(self, section: str) -> list[Any]: ...


@dataclass(frozen=True, slots=True)
class Extension:
    """One section of a module.

    ``plan`` gives the record that shall be (None after a refusal); ``repository`` names the attribute of ``Configuration``
    that has ``get(name)``, ``put(record)`` and ``all()``; ``export`` gives a record as the file has it. Records are frozen
    dataclasses with a ``name``. ``check`` looks at each once more when all are planned.
    """

    section: Section
    repository: str
    plan: Callable[[Planning, Declared], Any]
    export: Callable[[Any], dict[str, Any]]
    check: Callable[[Planning, Declared], None] | None = None


@cache
def extensions() -> tuple[Extension, ...]:
    """The sections of all modules, in the order in which they are written."""
    from sofia2 import apply_cep, apply_processes, apply_rules

    return (*apply_cep.extensions(), apply_processes.extension(), apply_rules.extension())
