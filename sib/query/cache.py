"""Plans by text: KPs send the same few texts again and again, and parsing one costs up to a millisecond."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from datetime import datetime

from sib.query.constructors import Clock
from sib.query.native import plan_native
from sib.query.plan import Plan
from sib.query.sqlcolumns import Lookup, OntologyColumns
from sib.query.sqlplan import plan_sql

MAX_PLANS = 1000
MAX_TEXT_CHARS = 4096  # longer texts are rarely sent twice


class PlanCache:
    """A bounded cache of plans in front of ``plan_native`` and ``plan_sql``; errors are not kept.

    A SQL plan is used again only while ``lookup`` gives the very same ontology object for every name that it looked
    up; a plan that asked for the time is never kept. Not safe for threads.
    """

    def __init__(self, *, lookup: Lookup, now: Clock, max_plans: int = MAX_PLANS) -> None:
        self._lookup = lookup
        self._now = now
        self._max_plans = max_plans
        self._plans: OrderedDict[Hashable, tuple[Plan, dict[str, OntologyColumns]]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._plans)

    def native(self, text: str, ontology: str | None) -> Plan:
        """The plan of a native text; raises as ``plan_native`` does."""
        return self._get(("native", text, ontology), lambda lookup, now: plan_native(text, ontology=ontology, now=now))

    def sql(self, text: str) -> Plan:
        """The plan of a SQL-like statement; raises as ``plan_sql`` does."""
        return self._get(("sql", text), lambda lookup, now: plan_sql(text, lookup=lookup, now=now))

    def _get(self, key: tuple[str | None, ...], make: Callable[[Lookup, Clock], Plan]) -> Plan:
        found = self._plans.get(key)
        if found is not None:
            plan, ontologies = found
            if all(self._lookup(name) is ontology for name, ontology in ontologies.items()):
                self._plans.move_to_end(key)
                return plan
        seen: dict[str, OntologyColumns] = {}
        has_asked_time = False

        def lookup(name: str) -> OntologyColumns:
            seen[name] = self._lookup(name)
            return seen[name]

        def now() -> datetime:
            nonlocal has_asked_time
            has_asked_time = True
            return self._now()

        plan = make(lookup, now)
        if not has_asked_time and len(key[1] or "") <= MAX_TEXT_CHARS:
            self._plans[key] = (plan, seen)
            self._plans.move_to_end(key)
            if len(self._plans) > self._max_plans:
                self._plans.popitem(last=False)
        return plan
