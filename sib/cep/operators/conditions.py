"""Generated code of a pattern: which slots an event fits by itself, conditions on captured events, the output row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sib.cep.codegen import Ref
from sib.cep.language import ast
from sib.cep.operators.chains import FlatChain, Slot
from sib.cep.scope import Bound, Scope, attribute_path
from sib.cep.streams import AttributePath, Layout


@dataclass(frozen=True, slots=True)
class _Own(Bound):
    """The slot whose filter is being read: without an index it means the event itself, with one what it has captured."""

    captured: str = ""

    def ref(self, path: AttributePath, index: int | None) -> Ref:
        if index is None:
            return Bound.ref(self, path, None)
        return Bound(self.captured, self.layout, is_list=True).ref(path, index)


def last_time(captured: Sequence[Any]) -> int | None:
    """The time of the newest captured event."""
    times = [
        event[0] for item in captured for event in (item if isinstance(item, list) else [item]) if event is not None
    ]
    return max(times, default=None)


def _is_correlated(source: str) -> bool:
    """Whether code reads captured events; a text that looks like it only costs time."""
    return "m[" in source or "(m)" in source


class PatternCode:
    """The functions of one pattern. Captured events are ``m``, the event ``e``, the key ``k``, the time ``ts``."""

    def __init__(self, scope: Scope, chain: FlatChain, layouts: Sequence[Layout]) -> None:
        self._scope, self._chain, self._layouts = scope, chain, layouts
        scope.namespace["last_time"] = last_time
        scope.times.update(eventtime="e[0]", lasteventtime="last_time(m)")
        own: list[str] = []
        own_safe: list[str] = []
        self.correlated: list[Callable[[Any, Any], bool] | None] = []
        for slot in chain.slots:
            generator = scope.generator(sources=self._sources(slot), current=self._own(slot))
            alone: list[ast.Expression] = []
            together: list[ast.Expression] = []
            for condition in (part for item in slot.source.filters for part in ast.conjuncts(item)):
                (together if _is_correlated(generator.safe(condition)) else alone).append(condition)
            own.append(" and ".join(map(generator.truth, alone)) or "True")
            own_safe.append(" and ".join(f"{generator.safe(part)} is True" for part in alone) or "True")
            self.correlated.append(scope.condition("e, m", together, generator))
        self._own_sources = own
        self._hit_functions(own_safe)
        self._bind_outputs()

    def _own(self, slot: Slot) -> Bound:
        return _Own("e", self._layouts[slot.stream], captured=f"m[{slot.number}]")

    def _captured(self, slot: Slot) -> Bound:
        return Bound(f"m[{slot.number}]", self._layouts[slot.stream], slot.is_list, is_optional=True)

    def _sources(self, own: Slot | None) -> dict[str, Bound]:
        """The sources by name, as seen from a filter, or (None) from the select clause."""
        names: dict[str, Bound] = {}
        for slot in self._chain.slots:
            bound = self._own(slot) if slot is own else self._captured(slot)
            if slot.alias:
                names[slot.alias.casefold()] = bound
        for slot in [*([own] if own else []), *self._chain.slots]:
            if not slot.is_absent or slot is own:
                bound = self._own(slot) if slot is own else self._captured(slot)
                names.setdefault(slot.source.name.casefold(), bound)
        return names

    def _hit_functions(self, conditions: list[str]) -> None:
        """For each stream a function of the event: the bits of the slots whose own conditions are true. Never raises."""
        for stream in range(len(self._chain.streams)):
            bits = [
                f"({1 << s.number} if {conditions[s.number]} else 0)" for s in self._chain.slots if s.stream == stream
            ]
            source = f"def hits{stream}(e):\n return {' | '.join(bits)}\n"
            self._scope.namespace.function(source, f"hits{stream}")

    def _bind_outputs(self) -> None:
        scope = self._scope
        scope.sources = self._sources(None)
        first = next(slot for slot in self._chain.slots if not slot.is_absent)
        scope.current = self._captured(first)
        parts = len(scope.partition_paths)
        for index, path in enumerate(scope.partition_paths):
            source = "k" if parts == 1 else f"k[{index}]"
            scope.key_refs[path.name.casefold()] = Ref(source, source)
        scope.key_refs.setdefault("ts", Ref("ts", "ts", "number"))
        scope.times.update(eventtime="ts")
        generator = scope.generator()
        self.row: Callable[..., tuple[Any, ...]] = scope.row_function("m, ts, k", generator)
        having = [scope.having] if scope.having is not None else []
        self.passes: Callable[..., bool] | None = scope.condition("m, ts, k", having, generator)

    def key_sources(self) -> list[str]:
        """For each stream the source of the partition key of an event ``e``."""
        aliases = {slot.alias.casefold() for slot in self._chain.slots if slot.alias} | set(self._chain.streams)
        sources = []
        for layout in self._layouts:
            bound = Bound("e", layout)
            parts = []
            for path in self._scope.partition_paths:
                is_qualified = len(path.parts) > 1 and path.parts[0][0].casefold() in aliases
                parts.append(bound.ref(attribute_path(path.parts[1:] if is_qualified else path.parts), None).safe)
            sources.append("None" if not parts else parts[0] if len(parts) == 1 else f"({', '.join(parts)})")
        return sources

    def scanner(self, *, is_tagged: bool, is_strict: bool) -> str:
        """Source of ``scan(events, matches, due, tick, event, outs)``: hands on the events that may matter."""
        parts = len(self._scope.partition_paths)
        lines = ["def scan(b, P, due, tick, event, outs):", f" for {'s, e' if is_tagged else 'e'} in b:"]
        lines += ["  if e[0] >= due: due = tick(e[0])"]
        for stream, key in enumerate(self.key_sources()):
            pad = "  "
            if is_tagged:
                lines.append(f"  {'if' if stream == 0 else 'elif'} s == {stream}:")
                pad = "   "
            lines += [f"{pad}h = 0", f"{pad}try:"]
            for slot in self._chain.slots:
                if slot.stream == stream:
                    lines.append(f"{pad} if {self._own_sources[slot.number]}: h |= {1 << slot.number}")
            lines += [f"{pad}except FAILURES: h = hits{stream}(e)"]
            if not is_strict:
                lines.append(f"{pad}if not h: continue")
            lines.append(f"{pad}k = {key}")
            if parts:
                lines.append(f"{pad}if {'k is None' if parts == 1 else 'None in k'}: continue")
        lines += [
            "  try:",
            "   if not h and k not in P: continue",
            "   hash(k)",
            "  except TypeError: k = frozen_key(k)",
        ]
        lines += ["  due = event(e, k, h, outs)"]
        return "\n".join(lines) + "\n"
