"""Complex event processing: rules in a SiddhiQL-shaped language over streams of events, in event time.

>>> engine = compile_rules("from Lectura[temp > 40] select sensor, temp insert into Caliente")
>>> engine.send("Lectura", 1000, {"sensor": "s1", "temp": 41.5})
[Output(1, 'Caliente', 1000, {'sensor': 's1', 'temp': 41.5})]

Start reading with :mod:`sib.cep.engine`; the language is in :mod:`sib.cep.language`. Nothing here has a clock, a socket
or a store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sib.cep.build import Builder
from sib.cep.cascade import connect
from sib.cep.compiled import compile_rule
from sib.cep.engine import Engine
from sib.cep.errors import CepEventError, CepSnapshotError, CepSyntaxError
from sib.cep.lanes import Timing
from sib.cep.language.ast import Problem, Rule
from sib.cep.language.checker import check
from sib.cep.language.parser import parse_rules
from sib.cep.output import Output
from sib.cep.streams import StreamTypes
from sib.cep.tables import Row

__all__ = [
    "CepEventError",
    "CepSnapshotError",
    "CepSyntaxError",
    "Engine",
    "Output",
    "Problem",
    "Rule",
    "Timing",
    "check",
    "compile_rules",
    "parse_rules",
]


def compile_rules(
    rules: str | Sequence[Rule],
    *,
    streams: StreamTypes | None = None,
    tables: Mapping[str, list[Row]] | None = None,
    timing: Timing | None = None,
    versions: Mapping[str, int] | None = None,
    snapshot: Mapping[str, Any] | None = None,
) -> Engine:
    """An engine for rules.

    Args:
        rules: Their text, or what :func:`parse_rules` made of it.
        streams: Declared attributes and types by stream; without it any attribute is accepted, of any type.
        tables: Rows by table name, for joins, ``in TABLE`` and ``partition by … in TABLE.attribute``.
        timing: What holds where a rule has no ``@watermark``: no delay, late events dropped and counted.
        versions: Version by rule name (or target), part of the alarm ids.
        snapshot: The snapshot that the engine is to :meth:`~sib.cep.engine.Engine.restore` next, if other rules than
            these made it: attributes keep their places in it, so that rules which did not change keep their state.

    Raises:
        CepSyntaxError: With every problem, syntax or meaning.
    """
    parsed = parse_rules(rules) if isinstance(rules, str) else tuple(rules)
    problems = check(parsed, streams, (tables or {}) if streams is not None else None)
    if problems:
        raise CepSyntaxError(problems)
    default = timing or Timing()
    slots = snapshot.get("slots") if snapshot is not None else None
    builder = Builder.of(streams, tables, slots if isinstance(slots, Mapping) else None)
    compiled = [
        compile_rule(builder, rule, default, (versions or {}).get(rule.name or rule.target, 1)) for rule in parsed
    ]
    connect(compiled, builder)
    return Engine(compiled, builder.layouts, builder.tables, default)
