"""Topic names and filters, and the tree that finds the subscriptions of a topic.

Source: MQTT 5, sections 4.7 and 4.8.2 (the same as 3.1.1 but for shared subscriptions).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

SHARE_PREFIX = "$share/"
MATCH_CACHE_TOPICS_MAX = 50_000
"""Topics whose subscriptions are remembered; at the bound the memory is emptied and fills again."""

Subscriber = TypeVar("Subscriber", bound=Hashable)


def is_topic_name(topic: str) -> bool:
    """Whether a message may be published to this topic: not empty and without wildcards."""
    return bool(topic) and "+" not in topic and "#" not in topic


def is_topic_filter(pattern: str) -> bool:
    """Whether wildcards stand alone in their level, and ``#`` only in the last one. Not for ``$share/`` filters."""
    levels = pattern.split("/")
    last = len(levels) - 1
    for at, level in enumerate(levels):
        if "#" in level and (level != "#" or at != last):
            return False
        if "+" in level and level != "+":
            return False
    return bool(pattern)


def split_share(pattern: str) -> tuple[str | None, str] | None:
    """``$share/GROUP/FILTER`` as (group, filter), others as (None, filter); None when it is no good filter."""
    group: str | None = None
    if pattern.startswith(SHARE_PREFIX):
        group, _, pattern = pattern[len(SHARE_PREFIX) :].partition("/")
        if not group or "+" in group or "#" in group:
            return None
    return (group, pattern) if is_topic_filter(pattern) else None


def matches(pattern: str, topic: str) -> bool:
    """Whether a filter (not a shared one) takes a topic. The definition; the tree is its fast form."""
    if topic.startswith("$") and pattern[:1] in ("+", "#"):
        return False
    levels, wanted = topic.split("/"), pattern.split("/")
    for at, level in enumerate(wanted):
        if level == "#":
            return True
        if at >= len(levels) or level not in ("+", levels[at]):
            return False
    return len(levels) == len(wanted)


@dataclass(slots=True, frozen=True)
class Subscription:
    """What a subscriber asked for with one filter. ``subscription_id`` 0 means none."""

    qos: int
    is_no_local: bool = False
    is_retain_as_published: bool = False
    retain_handling: int = 0
    subscription_id: int = 0


@dataclass(slots=True, frozen=True)
class Match:
    """All subscriptions of one subscriber that take a topic, put together: it gets the message once."""

    qos: int
    is_no_local: bool
    is_retain_as_published: bool
    subscription_ids: tuple[int, ...]


class ShareGroup(Generic[Subscriber]):
    """The members of a shared subscription; each message goes to one of them, in turn."""

    __slots__ = ("_turn", "members")

    def __init__(self) -> None:
        self.members: dict[Subscriber, Subscription] = {}
        self._turn = 0

    def in_turn(self) -> Iterator[tuple[Subscriber, Subscription]]:
        """All members, beginning with the one whose turn it is; the turn moves on by one."""
        members = list(self.members.items())
        self._turn = start = (self._turn + 1) % len(members) if members else 0
        yield from members[start:]
        yield from members[:start]


class _Node(Generic[Subscriber]):
    __slots__ = ("children", "shared", "subscribers")

    def __init__(self) -> None:
        self.children: dict[str, _Node[Subscriber]] = {}
        self.subscribers: dict[Subscriber, Subscription] = {}
        self.shared: dict[str, ShareGroup[Subscriber]] = {}

    @property
    def is_empty(self) -> bool:
        return not (self.children or self.subscribers or self.shared)


class SubscriptionTree(Generic[Subscriber]):
    """Subscriptions by the levels of their filters. Matching a topic costs its depth, not the number of filters."""

    def __init__(self) -> None:
        self._root: _Node[Subscriber] = _Node()
        self._cache: dict[str, tuple[dict[Subscriber, Match], list[ShareGroup[Subscriber]]]] = {}

    def add(self, subscriber: Subscriber, pattern: str, subscription: Subscription, group: str | None = None) -> None:
        """Add or replace the subscription of this subscriber to this filter (within its share group, if any)."""
        node = self._root
        for level in pattern.split("/"):
            child = node.children.get(level)
            if child is None:
                child = node.children[level] = _Node()
            node = child
        if group is None:
            node.subscribers[subscriber] = subscription
        else:
            node.shared.setdefault(group, ShareGroup()).members[subscriber] = subscription
        self._cache.clear()

    def remove(self, subscriber: Subscriber, pattern: str, group: str | None = None) -> None:
        """Take a subscription out; nothing happens when there is none."""
        path: list[tuple[_Node[Subscriber], str]] = []
        node = self._root
        for level in pattern.split("/"):
            child = node.children.get(level)
            if child is None:
                return
            path.append((node, level))
            node = child
        if group is None:
            node.subscribers.pop(subscriber, None)
        elif group in node.shared:
            node.shared[group].members.pop(subscriber, None)
            if not node.shared[group].members:
                del node.shared[group]
        for parent, level in reversed(path):
            if parent.children[level].is_empty:
                del parent.children[level]
        self._cache.clear()

    def match(self, topic: str) -> tuple[dict[Subscriber, Match], list[ShareGroup[Subscriber]]]:
        """Who gets a message of this topic: each subscriber once, and the share groups.

        The answer is shared with later calls: it must not be changed.
        """
        found = self._cache.get(topic)
        if found is None:
            if len(self._cache) >= MATCH_CACHE_TOPICS_MAX:
                self._cache.clear()
            found = self._cache[topic] = self._find(topic)
        return found

    def _find(self, topic: str) -> tuple[dict[Subscriber, Match], list[ShareGroup[Subscriber]]]:
        matched: dict[Subscriber, Match] = {}
        groups: list[ShareGroup[Subscriber]] = []
        for node in self._nodes(topic):
            groups += node.shared.values()
            for subscriber, subscription in node.subscribers.items():
                matched[subscriber] = _merge(matched.get(subscriber), subscription)
        return matched, groups

    def _nodes(self, topic: str) -> Iterator[_Node[Subscriber]]:
        levels = topic.split("/")
        waiting = [(self._root, 0)]
        while waiting:
            node, at = waiting.pop()
            # A wildcard in the first level does not take topics that begin with "$".
            is_wild = at > 0 or not topic.startswith("$")
            if is_wild and (rest := node.children.get("#")) is not None:
                yield rest
            if at == len(levels):
                yield node
                continue
            if (child := node.children.get(levels[at])) is not None:
                waiting.append((child, at + 1))
            if is_wild and (child := node.children.get("+")) is not None:
                waiting.append((child, at + 1))


def _merge(earlier: Match | None, subscription: Subscription) -> Match:
    ids = (subscription.subscription_id,) if subscription.subscription_id else ()
    if earlier is None:
        return Match(subscription.qos, subscription.is_no_local, subscription.is_retain_as_published, ids)
    return Match(
        max(earlier.qos, subscription.qos),
        earlier.is_no_local and subscription.is_no_local,
        earlier.is_retain_as_published or subscription.is_retain_as_published,
        earlier.subscription_ids + ids,
    )
