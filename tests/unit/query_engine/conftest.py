"""Short helpers that the tables of the query engine's tests share."""

from datetime import datetime

import pytest

NOW = datetime(2026, 3, 4, 5, 6, 7, 89_000)


@pytest.fixture
def now():
    return NOW
