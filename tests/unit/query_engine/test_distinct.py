"""Distinct values of a field."""

import pytest

from sib.errors import QuerySyntaxError, QueryTimeoutError
from sib.query.budget import Budget
from sib.query.distinct import distinct_values

DOCUMENTS = [
    {"a": 1, "o": {"x": "p"}, "l": [{"x": 1}, {"x": 2}]},
    {"a": 1.0, "o": {"x": "q"}},
    {"a": [1, 2, [3]], "l": [{"x": 2}, {}]},
    {"a": None},
    {"a": True},
    {},
    {"a": []},
]


@pytest.mark.parametrize(
    ("path", "expected"),
    [("a", [1, 2, [3], None, True]), ("o.x", ["p", "q"]), ("l.x", [1, 2]), ("l.0.x", [1, 2]), ("nothing", [])],
)
def test_distinct(path, expected):
    assert distinct_values(DOCUMENTS, path) == expected


def test_bounds():
    with pytest.raises(QuerySyntaxError):
        distinct_values(DOCUMENTS, "a..b")
    with pytest.raises(QueryTimeoutError):
        distinct_values(iter(dict, None), "a", Budget(0, lambda: 1))
