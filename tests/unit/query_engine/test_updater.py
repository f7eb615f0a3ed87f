"""Updates: each row is (document, update, new document), with filter and array filters where they matter."""

import re
from datetime import datetime

import pytest
from bson import Decimal128, Int64, Timestamp
from hypothesis import given
from hypothesis import strategies as st

from sib.errors import LimitError, QueryError, QuerySyntaxError, SibError
from sib.query.updater import compile_update, is_operator_update, upsert_seed
from sib.query.values import identical

NOW = datetime(2026, 3, 4, 5, 6, 7, 89_000)


def updated(document, update, filter_spec=None, array_filters=(), is_insert=False):
    return compile_update(update, filter=filter_spec, array_filters=array_filters)(document, NOW, is_insert)


@pytest.mark.parametrize(
    ("document", "update", "expected"),
    [
        # Fields
        ({"a": 1}, {"$set": {"a": 2}}, {"a": 2}),
        ({}, {"$set": {"a.b.c": 1}}, {"a": {"b": {"c": 1}}}),
        ({"a": [1, 2]}, {"$set": {"a.1": 9}}, {"a": [1, 9]}),
        ({"a": [1]}, {"$set": {"a.3": 9}}, {"a": [1, None, None, 9]}),
        ({"a": [{"b": 1}]}, {"$set": {"a.0.c": 2}}, {"a": [{"b": 1, "c": 2}]}),
        ({}, {"$set": {"a.0": 1}}, {"a": {"0": 1}}),
        ({"a": 1, "b": 2}, {"$unset": {"a": ""}}, {"b": 2}),
        ({"a": {"b": 1, "c": 2}}, {"$unset": {"a.b": 1, "x.y": 1}}, {"a": {"c": 2}}),
        ({"a": [1, 2, 3]}, {"$unset": {"a.1": 1}}, {"a": [1, None, 3]}),
        ({"a": 1}, {"$rename": {"a": "b"}}, {"b": 1}),
        ({"a": {"b": 1}}, {"$rename": {"a.b": "c.d"}}, {"a": {}, "c": {"d": 1}}),
        ({"a": 1, "b": 2}, {"$rename": {"a": "b"}}, {"b": 1}),
        ({"a": 1}, {"$rename": {"x": "y"}}, {"a": 1}),
        # Numbers
        ({"a": 1}, {"$inc": {"a": 2}}, {"a": 3}),
        ({}, {"$inc": {"a.b": 2}}, {"a": {"b": 2}}),
        ({"a": 1}, {"$inc": {"a": -0.5}}, {"a": 0.5}),
        ({"a": 10}, {"$mul": {"a": 1.5}}, {"a": 15.0}),
        ({}, {"$mul": {"a": 5}}, {"a": 0}),
        ({"a": Decimal128("1.5")}, {"$inc": {"a": 1}}, {"a": Decimal128("2.5")}),
        ({"a": 5}, {"$min": {"a": 3}}, {"a": 3}),
        ({"a": 5}, {"$min": {"a": 9}}, {"a": 5}),
        ({"a": 5}, {"$max": {"a": 9}}, {"a": 9}),
        ({"a": 5}, {"$max": {"a": "text"}}, {"a": "text"}),
        ({}, {"$min": {"a": 3}, "$max": {"b": 4}}, {"a": 3, "b": 4}),
        ({"a": 13}, {"$bit": {"a": {"and": 10}}}, {"a": 8}),
        ({"a": 3}, {"$bit": {"a": {"or": 5}}}, {"a": 7}),
        ({"a": 1}, {"$bit": {"a": {"xor": 5}}}, {"a": 4}),
        # Dates
        ({}, {"$currentDate": {"a": True, "b": {"$type": "date"}}}, {"a": NOW, "b": NOW}),
        ({}, {"$currentDate": {"a": {"$type": "timestamp"}}}, {"a": Timestamp(NOW, 1)}),
        # Arrays
        ({"a": [1]}, {"$push": {"a": 2}}, {"a": [1, 2]}),
        ({}, {"$push": {"a": 2}}, {"a": [2]}),
        ({"a": [1]}, {"$push": {"a": [2, 3]}}, {"a": [1, [2, 3]]}),
        ({"a": [1]}, {"$push": {"a": {"$each": [2, 3]}}}, {"a": [1, 2, 3]}),
        ({"a": [1, 2]}, {"$push": {"a": {"$each": [8, 9], "$position": 1}}}, {"a": [1, 8, 9, 2]}),
        ({"a": [1, 2]}, {"$push": {"a": {"$each": [9], "$position": -1}}}, {"a": [1, 9, 2]}),
        ({"a": [1, 2]}, {"$push": {"a": {"$each": [3, 4], "$slice": -3}}}, {"a": [2, 3, 4]}),
        ({"a": [1, 2]}, {"$push": {"a": {"$each": [3], "$slice": 2}}}, {"a": [1, 2]}),
        ({"a": [1, 2]}, {"$push": {"a": {"$each": [], "$slice": 0}}}, {"a": []}),
        ({"a": [3, 1]}, {"$push": {"a": {"$each": [2], "$sort": -1}}}, {"a": [3, 2, 1]}),
        (
            {"q": [{"w": 1, "s": 10}, {"w": 2, "s": 8}, {"w": 3, "s": 5}, {"w": 4, "s": 6}]},
            {"$push": {"q": {"$each": [{"w": 5, "s": 8}, {"w": 6, "s": 7}], "$sort": {"s": -1}, "$slice": 3}}},
            {"q": [{"w": 1, "s": 10}, {"w": 2, "s": 8}, {"w": 5, "s": 8}]},
        ),
        ({"a": [1, 2]}, {"$addToSet": {"a": 2}}, {"a": [1, 2]}),
        ({"a": [1, 2]}, {"$addToSet": {"a": 2.0}}, {"a": [1, 2]}),
        ({"a": [1]}, {"$addToSet": {"a": True}}, {"a": [1, True]}),
        ({"a": [1]}, {"$addToSet": {"a": {"$each": [1, 2, 2, 3]}}}, {"a": [1, 2, 3]}),
        (
            {"a": [{"x": 1, "y": 2}]},
            {"$addToSet": {"a": {"y": 2, "x": 1}}},
            {"a": [{"x": 1, "y": 2}, {"y": 2, "x": 1}]},
        ),
        ({"a": [1, 2, 3]}, {"$pop": {"a": 1}}, {"a": [1, 2]}),
        ({"a": [1, 2, 3]}, {"$pop": {"a": -1}}, {"a": [2, 3]}),
        ({"a": []}, {"$pop": {"a": 1, "b": 1}}, {"a": []}),
        ({"a": [1, 2, 1]}, {"$pull": {"a": 1}}, {"a": [2]}),
        ({"a": [1, 5, 9]}, {"$pull": {"a": {"$gte": 5}}}, {"a": [1]}),
        ({"a": ["ab", "c"]}, {"$pull": {"a": re.compile("^a")}}, {"a": ["c"]}),
        ({"a": ["ab", "c"]}, {"$pull": {"a": {"$in": ["c", "d"]}}}, {"a": ["ab"]}),
        (
            {"r": [{"item": "A", "score": 5}, {"item": "B", "score": 8}]},
            {"$pull": {"r": {"score": 8, "item": "B"}}},
            {"r": [{"item": "A", "score": 5}]},
        ),
        (
            {"r": [{"x": [{"q": 1, "a": 4}]}, {"x": [{"q": 1, "a": 9}]}]},
            {"$pull": {"r": {"x": {"$elemMatch": {"q": 1, "a": {"$gte": 8}}}}}},
            {"r": [{"x": [{"q": 1, "a": 4}]}]},
        ),
        ({"a": [1, 2, [3]]}, {"$pullAll": {"a": [1, [3]]}}, {"a": [2]}),
        ({}, {"$pull": {"a": 1}}, {}),
        # Whole documents
        ({"_id": 1, "a": 1}, {"b": 2}, {"_id": 1, "b": 2}),
        ({"_id": 1, "a": 1}, {}, {"_id": 1}),
        ({"_id": 1}, {"_id": 1.0, "b": 2}, {"_id": 1.0, "b": 2}),
        # Pipelines
        ({"_id": 1, "a": 1}, [{"$set": {"b": {"$add": ["$a", 1]}}}, {"$unset": "a"}], {"_id": 1, "b": 2}),
        ({"_id": 1, "a": 1}, [{"$set": {"t": "$$NOW"}}], {"_id": 1, "a": 1, "t": NOW}),
        ({"_id": 1, "a": {"b": 2}}, [{"$replaceWith": "$a"}], {"_id": 1, "b": 2}),
        ({"_id": 1, "a": 5}, [{"$project": {"c": "$a"}}], {"_id": 1, "c": 5}),
    ],
)
def test_update(document, update, expected):
    before = repr(document)
    made = updated(document, update)
    assert made == expected
    assert [type(value) for value in made.values()] == [type(value) for value in expected.values()]
    assert repr(document) == before, "the old document was changed"


