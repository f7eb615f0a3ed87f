"""Every test of this folder runs on every adapter of the real-time database that is there."""

from collections.abc import Iterator

import pytest

import sofia2.bdtr
from storage.open import open_bdtr

ADAPTERS = ["sqlite"]


class Clock:
    """Seconds since 1970 that only the test moves."""

    def __init__(self):
        self.now_s = 1_700_000_000.0

    def __call__(self):
        return self.now_s


@pytest.fixture(params=ADAPTERS)
def store_url(request, tmp_path) -> str:
    return f"sqlite:{tmp_path}/bdtr.db"


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


@pytest.fixture
def new_database(tmp_path):
    """A function that gives a new, empty database with every call."""
    opened = []

    def make():
        opened.append(sofia2.bdtr.open(f"sqlite:{tmp_path}/new{len(opened)}.db"))
        return opened[-1]

    yield make
    for database in opened:
        database.close()
