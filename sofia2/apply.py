"""``sofia2 apply``: bring the configuration to what files say, all of it or nothing.

Source: interfaces of the platform, section "apply": declarative, idempotent, deletes nothing, everything checked first.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, TextIO

from sib.errors import ConfigurationError, NotFoundError
from sofia2.applyfile import read_apply_file
from sofia2.applyplan import CheckSetting, Plan, PlannedKp, Source, make_plan
from sofia2.yamlnodes import FILE_BYTES_MAX, FileProblems, Problem
from storage.bdc.bdc import Bdc
from storage.bdc.configuration import Configuration
from storage.bdc.records import OntologyRecord, Outcome

STANDARD_INPUT = "-"
EXIT_DONE = 0
EXIT_WRONG_INPUT = 2

_NAMES_IN_FILES = {"window_s": "window", "schema_text": "schema", "password_hash": "password"}


@dataclass(frozen=True, slots=True)
class ObjectReport:
    """What happened to one object; ``details`` names what changed, never a value."""

    kind: str
    name: str
    outcome: Outcome
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        details = f" ({', '.join(self.details)})" if self.details else ""
        return f"{self.kind} {self.name}: {self.outcome}{details}"


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of ``apply_files``. With problems nothing was changed."""

    objects: tuple[ObjectReport, ...] = ()
    warnings: tuple[Problem, ...] = ()
    problems: tuple[Problem, ...] = ()
    after_restart: tuple[str, ...] = ()
    dry_run: bool = False
    version: int | None = None

    @property
    def is_ok(self) -> bool:
        return not self.problems

    @property
    def exit_status(self) -> int:
        return EXIT_DONE if self.is_ok else EXIT_WRONG_INPUT

    def lines(self) -> list[str]:
        """One line per object, then the settings that wait for a restart."""
        waiting = [f"setting {name}: in force after restart" for name in self.after_restart]
        return [str(item) for item in self.objects] + waiting

    def to_json(self) -> dict[str, Any]:
        """The report as one JSON object."""
        return {
            "ok": self.is_ok,
            "dry_run": self.dry_run,
            "version": self.version,
            "objects": [
                {"kind": item.kind, "name": item.name, "outcome": item.outcome.value, "details": list(item.details)}
                for item in self.objects
            ],
            "after_restart": list(self.after_restart),
            "warnings": [_problem_json(warning) for warning in self.warnings],
            "problems": [_problem_json(problem) for problem in self.problems],
        }


