"""From committed changes to INDICATIONs: who is told what, and how far each gateway has got.

Each gateway is a consumer with a position: every change up to it has been delivered there, or kept there durably. A live
consumer gets its announcements with the answers of its own writes or by a message; one that is not live (its process is new,
ours is new, or it fell behind) reads the change log from its position, page by page, until it has caught up. Hence whatever
was committed is announced at least once, also after a crash of either side.
Announcements to one gateway form a chain: each names the one before it, because calls to an async actor may overtake.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import bson
from bson import json_util
from bson.codec_options import CodecOptions, DatetimeConversion

from sib.ssap.messages import Dialect
from sib.ssap.printing import print_legacy, print_one
from sib.subscriptions import SubscriptionIndex
from storage.bdc.records import SubscriptionRecord
from storage.bdtr.model import UNKNOWN_CAUSE, Cause

_NAIVE = json_util.JSONOptions(tz_aware=False)
_ANY_DATE: CodecOptions[dict[str, Any]] = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_AUTO)
"""No date of one document may keep the others from being read."""

UNACKNOWLEDGED_MAX = 100_000
"""Announced but not acknowledged items of one gateway; beyond it, the gateway reads the change log instead."""
CATCH_UP_CHANGES_MAX = 1000
"""Changes in one page for a consumer that catches up."""


class Indication(NamedTuple):
    """One changed instance and the subscriptions of one gateway that it concerns."""

    ontology: str
    legacy: str | None
    one: bytes | None
    subscriptions: list[str]


class Event(NamedTuple):
    """One changed instance for a watcher: its change number and the whole document.

    ``cause``: when and by whose session it was modified; of an inserted one the contextData says so.
    """

    seq: int
    ontology: str
    document: dict[str, Any]
    cause: Cause = UNKNOWN_CAUSE


class Events(NamedTuple):
    """Events of one ontology on their way: one piece of bytes for all, since Ray packs and unpacks each object by itself.

    ``first_seq`` is the change number of the first; the others follow in steps of one. ``changes`` is how many they are.
    ``documents``: BSON after BSON.
    """

    first_seq: int
    ontology: str
    changes: int
    documents: bytes
    cause: Cause = UNKNOWN_CAUSE

    def each(self) -> list[Event]:
        """The events."""
        documents = enumerate(bson.decode_all(self.documents, _ANY_DATE), self.first_seq)
        return [Event(seq, self.ontology, document, self.cause) for seq, document in documents]

    def alone(self) -> Iterator[Events]:
        """The same, each by itself. Reads no document."""
        start = 0
        for seq in range(self.first_seq, self.first_seq + self.changes):
            end = start + int.from_bytes(self.documents[start : start + 4], "little")
            yield Events(seq, self.ontology, 1, self.documents[start:end], self.cause)
            start = end


class Announcement(NamedTuple):
    """What a gateway is told: apply it when ``previous`` is what it has got so far, or at once when ``is_reset``."""

    is_reset: bool
    previous: int
    seq: int
    indications: list[Indication]
    events: list[Events] = []


class Subscriber(NamedTuple):
    """A subscription as its partition knows it."""

    id: str
    session_key: str
    ontology: str
    condition: dict[str, Any]
    gateway: str
    is_one: bool
    is_callback: bool = False
    """It stays where it is, wherever its session speaks."""
    since: int = 0
    """It is not told of changes up to this one, which were there before it."""


class Changed(NamedTuple):
    """Committed instances of one ontology: ``instances`` without, ``whole(i)`` with ``_id`` and ``contextData``.

    ``first_seq`` is the change number of the first; the others follow in steps of one.
    """

    first_seq: int
    ontology: str
    instances: Sequence[dict[str, Any] | None]
    whole: Callable[[int], dict[str, Any]]
    cause: Cause = UNKNOWN_CAUSE


@dataclass(slots=True)
class Consumer:
    """How far one gateway has got."""

    epoch: str
    acked: int
    sent: int
    is_live: bool = False
    unacknowledged: int = 0
    outstanding: list[tuple[int, int]] = field(default_factory=list)

    def acknowledge(self, seq: int) -> None:
        while self.outstanding and self.outstanding[0][0] <= seq:
            self.unacknowledged -= self.outstanding.pop(0)[1]
        self.acked = max(self.acked, seq)


class Feed:
    """The subscriptions of one partition and the consumers of its changes."""

    def __init__(self, positions: dict[str, int], seq: int) -> None:
        self._seq = seq
        self._stored = dict(positions)
        self._consumers: dict[str, Consumer] = {}
        self._watched: dict[str, frozenset[str]] = {}
        self._subscribers: dict[str, Subscriber] = {}
        self._indexes: dict[str, SubscriptionIndex] = defaultdict(SubscriptionIndex)

    @property
    def subscriptions(self) -> int:
        return len(self._subscribers)

    def subscribe(self, subscriber: Subscriber, *, is_new: bool = False) -> None:
        """Register; the same id again replaces it. ``is_new``: what has been committed is not for it.

        Raises:
            QuerySyntaxError: The condition cannot be used.
        """
        if is_new:
            known = self._subscribers.get(subscriber.id)
            subscriber = subscriber._replace(since=self._seq if known is None else known.since)
        self._indexes[subscriber.ontology].add(subscriber.id, subscriber.condition)
        self._subscribers[subscriber.id] = subscriber

    def unsubscribe(self, ids: Iterable[str]) -> None:
        for id_ in ids:
            subscriber = self._subscribers.pop(id_, None)
            if subscriber is not None:
                self._indexes[subscriber.ontology].remove(id_)

    def watch(self, name: str, ontologies: frozenset[str]) -> None:
        """Everything that changes in these ontologies goes to this consumer, an actor of another module (CEP, rules)."""
        self._watched[name] = ontologies

    def unwatch(self, name: str) -> None:
        self._watched.pop(name, None)
        self._consumers.pop(name, None)
        self._stored.pop(name, None)

    def is_watcher(self, name: str) -> bool:
        return name in self._watched

    def move(self, session_key: str, gateway: str) -> None:
        """The session speaks through another gateway now: its indications follow."""
        for id_, subscriber in self._subscribers.items():
            if subscriber.session_key == session_key and not subscriber.is_callback:
                self._subscribers[id_] = subscriber._replace(gateway=gateway)

    def consumer(self, gateway: str, epoch: str) -> Consumer:
        """The consumer of a gateway; a new epoch is a new process, which starts from the last position."""
        known = self._consumers.get(gateway)
        if known is not None and known.epoch == epoch:
            return known
        position = known.acked if known is not None else self._stored.get(gateway, self._seq)
        consumer = self._consumers[gateway] = Consumer(epoch, position, position)
        return consumer

    def positions(self) -> dict[str, int]:
        """For each gateway the change up to which all is delivered: what a restart begins from."""
        positions = dict(self._stored)
        for gateway, consumer in self._consumers.items():
            is_clear = consumer.is_live and not consumer.outstanding
            positions[gateway] = self._seq if is_clear else consumer.acked
        return positions

    def publish(self, seq: int, changes: Iterable[Changed]) -> dict[str, Announcement]:
        """Take note of a commit up to ``seq``; returns the announcements of the live consumers that it concerns."""
        self._seq = seq
        changes = list(changes)
        announcements: dict[str, Announcement] = {}
        for gateway, indications in self._indications(changes).items():
            self._announce(announcements, gateway, seq, indications, [])
        for name, ontologies in self._watched.items():
            events = _events(changes, ontologies)
            if events:
                self._announce(announcements, name, seq, [], events)
        return announcements

    def _announce(
        self,
        announcements: dict[str, Announcement],
        name: str,
        seq: int,
        indications: list[Indication],
        events: list[Events],
    ) -> None:
        consumer = self._consumers.get(name)
        if consumer is None or not consumer.is_live:
            return
        if consumer.unacknowledged > UNACKNOWLEDGED_MAX:
            consumer.is_live = False
            return
        announcements[name] = Announcement(False, consumer.sent, seq, indications, events)
        self._note(consumer, seq, len(indications) + _count(events))

    def skip_live(self) -> None:
        """A commit was too large to be matched now: everybody reads it from the change log."""
        for consumer in self._consumers.values():
            consumer.is_live = False

    def catch_up(self, gateway: str, changes: Sequence[tuple[int, Changed]], *, is_last: bool) -> Announcement:
        """One page of the change log for a consumer that is not live, restarting its chain."""
        consumer = self._consumers[gateway]
        seq = changes[-1][0] if changes else self._seq
        if is_last:
            seq, consumer.is_live = self._seq, True
        indications: list[Indication] = []
        events: list[Events] = []
        if gateway in self._watched:
            events = _events([changed for _, changed in changes], self._watched[gateway])
        else:
            indications = self._indications(changed for _, changed in changes).get(gateway, [])
        consumer.outstanding.clear()
        consumer.unacknowledged = 0
        previous, consumer.sent = consumer.sent, seq
        self._note(consumer, seq, len(indications) + _count(events))
        return Announcement(True, previous, seq, indications, events)

    @staticmethod
    def _note(consumer: Consumer, seq: int, count: int) -> None:
        consumer.sent = seq
        consumer.unacknowledged += count
        consumer.outstanding.append((seq, count))

    def _indications(self, changes: Iterable[Changed]) -> dict[str, list[Indication]]:
        by_gateway: dict[str, list[Indication]] = defaultdict(list)
        for changed in changes:
            index = self._indexes.get(changed.ontology)
            if index is None:
                continue
            for position, ids in index.match(changed.instances, changed.whole):
                groups: dict[str, list[str]] = defaultdict(list)
                has_legacy = has_one = False
                seq = changed.first_seq + position
                for id_ in ids:
                    subscriber = self._subscribers[id_]
                    if seq <= subscriber.since:
                        continue
                    groups[subscriber.gateway].append(id_)
                    has_one |= subscriber.is_one
                    has_legacy |= not subscriber.is_one
                if not groups:
                    continue
                document = changed.whole(position)
                legacy = print_legacy(document) if has_legacy else None
                one = print_one(document) if has_one else None
                for gateway, members in groups.items():
                    by_gateway[gateway].append(Indication(changed.ontology, legacy, one, members))
        return by_gateway


def _events(changes: Iterable[Changed], ontologies: frozenset[str]) -> list[Events]:
    found = []
    for changed in changes:
        count = len(changed.instances)
        if count and changed.ontology in ontologies:
            documents = b"".join([bson.encode(changed.whole(position)) for position in range(count)])
            found.append(Events(changed.first_seq, changed.ontology, count, documents, changed.cause))
    return found


def _count(events: Iterable[Events]) -> int:
    return sum(each.changes for each in events)


def subscriber_of(record: SubscriptionRecord, gateway: str) -> Subscriber:
    """A stored subscription as a partition needs it."""
    return Subscriber(
        record.subscription_id,
        record.session_key,
        record.ontology,
        json_util.loads(record.filter_text, json_options=_NAIVE),
        gateway,
        record.dialect == Dialect.ONE,
        bool(record.gateway),
    )
