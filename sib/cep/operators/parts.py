"""Generated code for the aggregates of a window: how a value enters, leaves, and what the aggregate is then.

The code works on the list ``s``, the state of one group, and the variables of one event: ``p``, its place in the window
(event time, or a counter), ``v0``, ``v1`` ... the arguments of aggregates.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sib.cep import aggregates as aggregate_classes
from sib.cep.codegen import Generator, tuple_source
from sib.cep.language import ast
from sib.cep.scope import Scope

_NUMERIC = frozenset({"sum", "avg", "stddev", "median", "percentile"})


@dataclass
class AggregateParts:
    """Slots and code of all aggregates of one rule. Call :meth:`plan` after the row and having were generated."""

    scope: Scope
    generator: Generator
    arguments: list[tuple[ast.Expression, bool]] = field(default_factory=list)
    slots: list[str] = field(default_factory=list)
    """Source of the first value of each slot of a group."""
    has_queue: bool = False

    def plan(self) -> None:
        """Decide which slots a group has."""
        calls = self.scope.aggregates
        self.has_queue = not calls or any(call.name not in ("min", "max") for call in calls)
        if self.has_queue:
            self.slots.append("deque()")
        self.scope.namespace["new_aggregate"] = aggregate_classes.new_aggregate
        self._places: list[int] = []
        sums: dict[int, int] = {}
        for call in calls:
            argument = self._argument(call)
            if call.name in ("sum", "avg") or (call.name == "count" and argument is not None):
                if argument not in sums:
                    sums[argument] = len(self.slots)  # type: ignore[index]
                    self.slots += ["0", "0"]
                self._places.append(sums[argument])  # type: ignore[index]
                continue
            self._places.append(len(self.slots))
            if call.name in ("min", "max"):
                self.slots.append("deque()")
            elif call.name in ("stddev", "median", "percentile", "distinctcount"):
                self.slots.append(f"new_aggregate({call.name!r}, {call.percent!r})")
        self._sums = sums

    def _argument(self, call: Any) -> int | None:
        """The number of a call's argument variable; None for ``count()``."""
        if call.argument is None:
            return None
        wanted = (call.argument, call.name in _NUMERIC)
        if wanted not in self.arguments:
            self.arguments.append(wanted)
        return self.arguments.index(wanted)

    def read(self) -> list[str]:
        """Code that sets v0, v1 ... from the event ``e``."""
        lines = []
        for index, (expression, is_numeric) in enumerate(self.arguments):
            fast, safe = self.generator.value(expression), self.generator.safe(expression)
            if is_numeric:
                fast, safe = f"+{fast}", f"numeric({safe})"
            if fast == safe:
                lines.append(f"v{index} = {fast}")
            else:
                lines += ["try:", f" v{index} = {fast}", "except FAILURES:", f" v{index} = {safe}"]
        return lines

    def enter(self) -> list[str]:
        """Code that takes the event into the group. The second slot of a sum counts the nulls."""
        lines = []
        if self.has_queue:
            values = "".join(f"v{index}, " for index in range(len(self.arguments)))
            lines.append(f"q.append((p, {values}))")
        for argument, slot in self._sums.items():
            lines += [f"if v{argument} is None: s[{slot + 1}] += 1"]
            if self.arguments[argument][1]:
                lines += [f"else: t{slot} += v{argument}", f"s[{slot}] = t{slot}"]
        for call, slot in zip(self.scope.aggregates, self._places, strict=True):
            argument_number = self._argument(call)
            if call.name in ("min", "max"):
                worse = ">=" if call.name == "min" else "<="
                lines += [
                    f"if v{argument_number} is not None:",
                    " try:",
                    f"  m = s[{slot}]",
                    f"  while m and m[-1][1] {worse} v{argument_number}: m.pop()",
                    f"  m.append((p, v{argument_number}))",
                    " except FAILURES: pass",
                ]
            elif call.name in ("stddev", "median", "percentile", "distinctcount"):
                lines.append(f"s[{slot}].add(v{argument_number})")
        return lines

    def leave(self) -> list[str]:
        """Code that lets go what stands at or before ``lim``; sums start anew when nothing is left."""
        lines = []
        if self.has_queue:
            body = []
            for argument, slot in self._sums.items():
                body += [f"w = x[{argument + 1}]", f"if w is None: s[{slot + 1}] -= 1"]
                if self.arguments[argument][1]:
                    body.append(f"else: t{slot} -= w")
            for call, slot in zip(self.scope.aggregates, self._places, strict=True):
                if call.name in ("stddev", "median", "percentile", "distinctcount"):
                    body.append(f"s[{slot}].remove(x[{(self._argument(call) or 0) + 1}])")
            totals = [slot for argument, slot in self._sums.items() if self.arguments[argument][1]]
            lines += [f"t{slot} = s[{slot}]" for slot in totals]
            lines += ["q = s[0]", "while q and q[0][0] <= lim:", " x = q.popleft()", *(f" {line}" for line in body)]
            if totals:
                lines.append("if not q: " + " = ".join(f"t{slot}" for slot in totals) + " = 0")
        for call, slot in zip(self.scope.aggregates, self._places, strict=True):
            if call.name in ("min", "max"):
                lines += [f"m = s[{slot}]", "while m and m[0][0] <= lim: m.popleft()"]
        return lines

    def result(self) -> list[str]:
        """Code that sets A0, A1 ... to the aggregates."""
        lines = []
        for index, (call, slot) in enumerate(zip(self.scope.aggregates, self._places, strict=True)):
            argument = self._argument(call)
            match call.name:
                case "count":
                    source = "len(q)" if argument is None else f"len(q) - s[{slot + 1}]"
                case "sum":
                    source = f"t{slot} if len(q) != s[{slot + 1}] else None"
                case "avg":
                    lines.append(f"n = len(q) - s[{slot + 1}]")
                    source = f"t{slot} / n if n else None"
                case "min" | "max":
                    source = f"s[{slot}][0][1] if s[{slot}] else None"
                case "first":
                    source = f"q[0][{(argument or 0) + 1}] if q else None"
                case "last":
                    source = f"q[-1][{(argument or 0) + 1}] if q else None"
                case _:
                    source = f"s[{slot}].value()"
            lines.append(f"A{index} = {source}")
        return lines

    def refresh(self) -> list[str]:
        """Code that sums anew, so that rounding errors do not outlive a few windows. Stands behind :meth:`leave`."""
        lines = []
        for argument, slot in self._sums.items():
            if self.arguments[argument][1]:
                values = f"x[{argument + 1}] for x in s[0] if x[{argument + 1}] is not None"
                lines.append(f"s[{slot}] = sum({values})")
        return lines

    def empty(self) -> str:
        """Source that is true for a group that holds nothing."""
        if self.has_queue:
            return "not s[0]"
        return "not (" + " or ".join(f"s[{place}]" for place in dict.fromkeys(self._places)) + ")"

    def new_group(self) -> str:
        """Source of the state of a new group."""
        return "[" + ", ".join(self.slots) + "]"

    def event_values(self) -> str:
        """Source of the tuple of all arguments."""
        return tuple_source([f"v{index}" for index in range(len(self.arguments))])


def indent(lines: list[str], depth: int) -> str:
    """Lines of code, indented by so many blanks, each with its end."""
    return "".join(f"{' ' * depth}{line}\n" for line in lines)
