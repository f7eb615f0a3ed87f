"""Groups of batch windows, fast: the simple aggregates as plain numbers in a list, with generated code."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from sib.cep.aggregates import new_aggregate
from sib.cep.codegen import tuple_source
from sib.cep.language import ast
from sib.cep.nulls import numeric
from sib.cep.operators.groups import Group, Groups
from sib.cep.operators.parts import indent
from sib.cep.scope import AggregateCall, Scope


class GrowingGroups(Groups):
    """A group is [last event, slots of aggregates ...]; nothing ever leaves it, and two can be merged."""

    def __init__(self, scope: Scope, key_paths: tuple[ast.Path, ...]) -> None:
        super().__init__(scope, key_paths)
        self._slots: list[str] = ["None"]
        self._adding: list[str] = []
        self._merging: list[str] = []
        self._results = [self._plan(index, call) for index, call in enumerate(self.calls)]
        scope.namespace.update(new_aggregate=new_aggregate, numeric=numeric)
        function = scope.namespace.function
        reading = [line for index, call in enumerate(self.calls) for line in self._read(index, call)]
        add = "def add_event(s, e):\n" + indent(["s[0] = e", *reading, *self._adding], 1)
        merge = "def merge_groups(s, o):\n" + indent(["s[0] = o[0]", *self._merging], 1)
        self._new: Callable[[], Group] = function(
            f"def new_group():\n return [{', '.join(self._slots)}]\n", "new_group"
        )
        self._add: Callable[[Group, Any], None] = function(add, "add_event")
        self._merge: Callable[[Group, Group], None] = function(merge, "merge_groups")
        source = tuple_source(self._results)
        self._values: Callable[[Group], tuple[Any, ...]] = eval(f"lambda s: {source}", scope.namespace)  # noqa: S307
        if not self.keeps_events:
            self.add = self._add  # type: ignore[method-assign]
            self.new = self._new  # type: ignore[method-assign]
            self.merge = self._merge  # type: ignore[method-assign]

    def _read(self, index: int, call: AggregateCall) -> list[str]:
        """Code that sets the argument of an aggregate."""
        if call.argument is None:
            return []
        generator = self._scope.generator()
        fast, safe = generator.value(call.argument), generator.safe(call.argument)
        if call.name in ("sum", "avg"):
            fast, safe = f"+{fast}", f"numeric({safe})"
        if fast == safe:
            return [f"v{index} = {fast}"]
        return ["try:", f" v{index} = {fast}", "except FAILURES:", f" v{index} = {safe}"]

    def _plan(self, index: int, call: AggregateCall) -> str:
        """Slots and code of an aggregate; the source of its value."""
        slot, value = len(self._slots), f"v{index}"
        match call.name:
            case "count":
                self._slots.append("0")
                condition = f"if {value} is not None: " if call.argument is not None else ""
                self._adding.append(f"{condition}s[{slot}] += 1")
                self._merging.append(f"s[{slot}] += o[{slot}]")
                return f"s[{slot}]"
            case "sum" | "avg":
                self._slots += ["0", "0"]
                self._adding += [f"if {value} is not None:", f" s[{slot}] += {value}", f" s[{slot + 1}] += 1"]
                self._merging += [f"s[{slot}] += o[{slot}]", f"s[{slot + 1}] += o[{slot + 1}]"]
                result = f"s[{slot}] / s[{slot + 1}]" if call.name == "avg" else f"s[{slot}]"
                return f"({result} if s[{slot + 1}] else None)"
            case "min" | "max":
                self._slots.append("None")
                better = "<" if call.name == "min" else ">"
                self._adding += _keep_better(slot, value, better)
                self._merging += _keep_better(slot, f"o[{slot}]", better)
                return f"s[{slot}]"
        self._slots.append(f"new_aggregate({call.name!r}, {call.percent!r}, only_grows=True)")
        self._adding.append(f"s[{slot}].add({value})")
        self._merging.append(f"s[{slot}].merge(o[{slot}])")
        return f"s[{slot}].value()"

    def _arguments(self, group: Group, ts: int) -> Iterable[tuple[Any, ...]]:
        if self.keeps_events:
            return super()._arguments(group, ts)
        return ((group[0], ts, *self._values(group)),)


def _keep_better(slot: int, value: str, better: str) -> list[str]:
    return [
        f"if {value} is not None:",
        " try:",
        f"  if s[{slot}] is None or {value} {better} s[{slot}]: s[{slot}] = {value}",
        " except FAILURES: pass",
    ]