@pytest.mark.parametrize(
    ("document", "filter_spec", "update", "array_filters", "expected"),
    [
        ({"g": [80, 85, 90]}, {"g": 85}, {"$set": {"g.$": 82}}, (), {"g": [80, 82, 90]}),
        ({"g": [80, 85, 90]}, {"g": {"$gte": 85}}, {"$inc": {"g.$": 1}}, (), {"g": [80, 86, 90]}),
        ({"g": [75, 85, 95]}, {"g": {"$gte": 80, "$lte": 90}}, {"$set": {"g.$": 0}}, (), {"g": [75, 0, 95]}),
        (
            {"g": [{"n": 80, "m": 1}, {"n": 85, "m": 2}]},
            {"g.n": 85},
            {"$set": {"g.$.s": 6}},
            (),
            {"g": [{"n": 80, "m": 1}, {"n": 85, "m": 2, "s": 6}]},
        ),
        (
            {"g": [{"n": 80, "m": 75}, {"n": 85, "m": 90}, {"n": 85, "m": 95}]},
            {"g": {"$elemMatch": {"n": {"$lte": 90}, "m": {"$gt": 80}}}},
            {"$set": {"g.$.s": 6}},
            (),
            {"g": [{"n": 80, "m": 75}, {"n": 85, "m": 90, "s": 6}, {"n": 85, "m": 95}]},
        ),
        ({"g": ["x", "yz"]}, {"g": {"$in": ["yz"]}}, {"$set": {"g.$": "w"}}, (), {"g": ["x", "w"]}),
        ({"d": {"g": [1, 2]}}, {"$and": [{"d.g": 2}]}, {"$set": {"d.g.$": 5}}, (), {"d": {"g": [1, 5]}}),
        ({"g": [1, 2]}, {"g.1": 2}, {"$set": {"g.$": 5}}, (), {"g": [1, 5]}),
        ({"g": [1, 2]}, {}, {"$inc": {"g.$[]": 10}}, (), {"g": [11, 12]}),
        ({"g": [95, 102, 90]}, {}, {"$set": {"g.$[e]": 100}}, [{"e": {"$gte": 100}}], {"g": [95, 100, 90]}),
        (
            {"g": [{"n": 80, "m": 75}, {"n": 90, "m": 85}]},
            {},
            {"$set": {"g.$[e].m": 100}},
            [{"e.n": {"$gte": 85}}],
            {"g": [{"n": 80, "m": 75}, {"n": 90, "m": 100}]},
        ),
        (
            {"g": [{"n": 80, "m": 5}, {"n": 90, "m": 50}]},
            {},
            {"$inc": {"g.$[e].m": 1}},
            [{"$and": [{"e.n": {"$gte": 80}}, {"e.m": {"$lt": 10}}]}],
            {"g": [{"n": 80, "m": 6}, {"n": 90, "m": 50}]},
        ),
        (
            {"g": [{"t": "q", "s": [10, 8]}, {"t": "e", "s": [8]}]},
            {},
            {"$inc": {"g.$[].s.$[x]": 2}},
            [{"x": {"$eq": 8}}],
            {"g": [{"t": "q", "s": [10, 10]}, {"t": "e", "s": [10]}]},
        ),
        (
            {"g": [{"t": "q", "s": [10, 8]}, {"t": "e", "s": [8]}]},
            {},
            {"$inc": {"g.$[t].s.$[x]": 2}},
            [{"t.t": "q"}, {"x": {"$gte": 8}}],
            {"g": [{"t": "q", "s": [12, 10]}, {"t": "e", "s": [8]}]},
        ),
        ({"g": []}, {}, {"$set": {"g.$[]": 1}}, (), {"g": []}),
        ({"g": [1, 2]}, {}, {"$unset": {"g.$[]": ""}}, (), {"g": [None, None]}),
    ],
)
def test_positional_operators(document, filter_spec, update, array_filters, expected):
    assert updated(document, update, filter_spec, array_filters) == expected


