"""What failed in a shard: how often, when it is tried again, and what is given up so that the rest goes on.

A failure sends the shard back to its last state. Of the changes that come again, those that were taken together with a failure
come one by one; a change that fails alone ``TRIES`` times is set aside, and so is a rule that fails as often over time alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from actors.feed import Event

TRIES = 3
PAUSES_S = (0.2, 1.0, 5.0)
"""How long nothing is read after the first, the second and any further failure."""


class Patience:
    """The failures of one shard."""

    def __init__(self) -> None:
        self._suspected: dict[str, int] = {}
        """By partition: changes up to this one come one by one."""
        self._failures: Counter[tuple[str, int]] = Counter()
        self._of_rules: Counter[tuple[str, int]] = Counter()
        self._in_a_row = 0
        self.set_aside = 0

    @property
    def pause_s(self) -> float:
        """How long to wait before the next try."""
        return PAUSES_S[min(self._in_a_row, len(PAUSES_S)) - 1] if self._in_a_row else 0.0

    def parts(self, partition: str, events: Sequence[Event]) -> Iterator[Sequence[Event]]:
        """Changes as they are to be taken: without those that are set aside, the suspected ones alone."""
        suspected = self._suspected.get(partition, -1)
        trusted = [event for event in events if event.seq > suspected]
        for event in events:
            if event.seq <= suspected and self._failures[partition, event.seq] < TRIES:
                yield [event]
        if trusted:
            yield trusted

    def failed(self, partition: str, events: Sequence[Event]) -> Event | None:
        """Take note of a failure over these changes; the one that is set aside now, if any."""
        self._in_a_row += 1
        if len(events) > 1:
            self._suspected[partition] = events[-1].seq
            return None
        [event] = events
        self._suspected[partition] = max(event.seq, self._suspected.get(partition, -1))
        self._failures[partition, event.seq] += 1
        if self._failures[partition, event.seq] < TRIES:
            return None
        self.set_aside += 1
        return event

    def failed_over_time(self, rule: str, version: int) -> bool:
        """Take note that a rule failed while time passed; whether it is to be stopped now."""
        self._in_a_row += 1
        self._of_rules[rule, version] += 1
        return self._of_rules[rule, version] == TRIES

    def is_stopped(self, rule: str, version: int) -> bool:
        """Whether this version of a rule is not to be run any more."""
        return self._of_rules[rule, version] >= TRIES

    def forget(self, positions: Mapping[str, int]) -> None:
        """Changes up to these positions are in the state that was kept: they do not come again."""
        self._in_a_row = 0
        for partition, seq in list(self._failures):
            if seq <= positions.get(partition, -1):
                del self._failures[partition, seq]
        self._suspected = {name: seq for name, seq in self._suspected.items() if seq > positions.get(name, -1)}
