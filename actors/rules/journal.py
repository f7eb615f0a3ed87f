"""The executions of rules in the process log: written together a few times a second, and never more than a database can bear."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from typing import Any

from actors.rules.script import Result
from sib.errors import SibError
from sib.rules.rule import Rule
from sib.rules.trigger import Trigger
from storage.bdc.bdc import Bdc
from storage.bdc.records import LogRecord

log = logging.getLogger("sofia2.rules")

KIND = "SCRIPT"
FLUSH_S = 0.25
LINES_A_FLUSH_MAX = 25
"""Of one rule, for runs that went well and said nothing; the rest is one line with their number. What failed or has output: 200."""
ODD_LINES_A_FLUSH_MAX = 200
WAITING_MAX = 10_000
"""Lines that wait for a database that does not answer; at the bound new ones are dropped and counted."""
OK = "The script has been executed correctly"


class Journal:
    """Takes note of executions; ``flush`` writes them."""

    def __init__(self, bdc: Bdc, now: Callable[[], datetime]) -> None:
        self._bdc, self._now = bdc, now
        self._lines: list[LogRecord] = []
        self._of_rule: dict[tuple[str, bool], int] = defaultdict(int)
        self._summed: dict[str, tuple[Rule, int, float]] = {}
        self._writing = asyncio.Lock()
        self.dropped = 0

    def ran(self, rule: Rule, trigger: Trigger, result: Result, *, attempt: int = 1) -> None:
        """One execution has ended."""
        is_odd = bool(result.failure or result.output)
        self._of_rule[rule.name, is_odd] += 1
        if self._of_rule[rule.name, is_odd] > (ODD_LINES_A_FLUSH_MAX if is_odd else LINES_A_FLUSH_MAX):
            _, count, total = self._summed.get(rule.name, (rule, 0, 0.0))
            self._summed[rule.name] = (rule, count + 1, total + result.duration_ms)
            return
        failure = result.failure
        summary = OK if failure is None else f"The script failed: {failure.describe()}"
        details: dict[str, Any] = {
            "rule": rule.name,
            "result": "ok" if failure is None else "handled" if result.is_handled else "error",
            "branch": result.branch,
            "duration_ms": result.duration_ms,
            "execution": trigger.key,
            "source": trigger.source,
            "attempt": attempt,
        }
        if result.effects:
            details["effects"] = len(result.effects)
        if result.output:
            details["output"] = result.output
        if failure is not None:
            details["error"] = failure.to_json()
        self._add(rule, summary, details)

    def said(self, rule: Rule, text: str, **details: Any) -> None:
        """Something else that the rule's owner should know."""
        self._add(rule, text, {"rule": rule.name, **details})

    def _add(self, rule: Rule, summary: str, details: dict[str, Any]) -> None:
        if len(self._lines) >= WAITING_MAX:
            self.dropped += 1
            return
        self._lines.append(LogRecord(KIND, self._now(), summary, user=rule.owner, details=details))

    async def flush(self) -> None:
        """Write what waits; what the database does not take waits on."""
        async with self._writing:
            for rule, count, total_ms in self._summed.values():
                details = {"rule": rule.name, "result": "summed", "count": count, "duration_ms": round(total_ms, 3)}
                self._add(rule, f"{count} more executions, which are not listed one by one", details)
            self._summed.clear()
            self._of_rule.clear()
            lines, self._lines = self._lines, []
            if not lines:
                return
            try:
                await asyncio.to_thread(self._bdc.log, lines)
            except SibError as error:
                log.warning("the process log cannot be written: %s", error.message)
                self._lines = (lines + self._lines)[:WAITING_MAX]