@pytest.mark.parametrize(
    ("update", "words"),
    [
        ({"$foo": {"a": 1}}, "$foo"),
        ({"$set": 5}, "$set"),
        ({"$set": {"": 1}}, "field name"),
        ({"$set": {"a..b": 1}}, "empty field name"),
        ({"$set": {"$a": 1}}, "$a"),
        ({"$set": {"a": 1}, "b": 2}, "not both"),
        ({"$set": {"a": 1}, "$inc": {"a": 1}}, "conflict"),
        ({"$set": {"a": 1, "a.b": 2}}, "conflict"),
        ({"$rename": {"a": "b"}, "$set": {"b": 1}}, "conflict"),
        ({"$rename": {"a": "a"}}, "conflict"),
        ({"$inc": {"a": "x"}}, "$inc"),
        ({"$push": {"a": {"$each": 1}}}, "$each"),
        ({"$push": {"a": {"$each": [], "$foo": 1}}}, "$foo"),
        ({"$pop": {"a": 2}}, "$pop"),
        ({"$bit": {"a": {"nand": 1}}}, "$bit"),
        ({"$currentDate": {"a": "x"}}, "$currentDate"),
        ({"$pullAll": {"a": 1}}, "$pullAll"),
        ({"$set": {"a.$[x]": 1}}, "array filter"),
        ({"$set": {"a.$": 1}}, "positional"),
        ([{"$match": {}}], "$match"),
        ([], "at least one"),
        ([{"$set": {"a": {"$function": {}}}}], "$function"),
        (5, "object"),
    ],
)
def test_wrong_updates_are_refused_by_name(update, words):
    with pytest.raises(QuerySyntaxError) as caught:
        compile_update(update)
    assert words in str(caught.value)


