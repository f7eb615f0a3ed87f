"""What one query may use: time, documents held in memory, and the size of what it makes."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from sib.errors import LimitError, QuerySyntaxError, QueryTimeoutError

MAX_NESTING = 100
"""Containers (objects and arrays) inside each other in a filter, update, projection or pipeline."""

MAX_HELD_DOCUMENTS = 100_000
"""Documents or groups that the blocking stages of one query may keep in memory, unless the budget says otherwise."""

MAX_ARRAY_LENGTH = 1_000_000
"""Elements of an array that a query makes."""

MAX_TEXT_LENGTH = 4 * 1024 * 1024
"""Characters of a string that a query makes."""

MAX_VALUE_NODES = 1_000_000
"""Values (scalars and containers) in one document that a query makes."""

MAX_VALUE_DEPTH = 150
"""Containers inside each other in one document that a query makes."""

SPENDS_PER_CLOCK_READING = 128

SYSTEM_RANDOM = random.SystemRandom()
"""The randomness of contexts that are given none; it has no state, so that thousands of contexts can share it."""


class Budget:
    """The time and memory that one query may use; every loop over documents or elements spends from it.

    Args:
        deadline_s: the reading of ``monotonic`` at which the query must stop; None is no limit.
        monotonic: a clock in seconds. Needed only with a deadline.
        max_held_documents: documents and groups that blocking stages may keep in memory together.
    """

    __slots__ = ("_deadline_s", "_held", "_max_held", "_monotonic", "_until_reading")

    def __init__(
        self,
        deadline_s: float | None = None,
        monotonic: Callable[[], float] | None = None,
        *,
        max_held_documents: int = MAX_HELD_DOCUMENTS,
    ) -> None:
        if deadline_s is not None and monotonic is None:
            raise ValueError("a deadline needs a clock")
        self._deadline_s = deadline_s
        self._monotonic = monotonic
        self._max_held = max_held_documents
        self._held = 0
        self._until_reading = SPENDS_PER_CLOCK_READING

    @classmethod
    def lasting(cls, time_limit_s: float, monotonic: Callable[[], float]) -> Budget:
        """A budget that ends ``time_limit_s`` from now."""
        return cls(monotonic() + time_limit_s, monotonic)

    def spend(self, steps: int = 1) -> None:
        """Counts work and now and then reads the clock.

        Raises:
            QueryTimeoutError: the deadline has passed.
        """
        self._until_reading -= steps
        if self._until_reading <= 0:
            self._until_reading = SPENDS_PER_CLOCK_READING
            self.check()

    def check(self) -> None:
        """Reads the clock now; raises QueryTimeoutError when the deadline has passed."""
        if self._deadline_s is not None and self._monotonic is not None and self._monotonic() >= self._deadline_s:
            raise QueryTimeoutError("the query was over its time limit: narrow its condition, or use an indexed field")

    def remaining_s(self) -> float | None:
        """Seconds until the deadline, for a database that stops by itself; None without a deadline.

        Raises:
            QueryTimeoutError: the deadline has passed.
        """
        self.check()
        if self._deadline_s is None or self._monotonic is None:
            return None
        return max(0.0, self._deadline_s - self._monotonic())

    def hold(self, documents: int = 1) -> None:
        """Counts documents or groups that a blocking stage keeps.

        Raises:
            LimitError: more are kept than the budget allows.
        """
        self._held += documents
        if self._held > self._max_held:
            raise LimitError(
                f"the query keeps more than {self._max_held} documents in memory (sort, group, facet, lookup): "
                "put a narrower $match or a $limit in front"
            )
        self.spend(documents)

    @property
    def held(self) -> int:
        """How many documents and groups are kept now."""
        return self._held

    def release_to(self, held: int) -> None:
        """Gives back what a sub-pipeline had kept and has dropped: ``held`` is what was kept before it ran."""
        self._held = held


class Context:
    """What compiled filters, expressions and pipelines read while they run.

    Attributes:
        now: the value of ``$$NOW``: a datetime or something that gives one; None refuses ``$$NOW``.
        variables: variables from outside (``let`` of ``$lookup``) that top-level expressions start with.
        random: the source of ``$rand`` and ``$sample``.
    """

    __slots__ = ("budget", "now", "random", "variables")

    def __init__(
        self,
        budget: Budget | None = None,
        now: datetime | Callable[[], datetime] | None = None,
        variables: Mapping[str, Any] | None = None,
        source: random.Random | None = None,
    ) -> None:
        self.budget = budget if budget is not None else Budget()
        self.now = now
        self.variables: Mapping[str, Any] = variables if variables is not None else {}
        self.random = source if source is not None else SYSTEM_RANDOM

    def current_time(self) -> datetime:
        """The value of ``$$NOW``."""
        if self.now is None:
            raise QuerySyntaxError("$$NOW is not available here")
        return self.now if isinstance(self.now, datetime) else self.now()


def check_nesting(spec: object, what: str) -> None:
    """Refuses a filter, update, projection or pipeline that is nested deeper than MAX_NESTING.

    Raises:
        QuerySyntaxError: too deep.
    """
    level = [spec]
    depth = 0
    while level:
        if depth > MAX_NESTING:
            raise QuerySyntaxError(f"the {what} is nested more than {MAX_NESTING} levels deep: simplify it")
        inner: list[object] = []
        for value in level:
            if isinstance(value, Mapping):
                inner.extend(value.values())
            elif isinstance(value, (list, tuple)):
                inner.extend(value)
        level = inner
        depth += 1


def check_made_value(value: object, budget: Budget) -> None:
    """Refuses a value that a query made and that is too large or too deep to store, print or compare.

    The walk stops at the bound, so a value that shares its parts (and would be huge when printed) costs little.

    Raises:
        LimitError: more than MAX_VALUE_NODES values, or more than MAX_VALUE_DEPTH levels.
    """
    if not isinstance(value, (dict, list)):
        return
    level: list[dict[str, object] | list[object]] = [value]
    nodes = depth = 0
    while level:
        depth += 1
        if depth > MAX_VALUE_DEPTH:
            raise LimitError(f"the query makes a document of more than {MAX_VALUE_DEPTH} levels: make it flatter")
        inner: list[dict[str, object] | list[object]] = []
        for container in level:
            nodes += len(container)
            if nodes > MAX_VALUE_NODES:
                raise LimitError(f"the query makes a document of more than {MAX_VALUE_NODES} values: make it smaller")
            items = container.values() if isinstance(container, dict) else container
            inner.extend(item for item in items if isinstance(item, (dict, list)))
        level = inner
    budget.spend(nodes // 16)


def check_array_length(length: int) -> None:
    """Raises LimitError when an array made by a query would be too long."""
    if length > MAX_ARRAY_LENGTH:
        raise LimitError(f"the query makes an array of more than {MAX_ARRAY_LENGTH} elements")


def check_text_length(length: int) -> None:
    """Raises LimitError when a string made by a query would be too long."""
    if length > MAX_TEXT_LENGTH:
        raise LimitError(f"the query makes a string of more than {MAX_TEXT_LENGTH} characters")
