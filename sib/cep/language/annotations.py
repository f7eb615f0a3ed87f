"""Checks of ``@watermark``, ``@dedupe``, ``@max``, ``@panes``, ``@name`` and ``@info``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sib.cep.language import ast
from sib.cep.language.durations import parse_duration_ms
from sib.cep.limits import parse_bytes

PANES_MAX = 10_000
"""Panes of one window."""

_KNOWN = ("watermark", "dedupe", "max", "panes", "name", "info")
_LATE = ("drop", "side", "accept")

Report = Callable[[ast.Position, str], None]


def check_annotations(rule: ast.Rule, report: Report) -> None:
    """Report what is unknown or wrong in a rule's annotations."""
    for annotation in rule.annotations:
        if annotation.name not in _KNOWN:
            report(annotation.position, f"there is no @{annotation.name}: known are @{', @'.join(_KNOWN)}")
            continue
        problem = _problem(annotation, rule)
        if problem is not None:
            report(annotation.position, problem)


def _problem(annotation: ast.Annotation, rule: ast.Rule) -> str | None:
    named = dict(annotation.named)
    match annotation.name:
        case "watermark":
            return _watermark_problem(named, annotation)
        case "dedupe":
            return _dedupe_problem(annotation, rule)
        case "max":
            return _max_problem(named, annotation)
        case "panes":
            plain = annotation.plain
            if len(plain) != 1 or not isinstance(plain[0], int) or not 1 <= plain[0] <= PANES_MAX:
                return f"write @panes(60): a whole number from 1 to {PANES_MAX}"
            return None
        case _:
            name = named.get("name", annotation.plain[0] if annotation.plain else None)
            return None if isinstance(name, str) and name else f"write @{annotation.name}(name='…')"


def _watermark_problem(named: dict[str, Any], annotation: ast.Annotation) -> str | None:
    if annotation.plain or named.keys() - {"delay", "late", "idle"}:
        return "@watermark takes delay='30 sec', late='drop'|'side'|'accept', idle='1 min'"
    if str(named.get("late", "drop")).lower() not in _LATE:
        return "late is 'drop', 'side' or 'accept'"
    for name in ("delay", "idle"):
        if name in named and not _is_duration(named[name], least=0 if name == "delay" else 1):
            return f"{name} is a duration such as '30 sec'"
    return None


def _dedupe_problem(annotation: ast.Annotation, rule: ast.Rule) -> str | None:
    if len(annotation.plain) != 2 or annotation.named or not _is_duration(annotation.plain[1], least=1):
        return "write @dedupe(column, '10 min')"
    key = annotation.plain[0]
    name = str(key.name if isinstance(key, ast.Path) else key).casefold()
    keys = [path.name for path in rule.partition.paths] if rule.partition else []
    columns = [*keys, *(column.name for column in rule.select.columns)]
    if name not in map(str.casefold, columns):
        return f"@dedupe names a column of the output, and {name} is none"
    return None


def _max_problem(named: dict[str, Any], annotation: ast.Annotation) -> str | None:
    if annotation.plain or named.keys() - {"keys", "partials", "events", "memory"}:
        return "@max takes keys, partials, events (whole numbers) and memory ('64 MB')"
    for name, value in named.items():
        if name == "memory":
            try:
                if parse_bytes(value) > 0:
                    continue
            except ValueError:
                pass
            return "memory is a size such as '64 MB'"
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            return f"{name} is a whole number above 0"
    return None


def _is_duration(value: Any, *, least: int) -> bool:
    if isinstance(value, int) and not isinstance(value, bool):
        return value >= least
    try:
        return isinstance(value, str) and parse_duration_ms(value) >= least
    except ValueError:
        return False