def test_array_filters_must_be_used_and_single():
    with pytest.raises(QuerySyntaxError, match="not used"):
        compile_update({"$set": {"a.$[x]": 1}}, array_filters=[{"x": 1}, {"y": 1}])
    with pytest.raises(QuerySyntaxError, match="one identifier"):
        compile_update({"$set": {"a.$[x]": 1}}, array_filters=[{"x": 1, "y": 1}])
    with pytest.raises(QuerySyntaxError, match="two array filters"):
        compile_update({"$set": {"a.$[x]": 1}}, array_filters=[{"x": 1}, {"x": 2}])


@pytest.mark.parametrize(
    ("document", "update", "words"),
    [
        ({"_id": 1}, {"$set": {"_id": 2}}, "_id"),
        ({"_id": 1}, {"$unset": {"_id": 1}}, "_id"),
        ({"_id": 1}, {"_id": 2, "a": 1}, "_id"),
        ({"_id": 1}, [{"$set": {"_id": 2}}], "_id"),
        ({"a": "x"}, {"$inc": {"a": 1}}, "$inc"),
        ({"a": None}, {"$inc": {"a": 1}}, "$inc"),
        ({"a": 2**63 - 1}, {"$inc": {"a": 1}}, "64 bits"),
        ({"a": 1}, {"$set": {"a.b": 1}}, "not an object"),
        ({"a": None}, {"$set": {"a.b": 1}}, "not an object"),
        ({"a": [1]}, {"$set": {"a.b": 1}}, "index"),
        ({"a": 1}, {"$push": {"a": 1}}, "array"),
        ({"a": 1}, {"$addToSet": {"a": 1}}, "array"),
        ({"a": 1}, {"$pull": {"a": 1}}, "array"),
        ({"a": 1}, {"$pop": {"a": 1}}, "array"),
        ({"a": 1}, {"$set": {"a.$[]": 1}}, "array"),
        ({"a": [{"b": 1}]}, {"$rename": {"a.0.b": "c"}}, "$rename"),
        ({"a": 1.5}, {"$bit": {"a": {"and": 1}}}, "$bit"),
    ],
)
def test_updates_that_do_not_fit_the_document(document, update, words):
    with pytest.raises(QueryError) as caught:
        updated(document, update)
    assert words in str(caught.value)


def test_a_large_index_is_refused():
    with pytest.raises(LimitError, match="above"):
        updated({"a": []}, {"$set": {"a.99999999": 1}})


def test_long_stays_long_and_int_grows_into_long():
    assert type(updated({"a": Int64(1)}, {"$inc": {"a": 1}})["a"]) is Int64
    assert updated({"a": 2**31 - 1}, {"$inc": {"a": 1}})["a"] == 2**31


def test_set_on_insert_counts_only_for_the_seed():
    update = {"$set": {"a": 1}, "$setOnInsert": {"b": 2}}
    assert updated({"_id": 1}, update) == {"_id": 1, "a": 1}
    assert updated({"_id": 1}, update, is_insert=True) == {"_id": 1, "a": 1, "b": 2}


