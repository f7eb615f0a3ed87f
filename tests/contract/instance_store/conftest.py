"""Every test of this folder runs on every adapter of the real-time database that is there."""

import os
from collections.abc import Iterator

import pytest

import sofia2.bdtr
from storage.open import open_bdtr

SERVERS = ["mariadb", "postgresql", "mongodb", "oracle"]


STAND_IN_CANNOT = {
    "test_near_with_a_limit_gives_the_nearest_of_all": "$near with an index and a limit takes the first ones, not the nearest",
    "test_two_bounds_on_an_array_may_be_met_by_different_elements": "a range on a multikey index wants both bounds of one element",
    "gte and lte, each met by some element-indexed": "a range on a multikey index wants both bounds of one element",
    "in with a regular expression-indexed": "an index does not find regular expressions inside $in",
}
"""What the server that stands in for MongoDB does otherwise than MongoDB's documentation says. Not expected of a real one."""


def pytest_collection_modifyitems(items):
    if os.environ.get("SOFIA2_TEST_MONGODB_URL"):
        return
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {})
        if parameters.get("server") != "mongodb":
            continue
        reason = next((reason for name, reason in STAND_IN_CANNOT.items() if name in item.name), None)
        if reason:
            item.add_marker(pytest.mark.xfail(reason=f"the stand-in for MongoDB: {reason}", strict=True))


class Clock:
    """Seconds since 1970 that only the test moves."""

    def __init__(self):
        self.now_s = 1_700_000_000.0

    def __call__(self):
        return self.now_s


def pytest_generate_tests(metafunc):
    """A test that uses a store runs on each adapter, or on those that its marker ``adapters`` names."""
    if "server" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("adapters")
        chosen = [name for name in ["sqlite", *SERVERS] if marker is None or name in marker.args]
        metafunc.parametrize(
            "server",
            [name if name == "sqlite" else pytest.param(name, marks=pytest.mark.server) for name in chosen],
            indirect=True,
            scope="session",
        )


@pytest.fixture
def new_url(server, tmp_path):
    """A function that gives the URL of an empty place with every call."""
    numbers = iter(range(1_000_000))
    return lambda: f"sqlite:{tmp_path}/bdtr{next(numbers)}.db" if server is None else server.place()


@pytest.fixture
def store_url(new_url) -> str:
    return new_url()


@pytest.fixture
def adapter(server) -> str:
    """The name of the adapter, for what is said of some of them only."""
    return "sqlite" if server is None else server.name


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(store_url, clock) -> Iterator:
    opened = open_bdtr(store_url, writer=True, clock=clock)
    yield opened
    opened.close()


@pytest.fixture
def database(store_url, clock) -> Iterator:
    with sofia2.bdtr.open(store_url, clock=clock) as opened:
        yield opened


@pytest.fixture
def collection(database):
    return database["Sensor"]
