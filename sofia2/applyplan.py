"""From declarations to the records that the BDC shall hold, with every check that needs the BDC."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from sib.access import Role, may_create_ontologies
from sib.errors import NotFoundError, OntologyNotFoundError, SibError
from sib.ontology import Ontology, compile_ontology, templates
from sofia2.applyexpiry import fault_of_expiry
from sofia2.applyfile import ApplyFile, Declared, DeclaredToken
from sofia2.applyqueries import fault_of_query, unused_parameters
from sofia2.applysections import Extension, extensions
from sofia2.applysources import PASSWORD_KEYS, declared_password, read_file_text
from sofia2.filereaders import LocatedText
from sofia2.yamlnodes import FileProblems, Problem, problem_at
from storage.bdc.configuration import Configuration
from storage.bdc.passwords import PASSWORD_CHARS_ADVISED, hash_password, verify_password
from storage.bdc.records import (
    AssetRecord,
    DefinedQuery,
    IndexDeclaration,
    KpRecord,
    OntologyRecord,
    TokenRecord,
    UserRecord,
)

_QUERY_KEYS = ("ontology", "type", "text")
_SCHEMA_KEYS = ("template", "schema", "schema_text", "schema_file")

CheckSetting = Callable[[str, Any], bool]
"""Whether a setting acts at once; raises ConfigurationError if there is no such setting or the value is not allowed."""


@dataclass(frozen=True, slots=True)
class Source:
    """One applied file: its name in messages, the folder that its relative paths start from, and its content."""

    file: str
    folder: Path
    content: ApplyFile


@dataclass(frozen=True, slots=True)
class PlannedKp:
    """A KP with its tokens and static instances (None: as they are)."""

    record: KpRecord
    tokens: tuple[TokenRecord, ...]
    instances: frozenset[str] | None
    needs_token: bool


@dataclass(slots=True)
class Plan:
    """What shall be, in an order in which it can be written."""

    users: list[UserRecord] = field(default_factory=list)
    ontologies: list[OntologyRecord] = field(default_factory=list)
    kps: list[PlannedKp] = field(default_factory=list)
    queries: list[DefinedQuery] = field(default_factory=list)
    assets: list[AssetRecord] = field(default_factory=list)
    others: list[tuple[Extension, Any]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    cold_settings: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)


def make_plan(
    configuration: Configuration,
    sources: list[Source],
    *,
    check_setting: CheckSetting | None,
    environment: Mapping[str, str],
    is_complete: bool = True,
) -> Plan:
    """Check all files against each other and the database. With ``problems`` in it a plan must not be written.

    ``is_complete`` is false if some file could not be read: references that it may have met are then not reported.
    """
    return _Planner(configuration, sources, check_setting, environment, is_complete).plan()


class _Planner:
    def __init__(
        self,
        configuration: Configuration,
        sources: list[Source],
        check_setting: CheckSetting | None,
        environment: Mapping[str, str],
        is_complete: bool,
    ) -> None:
        self.configuration = configuration
        self._sources = sources
        self._check_setting = check_setting
        self._environment = environment
        self._is_complete = is_complete
        self._plan = Plan()
        self._source = Source("", Path(), ApplyFile())
        self._token_lines: dict[str, int] = {}
        self._users = {user.name: user for user in configuration.users.all()}
        self._roles = {name: user.role for name, user in self._users.items()}
        self._api_keys = {user.api_key: user.name for user in self._users.values()}
        self._names = {
            "users": set(self._users),
            "ontologies": {ontology.name for ontology in configuration.ontologies.all()},
            "kps": {kp.name for kp in configuration.kps.all()},
        }
        for extension in extensions():
            present = getattr(configuration, extension.repository).all()
            self._names[extension.section.name] = {record.name for record in present}

    def plan(self) -> Plan:
        self._collect_names()
        adders: list[tuple[str, Callable[[Declared], None]]] = [
            ("users", self._add_user),
            ("ontologies", self._add_ontology),
            ("kps", self._add_kp),
            ("queries", self._add_query),
            ("assets", self._add_asset),
            *((each.section.name, partial(self._add_other, each)) for each in extensions()),
            ("ontologies", self._check_expiry),
            ("processes", self._check_expiry),
            *((each.section.name, partial(each.check, self)) for each in extensions() if each.check is not None),
        ]
        for section, add in adders:
            for source in self._sources:
                for declared in source.content.objects:
                    if declared.section == section:
                        self._checked(source, declared, add)
        for source in self._sources:
            for declared in source.content.settings:
                self._checked(source, declared, self._add_setting)
        self._order_ontologies()
        return self._plan

    def _checked(self, source: Source, declared: Declared, add: Callable[[Declared], None]) -> None:
        self._source = source
        try:
            add(declared)
        except FileProblems as error:
            for problem in error.problems:
                self.refuse(problem.line, problem.message)

    def _collect_names(self) -> None:
        seen: dict[tuple[str, str], str] = {}
        for source in self._sources:
            for declared in (*source.content.objects, *source.content.settings):
                if not declared.name:
                    continue
                place = f"{source.file}:{declared.line}"
                before = seen.setdefault((declared.section, declared.name), place)
                if before != place:
                    message = f"{declared.name!r} stands twice in {declared.section} (before at {before})."
                    self._plan.problems.append(Problem(declared.line, message, source.file))
                if declared.section in self._names:
                    self._names[declared.section].add(declared.name)
                if declared.section == "users" and "role" in declared.given:
                    self._roles[declared.name] = declared.given["role"]

    def refuse(self, line: int, message: str) -> None:
        self._plan.problems.append(Problem(line, message, self._source.file))

    def require(self, declared: Declared, keys: tuple[str, ...], message: str) -> bool:
        """Whether a new object has one of the keys that it needs; a problem if not, unless one was given wrongly."""
        if any(key in declared.given for key in keys):
            return True
        if not declared.is_faulty:
            self.refuse(declared.line, message)
        return False

    def warn(self, line: int, message: str) -> None:
        self._plan.warnings.append(Problem(line, message, self._source.file))

    def known(self, section: str, kind: str, name: LocatedText) -> str:
        if name not in self._names[section] and self._is_complete:
            self.refuse(name.line, f"there is no {kind} {str(name)!r}, neither in the files nor on the platform.")
        return str(name)

    def known_owner(self, declared: Declared) -> dict[str, str]:
        if "owner" in declared.given:
            return {"owner": self.known("users", "user", declared.given["owner"])}
        return {}

    # Users.

    def _add_user(self, declared: Declared) -> None:
        current = self._users.get(declared.name)
        changes: dict[str, Any] = {key: declared.given[key] for key in ("role", "active") if key in declared.given}
        changes |= {key: str(declared.given[key]) for key in ("email", "api_key") if key in declared.given}
        password_hash = self._password_hash(declared, current)
        if password_hash is not None:
            changes["password_hash"] = password_hash
        if current is None:
            self.require(declared, PASSWORD_KEYS, f"a new user needs one of {', '.join(PASSWORD_KEYS)}.")
        self._check_api_key(declared)
        record = UserRecord(declared.name, Role.USUARIO) if current is None else current
        self._plan.users.append(replace(record, **changes))

    def _check_api_key(self, declared: Declared) -> None:
        api_key = declared.given.get("api_key")
        if api_key is not None and self._api_keys.setdefault(str(api_key), declared.name) != declared.name:
            self.refuse(declared.line_of("api_key"), "another user has this API key.")

    def _password_hash(self, declared: Declared, current: UserRecord | None) -> str | None:
        """The hash that the user shall have: the present one if the password belongs to it. None: none was given."""
        if "password_hash" in declared.given:
            return str(declared.given["password_hash"])
        password = declared_password(declared, self._source.folder, self._environment)
        if password is None:
            return None
        if len(password) < PASSWORD_CHARS_ADVISED:
            message = f"the password of {declared.name!r} has fewer than {PASSWORD_CHARS_ADVISED} characters."
            self.warn(next(declared.lines[key] for key in PASSWORD_KEYS if key in declared.lines), message)
        if current is not None and verify_password(current.password_hash, password):
            return current.password_hash
        try:
            return hash_password(password)
        except SibError as error:
            raise problem_at(declared.line, error.message) from None

    # Ontologies.

    def _add_ontology(self, declared: Declared) -> None:
        given = declared.given
        current = self.configuration.ontologies.get(declared.name)
        changes: dict[str, Any] = {key: given[key] for key in ("active", "public") if key in given}
        changes |= self.known_owner(declared) | self._permissions(declared)
        if "description" in given:
            changes["description"] = str(given["description"])
        if "window" in given:
            changes["window_s"] = given["window"]
        if "parent" in given:
            changes["parent"] = given["parent"] and self.known("ontologies", "ontology", given["parent"])
        changes |= self._schema(declared, current)
        if current is None and not self._may_be_new(declared):
            return
        record = replace(current, **changes) if current else OntologyRecord(name=declared.name, **changes)
        if "schema_text" in changes or "indexes" in given:
            record = self._compiled(declared, record)
        role = self._roles.get(record.owner)  # none: there is no such user, which is a problem of its own
        if "owner" in changes and role is not None and not may_create_ontologies(role):
            self.warn(declared.line_of("owner"), f"{record.owner!r} is USUARIO, who could not create it himself.")
        self._plan.ontologies.append(record)

    def _may_be_new(self, declared: Declared) -> bool:
        has_owner = self.require(declared, ("owner",), "a new ontology needs an owner.")
        has_schema = self.require(declared, _SCHEMA_KEYS, f"a new ontology needs one of {', '.join(_SCHEMA_KEYS)}.")
        return has_owner and has_schema

    def _permissions(self, declared: Declared) -> dict[str, Any]:
        if "permissions" not in declared.given:
            return {}
        granted = declared.given["permissions"]
        return {"permissions": {self.known("users", "user", user): granted[user] for user in granted}}

    def _schema(self, declared: Declared, current: OntologyRecord | None) -> dict[str, str]:
        given = declared.given
        if "schema_text" in given:
            return {"schema_text": str(given["schema_text"])}
        if "schema_file" in given:
            return {"schema_text": read_file_text(self._source.folder, given["schema_file"])}
        if "schema" in given:
            return {"schema_text": json.dumps(given["schema"], indent=2, ensure_ascii=False)}
        if "template" in given:
            return self._template(declared, current)
        return {}

    def _template(self, declared: Declared, current: OntologyRecord | None) -> dict[str, str]:
        told: LocatedText = declared.given["template"]
        name, _, version_text = told.partition("@")
        if version_text and not version_text.isdecimal():
            raise problem_at(told.line, "the version after @ is a number: SensorPoint@1.")
        version = int(version_text) if version_text else _present_template_version(name, current)
        own = self.configuration.templates.get(name, version)
        if own is not None:
            return {"schema_text": own.schema_text, "template": f"{own.name}@{own.version}"}
        try:
            found = templates.template(name, version)
        except NotFoundError as error:
            raise problem_at(told.line, error.message) from None
        return {"schema_text": found.schema_for(declared.name), "template": f"{found.name}@{found.version}"}

    def _compiled(self, declared: Declared, record: OntologyRecord) -> OntologyRecord:
        line = next((declared.lines[key] for key in _SCHEMA_KEYS if key in declared.lines), declared.line)
        try:
            ontology = compile_ontology(record.name, record.schema_text)
        except SibError as error:
            raise problem_at(line, error.message) from None
        try:
            wanted = declared.given.get("indexes", record.indexes)
            indexes = tuple(_resolved(index, ontology.resolve_column) for index in wanted)
        except SibError as error:
            raise problem_at(declared.lines.get("indexes", line), f"an index: {error.message}") from None
        if len(set(indexes)) != len(indexes):
            raise problem_at(declared.line_of("indexes"), "an index stands here twice.")
        return replace(record, indexes=indexes)

    def _check_expiry(self, declared: Declared) -> None:
        processes = self.others("processes")
        name = declared.name
        if declared.section == "processes":
            name = next((process.ontology for process in processes if process.name == name), "")
        record = self.ontology(name)
        fault = record and fault_of_expiry(record, processes)
        if not fault:
            return
        current = self.configuration.ontologies.get(name)
        was_so = current is not None and fault_of_expiry(current, self.configuration.processes.all()) == fault
        tell = self.warn if was_so else self.refuse  # what an older version took may be exported and applied again
        tell(declared.line_of("indexes"), fault)

    def _order_ontologies(self) -> None:
        by_name = {ontology.name: ontology for ontology in self._plan.ontologies}
        parents = {ontology.name: ontology.parent for ontology in self.configuration.ontologies.all()}
        parents |= {name: ontology.parent for name, ontology in by_name.items()}
        graph = {name: [parent] if parent else [] for name, parent in parents.items()}
        try:
            order = list(TopologicalSorter(graph).static_order())
        except CycleError as error:
            names = " > ".join(error.args[1])
            self._plan.problems.append(Problem(0, f"ontologies are their own parents: {names}.", self._source.file))
            return
        self._plan.ontologies = [by_name[name] for name in order if name in by_name]

    # KPs.

    def _add_kp(self, declared: Declared) -> None:
        given = declared.given
        current = self.configuration.kps.get(declared.name)
        changes: dict[str, Any] = {key: given[key] for key in ("cipher_only", "meta") if key in given}
        changes |= {key: str(given[key]) for key in ("description", "cipher_key") if key in given}
        changes |= self.known_owner(declared)
        if "ontologies" in given:
            changes["ontologies"] = frozenset(
                self.known("ontologies", "ontology", ontology) for ontology in given["ontologies"]
            )
        tokens = tuple(self._token(declared.name, token) for token in given.get("tokens", ()))
        if current is None and not self.require(declared, ("owner",), "a new KP needs an owner."):
            return
        record = replace(current, **changes) if current else KpRecord(name=declared.name, **changes)
        self._plan.kps.append(
            PlannedKp(
                record=record,
                tokens=tokens,
                instances=frozenset(map(str, given["instances"])) if "instances" in given else None,
                needs_token=current is None and "tokens" not in given,
            )
        )

    def _token(self, kp: str, declared: DeclaredToken) -> TokenRecord:
        if declared.token in self._token_lines:
            before = self._token_lines[declared.token]
            self.refuse(declared.line, f"the token of this line stands twice (before in line {before}).")
        self._token_lines[declared.token] = declared.line
        current = self.configuration.tokens.get(declared.token)
        if current is not None and current.kp != kp:
            self.refuse(declared.line, f"the token of this line belongs to the KP {current.kp!r}.")
        return TokenRecord(token=declared.token, kp=kp, active=declared.active)

    # The rest.

    def _add_query(self, declared: Declared) -> None:
        given = declared.given
        current = self.configuration.queries.get(declared.name)
        changes: dict[str, Any] = {}
        if "ontology" in given:
            changes["ontology"] = self.known("ontologies", "ontology", given["ontology"])
        changes |= {key: str(given[key]) for key in ("type", "text") if key in given}
        if "params" in given:
            changes["params"] = {str(name): kind.value for name, kind in given["params"].items()}
        needed = [
            self.require(declared, (key,), f"a new query needs the key {key}.") for key in _QUERY_KEYS if not current
        ]
        if not all(needed):
            return
        record = replace(current, **changes) if current else DefinedQuery(name=declared.name, **changes)
        self._plan.queries.append(record)
        if declared.is_faulty:
            return
        for name in unused_parameters(record):
            self.warn(declared.line_of("params"), f"the text of {record.name!r} does not use {{${name}}}.")
        fault = fault_of_query(record, self.compiled)
        if fault is not None:
            self.warn(declared.line_of("text"), f"the query {record.name!r} will be refused when it is used: {fault}")

    def compiled(self, name: str) -> Ontology:
        record = self.ontology(name)
        if record is None:
            raise OntologyNotFoundError(f"There is no ontology {name!r}.")
        return compile_ontology(record.name, record.schema_text)

    def _add_asset(self, declared: Declared) -> None:
        given = declared.given
        current = self.configuration.assets.get(declared.name)
        changes: dict[str, Any] = {key: str(given[key]) for key in ("descripcion", "tipo") if key in given}
        changes |= self.known_owner(declared)
        if "properties" in given:
            changes["properties"] = given["properties"]
        if "kp" in given:
            changes["kp"] = given["kp"] and self.known("kps", "KP", given["kp"])
        if current is None and not self.require(declared, ("owner",), "a new asset needs an owner."):
            return
        record = replace(current, **changes) if current else AssetRecord(identificacion=declared.name, **changes)
        self._plan.assets.append(record)

    def _add_other(self, extension: Extension, declared: Declared) -> None:
        record = extension.plan(self, declared)
        if record is not None:
            self._plan.others.append((extension, record))

    def others(self, section: str) -> list[Any]:
        """The records of a module's section as they will be: those of the files, and those of the platform."""
        extension = next(extension for extension in extensions() if extension.section.name == section)
        present = {record.name: record for record in getattr(self.configuration, extension.repository).all()}
        present |= {record.name: record for planned, record in self._plan.others if planned is extension}
        return list(present.values())

    def file_text(self, path: LocatedText) -> str:
        """The text of a file beside the applied one."""
        return read_file_text(self._source.folder, path)

    def ontology(self, name: str) -> OntologyRecord | None:
        """An ontology as it will be."""
        planned = {ontology.name: ontology for ontology in self._plan.ontologies}
        return planned.get(name) or self.configuration.ontologies.get(name)

    def _add_setting(self, declared: Declared) -> None:
        value = declared.given["value"]
        if self._check_setting is not None:
            try:
                is_hot = self._check_setting(declared.name, value)
            except SibError as error:
                self.refuse(declared.line, error.message)
                return
            if not is_hot:
                self._plan.cold_settings.add(declared.name)
        self._plan.settings[declared.name] = value


def _present_template_version(name: str, current: OntologyRecord | None) -> int | None:
    """Without a told version an ontology stays at the version of the template that it was made from."""
    if current is None:
        return None
    present_name, _, version = current.template.partition("@")
    return int(version) if present_name == name and version.isdecimal() else None


def _resolved(index: IndexDeclaration, resolve_column: Callable[[str], str]) -> IndexDeclaration:
    return replace(index, fields=tuple(resolve_column(path) for path in index.fields))