def test_new_fields_come_in_the_order_of_their_names():
    assert list(updated({"z": 0}, {"$set": {"b": 1, "a": 1}, "$inc": {"ab": 1}})) == ["z", "a", "ab", "b"]


def test_an_update_that_changes_nothing_can_be_told():
    document = {"_id": 1, "a": 1, "l": [1]}
    assert identical(updated(document, {"$set": {"a": 1}, "$addToSet": {"l": 1}, "$unset": {"x": 1}}), document)
    assert not identical(updated(document, {"$set": {"a": 1.0}}), document)
    assert not identical(updated(document, {"$set": {"a": Int64(1)}}), document)


def test_results_share_nothing_with_update_or_document():
    update = {"$set": {"a": [1]}, "$push": {"b": {"x": []}}}
    apply = compile_update(update)
    first, second = apply({}, NOW, False), apply({}, NOW, False)
    first["a"].append(2)
    first["b"][0]["x"].append(1)
    assert second == {"a": [1], "b": [{"x": []}]}


@pytest.mark.parametrize(
    ("filter_spec", "expected"),
    [
        ({"a": 1, "b.c": 2}, {"a": 1, "b": {"c": 2}}),
        ({"a": {"$eq": 1}, "b": {"$gt": 5}, "c": {"$in": [7]}, "d": {"$in": [7, 8]}}, {"a": 1, "c": 7}),
        ({"$and": [{"a": 1}, {"b": {"$all": [2]}}]}, {"a": 1, "b": 2}),
        ({"$or": [{"a": 1}]}, {"a": 1}),
        ({"$or": [{"a": 1}, {"b": 1}]}, {}),
        ({"a": re.compile("x"), "b": 1}, {"b": 1}),
        ({"a": 1, "_id": 5}, {"_id": 5, "a": 1}),
        ({"a": {"b": 1}}, {"a": {"b": 1}}),
        (None, {}),
    ],
)
def test_upsert_seed(filter_spec, expected):
    assert upsert_seed(filter_spec) == expected
    assert list(upsert_seed(filter_spec)) == list(expected)


def test_upsert_seed_of_a_replacement_is_only_the_id():
    assert upsert_seed({"_id": 5, "a": 1}, is_replacement=True) == {"_id": 5}


def test_upsert_seed_refuses_two_values():
    with pytest.raises(QuerySyntaxError, match="two values"):
        upsert_seed({"$and": [{"a": 1}, {"a": 2}]})


def test_kinds_of_updates():
    assert is_operator_update({"$set": {"a": 1}})
    assert is_operator_update([{"$set": {"a": 1}}])
    assert not is_operator_update({"a": 1})
    assert not is_operator_update({})


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(allow_nan=False) | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "0"]), inner, max_size=2),
    max_leaves=6,
)
DOCUMENTS = st.dictionaries(st.sampled_from(["a", "b", "c"]), VALUES, max_size=3)
PATHS = st.sampled_from(["a", "b", "a.b", "a.0", "a.0.b", "b.$[]", "c.$[x]", "a.$", "d.e"])
OPERATORS = st.sampled_from(
    ["$set", "$unset", "$inc", "$mul", "$min", "$max", "$rename", "$push", "$pull", "$pullAll", "$pop", "$addToSet",
     "$bit", "$currentDate", "$setOnInsert"]
)  # fmt: skip
ARGUMENTS = VALUES | st.fixed_dictionaries(
    {"$each": st.lists(VALUES, max_size=2)},
    optional={"$slice": st.integers(-2, 2), "$sort": VALUES, "$position": VALUES},
)


@given(DOCUMENTS, st.dictionaries(OPERATORS, st.dictionaries(PATHS, ARGUMENTS, max_size=2), max_size=2))
def test_random_updates_raise_nothing_but_refusals(document, update):
    before = repr(document)
    try:
        compile_update(
            update, filter={"a": {"$exists": True}, "a.b": 1}, array_filters=[{"x": 1}] if "[x]" in repr(update) else ()
        )(document, NOW, False)
    except SibError:
        pass
    assert repr(document) == before


@given(DOCUMENTS, st.sampled_from(["a", "b.x", "d.e.f"]), VALUES)
def test_setting_twice_is_setting_once(document, path, value):
    apply = compile_update({"$set": {path: value}})
    try:
        once = apply(document, NOW, False)
    except QueryError:
        return
    assert identical(apply(once, NOW, False), once)
