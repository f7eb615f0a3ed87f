"""Filters, and the tree against the plain definition of matching."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sib.mqtt.kp_topics import ANSWER, COMMAND, INDICATION, own_topic, own_topic_kind
from sib.mqtt.topics import (
    Subscription,
    SubscriptionTree,
    is_topic_filter,
    is_topic_name,
    matches,
    split_share,
)

levels = st.sampled_from(["a", "b", "", "$SYS"])
topics = st.lists(levels, min_size=1, max_size=4).map("/".join)
patterns = st.builds(
    lambda parts, end: "/".join([*parts, *end]),
    st.lists(st.sampled_from(["a", "b", "", "+", "$SYS"]), min_size=1, max_size=4),
    st.sampled_from([[], ["#"]]),
) | st.just("#")


@pytest.mark.parametrize(
    ("pattern", "topic", "expected"),
    [
        ("a/+/c", "a/b/c", True),
        ("a/+/c", "a//c", True),
        ("a/+", "a", False),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("+", "/a", False),
        ("/+", "/a", True),
        ("+/+", "/a", True),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("$SYS/#", "$SYS/x", True),
        ("a", "A", False),
    ],
)
def test_matching_by_the_book(pattern, topic, expected):
    assert matches(pattern, topic) is expected


@pytest.mark.parametrize("pattern", ["", "a/#/b", "a#", "a/b#", "a+", "+a/b", "##", "#/"])
def test_bad_filters(pattern):
    assert not is_topic_filter(pattern)
    assert split_share(pattern) is None


@pytest.mark.parametrize("pattern", ["#", "+", "/", "a/+/#", "+/+", "a//b", "$SYS/#"])
def test_good_filters(pattern):
    assert is_topic_filter(pattern)
    assert split_share(pattern) == (None, pattern)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("$share/g/a/#", ("g", "a/#")),
        ("$share/g//", ("g", "/")),
        ("$share/g/", None),
        ("$share/g", None),
        ("$share//a", None),
        ("$share/g+/a", None),
        ("$share/g/a#", None),
        ("$shared/a", (None, "$shared/a")),
    ],
)
def test_shared_filters(pattern, expected):
    assert split_share(pattern) == expected


@pytest.mark.parametrize(("topic", "expected"), [("a", True), ("", False), ("a/+", False), ("#", False), ("/", True)])
def test_topic_names(topic, expected):
    assert is_topic_name(topic) is expected


@given(st.lists(st.tuples(st.integers(0, 3), patterns, st.integers(0, 2)), max_size=12), topics)
def test_tree_finds_what_the_definition_finds(subscriptions, topic):
    tree: SubscriptionTree[int] = SubscriptionTree()
    wanted: dict[tuple[int, str], int] = {}
    for subscriber, pattern, qos in subscriptions:
        tree.add(subscriber, pattern, Subscription(qos))
        wanted[subscriber, pattern] = qos
    expected: dict[int, int] = {}
    for (subscriber, pattern), qos in wanted.items():
        if matches(pattern, topic):
            expected[subscriber] = max(expected.get(subscriber, 0), qos)
    found, groups = tree.match(topic)
    assert {subscriber: match.qos for subscriber, match in found.items()} == expected
    assert groups == []


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 2), patterns, st.sampled_from([None, "g", "h"])), max_size=20),
    topics,
)
def test_tree_forgets_what_is_removed(changes, topic):
    tree: SubscriptionTree[int] = SubscriptionTree()
    wanted: set[tuple[int, str, str | None]] = set()
    for is_added, subscriber, pattern, group in changes:
        tree.match(topic)
        if is_added:
            tree.add(subscriber, pattern, Subscription(1), group)
            wanted.add((subscriber, pattern, group))
        else:
            tree.remove(subscriber, pattern, group)
            wanted.discard((subscriber, pattern, group))
    found, groups = tree.match(topic)
    assert set(found) == {s for s, pattern, group in wanted if group is None and matches(pattern, topic)}
    assert sorted(s for group in groups for s in group.members) == sorted(
        s for s, pattern, group in wanted if group is not None and matches(pattern, topic)
    )
    for subscriber, pattern, group in wanted:
        tree.remove(subscriber, pattern, group)
    assert tree._root.is_empty


def test_overlapping_subscriptions_become_one():
    tree: SubscriptionTree[str] = SubscriptionTree()
    tree.add("c", "a/#", Subscription(2, subscription_id=1, is_no_local=True))
    tree.add("c", "a/b", Subscription(1, subscription_id=2, is_retain_as_published=True))
    match = tree.match("a/b")[0]["c"]
    assert (match.qos, match.is_no_local, match.is_retain_as_published) == (2, False, True)
    assert sorted(match.subscription_ids) == [1, 2]


def test_share_group_takes_turns():
    tree: SubscriptionTree[str] = SubscriptionTree()
    for member in "abc":
        tree.add(member, "t", Subscription(1), "g")
    firsts = [next(iter(tree.match("t")[1][0].in_turn()))[0] for _ in range(6)]
    assert sorted(firsts) == ["a", "a", "b", "b", "c", "c"]


def test_own_topics_are_exact():
    assert own_topic(ANSWER, "dev") == "/TOPIC_MQTT_PUBLISHdev"
    assert own_topic_kind("/TOPIC_MQTT_INDICATIONdev", "dev") == INDICATION
    assert own_topic_kind("/TOPIC_MQTT_SIB_COMMANDERdev", "dev") == COMMAND
    assert own_topic_kind("/TOPIC_MQTT_PUBLISH/dev", "dev") is None
    assert own_topic_kind("/TOPIC_MQTT_PUBLISHdev2", "dev") is None