def apply_files(
    bdc: Bdc,
    files: Sequence[str | os.PathLike[str]],
    *,
    dry_run: bool = False,
    check_setting: CheckSetting | None = None,
    standard_input: TextIO | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Report:
    """Bring the configuration to what the files say together. Idempotent.

    Everything is checked first; then all is written in one transaction, or nothing. The configuration version is counted
    up once if anything changed, which brings it into force on a running platform.

    Args:
        bdc: an upgraded BDC.
        files: paths of YAML or JSON files; ``-`` is the standard input.
        dry_run: write nothing, report what would change.
        check_setting: whether a setting acts at once; raises ConfigurationError for a wrong one. None takes all.
        standard_input: what ``-`` reads, by default this process's.
        environment: where ``password_env`` looks.

    Raises:
        StoreUnavailableError: the BDC cannot be used; nothing was changed. Wrong files do not raise, see ``problems``.
    """
    plan, problems, warnings = _plan(bdc, files, check_setting, standard_input, environment)
    if problems:
        return Report(problems=_sorted(problems), warnings=_sorted(warnings), dry_run=dry_run)
    objects = _write(bdc, plan, dry_run=dry_run)
    waiting = (item.name for item in objects if item.kind == "setting" and item.outcome is not Outcome.UNCHANGED)
    return Report(
        objects=tuple(objects),
        warnings=_sorted(warnings),
        after_restart=tuple(name for name in waiting if name in plan.cold_settings),
        dry_run=dry_run,
        version=bdc.config_version(),
    )


def planned(bdc: Bdc, file: str, section: str, name: str) -> Any:
    """What applying a file would make of one CEP or script rule. Nothing is written.

    Raises:
        ConfigurationError: the file is wrong, with every problem. NotFoundError: it does not declare this rule.
    """
    plan, problems, _ = _plan(bdc, [file], None, None, os.environ)
    if problems:
        raise ConfigurationError("\n".join(map(str, _sorted(problems))))
    for extension, record in plan.others:
        if extension.section.name == section and record.name == name:
            return record
    raise NotFoundError(f"{_shown(file)} declares no {name!r} among its {section}")


def _plan(
    bdc: Bdc,
    files: Sequence[str | os.PathLike[str]],
    check_setting: CheckSetting | None,
    standard_input: TextIO | None,
    environment: Mapping[str, str],
) -> tuple[Plan, list[Problem], list[Problem]]:
    """What the files want, what is wrong with them, and what they are warned of."""
    sources: list[Source] = []
    problems: list[Problem] = []
    warnings: list[Problem] = []
    for file in files:
        name = os.fspath(file)
        try:
            sources.append(_read_source(name, standard_input or sys.stdin))
        except FileProblems as error:
            problems += [replace(problem, file=_shown(name)) for problem in error.problems]
        warnings += _permission_warnings(name)
    is_complete = len(sources) == len(files)
    problems += [replace(problem, file=source.file) for source in sources for problem in source.content.problems]
    with bdc.read() as configuration:
        plan = make_plan(
            configuration, sources, check_setting=check_setting, environment=environment, is_complete=is_complete
        )
    problems += plan.problems
    warnings += plan.warnings
    return plan, problems, warnings


class _RolledBack(Exception):
    """Ends the transaction of a dry run."""


def _write(bdc: Bdc, plan: Plan, *, dry_run: bool) -> list[ObjectReport]:
    objects: list[ObjectReport] = []
    try:
        with bdc.change() as configuration:
            objects += _put_all(configuration, plan)
            for item in objects:
                if item.outcome is not Outcome.UNCHANGED:
                    configuration.audit(f"apply: {item}")
            if dry_run:
                raise _RolledBack
    except _RolledBack:
        pass
    return objects


def _put_all(configuration: Configuration, plan: Plan) -> list[ObjectReport]:
    reports = [_put("user", configuration.users, record.name, record) for record in plan.users]
    reports += [_put("ontology", configuration.ontologies, record.name, record) for record in plan.ontologies]
    reports += [_put_kp(configuration, planned) for planned in plan.kps]
    reports += [_put("query", configuration.queries, record.name, record) for record in plan.queries]
    reports += [_put("asset", configuration.assets, record.identificacion, record) for record in plan.assets]
    reports += [
        _put(extension.section.kind, getattr(configuration, extension.repository), record.name, record)
        for extension, record in plan.others
    ]
    reports += [
        ObjectReport("setting", name, configuration.settings.put(name, value)) for name, value in plan.settings.items()
    ]
    return reports


def _put(kind: str, repository: Any, name: str, record: Any) -> ObjectReport:
    before = repository.get(name)
    outcome = repository.put(record)
    details = _differences(before, repository.get(name)) if outcome is Outcome.CHANGED else ()
    return ObjectReport(kind, name, outcome, details)


def _differences(before: Any, after: Any) -> tuple[str, ...]:
    changed = [item.name for item in fields(after) if item.compare and _differ(before, after, item.name)]
    names = [_NAMES_IN_FILES.get(name, name) for name in changed]
    if isinstance(after, OntologyRecord) and "schema" in names:
        names[names.index("schema")] = f"schema: version {after.version}"
    return tuple(names)


def _differ(before: Any, after: Any, name: str) -> bool:
    return bool(getattr(before, name) != getattr(after, name))


def _put_kp(configuration: Configuration, planned: PlannedKp) -> ObjectReport:
    name = planned.record.name
    report = _put("KP", configuration.kps, name, planned.record)
    details = list(report.details)
    outcomes = [configuration.tokens.put(token) for token in planned.tokens]
    if set(outcomes) - {Outcome.UNCHANGED}:
        details.append("tokens")
    if planned.needs_token:
        configuration.tokens.add(name)
        details.append("one token generated")
    if planned.instances is not None and configuration.instances.put_static(name, planned.instances) is Outcome.CHANGED:
        details.append("instances")
    if report.outcome is Outcome.CREATED:
        details = [detail for detail in details if detail == "one token generated"]
    outcome = Outcome.CHANGED if details and report.outcome is Outcome.UNCHANGED else report.outcome
    return replace(report, outcome=outcome, details=tuple(details))


def _read_source(name: str, standard_input: TextIO) -> Source:
    if name == STANDARD_INPUT:
        text, folder = standard_input.read(FILE_BYTES_MAX + 1), Path()
    else:
        path = Path(name)
        text, folder = _read_text(path), path.parent
    return Source(_shown(name), folder, read_apply_file(text.removeprefix("\ufeff")))


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(FILE_BYTES_MAX + 1).decode("utf-8")
    except OSError as error:
        raise FileProblems(Problem(0, f"the file cannot be read: {error.strerror}.")) from None
    except UnicodeDecodeError:
        raise FileProblems(Problem(0, "the file is no UTF-8 text.")) from None


def _permission_warnings(name: str) -> list[Problem]:
    if name == STANDARD_INPUT:
        return []
    try:
        mode = Path(name).stat().st_mode
    except OSError:
        return []
    if not stat.S_ISREG(mode) or not mode & stat.S_IROTH:
        return []
    return [Problem(0, f"others can read this file, which may hold secrets: chmod 600 {name}", name)]


def _shown(name: str) -> str:
    return "standard input" if name == STANDARD_INPUT else name


def _sorted(problems: list[Problem]) -> tuple[Problem, ...]:
    return tuple(sorted(problems, key=lambda problem: (problem.file, problem.line)))


def _problem_json(problem: Problem) -> dict[str, Any]:
    return {"file": problem.file, "line": problem.line, "message": problem.message}
