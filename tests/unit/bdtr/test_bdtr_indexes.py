"""From documents to keys: the fast way of a batch gives what the exact way gives."""

from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sib.errors import ConfigurationError
from storage.bdtr.catalogue import INEXACT, MULTIKEY, WILD, spec_from_json, spec_to_json
from storage.bdtr.indexes import KEYS_PER_DOCUMENT_MAX, batch_extractor, keys_of, with_context
from storage.bdtr.keys import ANY_KEY, NULL_KEY, key_of
from storage.bdtr.model import IndexSpec, context_head

SPEC = IndexSpec((("a.b", 1),))
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(-5, 5), st.text("abé", max_size=80))
VALUES = st.one_of(LEAVES, st.lists(LEAVES, max_size=3), st.dictionaries(st.sampled_from("bc"), LEAVES, max_size=2))
DOCUMENTS = st.dictionaries(st.sampled_from("ab"), st.one_of(VALUES, st.lists(VALUES, max_size=2)), max_size=2)


@given(st.lists(DOCUMENTS, max_size=8), st.integers(0, 2**40))
def test_a_batch_gives_the_keys_of_each_document(documents, seq):
    rows, flags = batch_extractor(SPEC)(documents, seq)

    expected = [keys_of(SPEC, document) for document in documents]
    assert set(rows) == {(seq + at, key) for at, (keys, _) in enumerate(expected) for key in keys}
    assert len(rows) == len(set(rows))
    assert [row[0] for row in rows] == sorted(row[0] for row in rows)
    for _, each in expected:
        assert flags & each == each


@pytest.mark.parametrize(
    ("document", "keys", "flags"),
    [
        ({}, {None}, 0),
        ({"a": {"b": None}}, {None}, 0),
        ({"a": {"b": 1}}, {1}, 0),
        ({"a": [{"b": 1}, {"b": 2}, {}]}, {1, 2, None}, MULTIKEY),
        ({"a": [{"b": 1}]}, {1}, 0),
        ({"a": []}, {None}, MULTIKEY),
    ],
)
def test_missing_is_null_and_arrays_have_several_keys(document, keys, flags):
    found, found_flags = keys_of(SPEC, document)
    assert found == {key_of(key)[0] for key in keys}
    assert found_flags == flags


def test_an_array_is_filed_under_its_elements_and_itself():
    keys, flags = keys_of(IndexSpec((("a", 1),)), {"a": [1, "x"]})
    assert keys == {key_of(value)[0] for value in (1, "x", [1, "x"])}
    assert flags == MULTIKEY


def test_a_sparse_index_has_no_entry_for_a_missing_field_but_one_for_null():
    spec = IndexSpec((("a", 1),), sparse=True)
    assert keys_of(spec, {"b": 1}) == (set(), 0)
    assert keys_of(spec, {"a": None}) == ({NULL_KEY}, 0)


def test_long_strings_are_inexact():
    assert keys_of(IndexSpec((("a", 1),)), {"a": "x" * 1000})[1] == INEXACT


def test_too_many_keys_are_one_that_stands_for_any():
    many = list(range(KEYS_PER_DOCUMENT_MAX + 1))
    assert keys_of(IndexSpec((("a", 1),)), {"a": many}) == ({ANY_KEY}, WILD | MULTIKEY)
    assert keys_of(IndexSpec((("a", 1), ("b", 1))), {"a": many[:60], "b": many[:60]}) == ({ANY_KEY}, WILD | MULTIKEY)


def test_documents_get_the_context_of_their_session_and_the_time_of_the_batch():
    heads = [context_head({"user": "a"}), context_head({"user": "b", "timestamp": "old"}), context_head({"user": "a"})]

    merged = with_context([{"n": 1}, {"n": 2}, {"n": 3}], heads, 1000)

    assert [document["contextData"]["user"] for document in merged] == ["a", "b", "a"]
    assert {document["contextData"]["timestamp"] for document in merged} == {datetime(1970, 1, 1, 0, 0, 1)}
    assert [document["n"] for document in merged] == [1, 2, 3]


@pytest.mark.parametrize(
    "spec",
    [
        IndexSpec((("a", 1), ("b", -1)), unique=True, sparse=True),
        IndexSpec((("where", "2dsphere"),), name="geo"),
        IndexSpec((("at", 1),), expire_after_s=60.5),
    ],
)
def test_a_declaration_survives_its_text(spec):
    assert spec_from_json(spec_to_json(spec)) == spec


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ((), {}),
        ((("", 1),), {}),
        ((("$a", 1),), {}),
        ((("a" * 501, 1),), {}),
        ((("a", 2),), {}),
        ((("_id", 1), ("a", 1)), {}),
        ((("a", "2dsphere"), ("b", 1)), {}),
        ((("a", 1), ("b", 1)), {"expire_after_s": 1}),
    ],
)
def test_a_wrong_declaration_is_refused(fields, options):
    with pytest.raises(ConfigurationError):
        IndexSpec(fields, **options)
