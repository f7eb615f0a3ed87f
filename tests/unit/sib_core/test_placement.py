"""Keys to shards: the same everywhere, spread, and moved as little as possible."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sib.placement import place

SHARDS = [f"partition-{number}" for number in range(4)]
KNOWN = ["partition-1", "partition-2", "partition-3", "partition-0"]
KEYS = [f"Ontology{number}" for number in range(2000)]


@given(st.text(), st.lists(st.text(), min_size=1, max_size=6, unique=True), st.randoms())
def test_the_order_of_the_list_does_not_count(key, shards, random):
    mixed = list(shards)
    random.shuffle(mixed)
    assert place(key, shards) == place(key, mixed)
    assert place(key, shards) in shards


def test_known_places():
    """They may never change: data would be looked for in the wrong partition."""
    assert [place(key, SHARDS) for key in ("TestSensorTemperatura", "Anything", "é", "")] == KNOWN


def test_keys_are_spread():
    counts = Counter(place(key, SHARDS) for key in KEYS)
    assert set(counts) == set(SHARDS)
    assert all(400 < count < 600 for count in counts.values())


def test_a_new_shard_takes_its_part_and_nothing_else_moves():
    more = [*SHARDS, "partition-4"]
    moved = [place(key, more) for key in KEYS if place(key, more) != place(key, SHARDS)]
    assert set(moved) == {"partition-4"}
    assert 300 < len(moved) < 500


def test_no_shards():
    with pytest.raises(ValueError):
        place("key", [])
