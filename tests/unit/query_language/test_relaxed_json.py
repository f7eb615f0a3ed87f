from datetime import datetime

import pytest
from bson import Binary, Decimal128, Int64, MaxKey, MinKey, ObjectId, Regex, Timestamp
from hypothesis import given
from hypothesis import strategies as st

from sib.errors import QuerySyntaxError
from sib.query.extended import from_extended, parse_date, to_extended
from sib.query.relaxed import MAX_DEPTH, MAX_TEXT_CHARS, MAX_VALUES, parse_relaxed

ID = "f03c2131f0af4d8ea36818fa"


def noon() -> datetime:
    return datetime(2020, 1, 1, 12, 0, 0, 123456)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{Sensor.assetId:"x"}', {"Sensor.assetId": "x"}),
        ("{ 'Sensor.measure' : {$gt:10} }", {"Sensor.measure": {"$gt": 10}}),
        ("{a:“x”, b:‘y’, c:”z”}", {"a": "x", "b": "y", "c": "z"}),
        ("{a:[1,2,],}", {"a": [1, 2]}),
        ("{a:1};", {"a": 1}),
        ("{a:/* why */1, // so\n b:2}", {"a": 1, "b": 2}),
        ("\ufeff {a : 1}\n", {"a": 1}),
        ("{a:true,b:false,c:null,d:undefined}", {"a": True, "b": False, "c": None, "d": None}),
        ("[-1, +2, .5, -2.5e3, 0x1F, 15.0]", [-1, 2, 0.5, -2500.0, 31, 15.0]),
        ("{0:1, a-b:2, ñ:3}", {"0": 1, "a-b": 2, "ñ": 3}),
        (r'{a:"\u00e1\n\"\/\ud83d\ude00", b:"it\'s"}', {"a": 'á\n"/😀', "b": "it's"}),
        ("{'a': 'say \"x\"'}", {"a": 'say "x"'}),
        ('"Sensor": { "measure": 1 } }', {"Sensor": {"measure": 1}}),
        ("{}", {}),
        ("[2 * 3 + 1, (1 + 2) * 2, 6 / 4, 5 - -1, 'a' + 'b']", [7, 6, 1.5, 6, "ab"]),
    ],
)
def test_what_clients_write(text, value):
    assert parse_relaxed(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('ISODate("2014-04-29T08:24:54.005Z")', datetime(2014, 4, 29, 8, 24, 54, 5000)),
        ('new ISODate("2014-04-29")', datetime(2014, 4, 29)),
        ("new Date('2014-04-29T10:24:54+02:00')", datetime(2014, 4, 29, 8, 24, 54)),
        ("new Date(1398759894005)", datetime(2014, 4, 29, 8, 24, 54, 5000)),
        ("new Date(2014, 3, 29, 8)", datetime(2014, 4, 29, 8)),
        ("new Date(2014, 12)", datetime(2015, 1, 1)),
        ("ISODate()", datetime(2020, 1, 1, 12, 0, 0, 123000)),
        ("new Date", datetime(2020, 1, 1, 12, 0, 0, 123000)),
        ("new Date(Date.now() - 3600 * 1000)", datetime(2020, 1, 1, 11, 0, 0, 123000)),
        ("new Date(new Date().getTime() - 1000)", datetime(2020, 1, 1, 11, 59, 59, 123000)),
        ("new Date(ISODate() - 1000)", datetime(2020, 1, 1, 11, 59, 59, 123000)),
        ('ISODate("2014-04-29").toISOString()', "2014-04-29T00:00:00.000Z"),
        (f'ObjectId("{ID}")', ObjectId(ID)),
        ('NumberLong("5")', Int64(5)),
        ("NumberInt(5)", 5),
        ('NumberDecimal("1.5")', Decimal128("1.5")),
        ("Timestamp(1, 2)", Timestamp(1, 2)),
        ('UUID("00112233-4455-6677-8899-aabbccddeeff")', Binary(bytes.fromhex("00112233445566778899aabbccddeeff"), 4)),
        ('BinData(0, "AQI=")', b"\x01\x02"),
        ("/^a\\/b[/]c/i", Regex("^a/b[/]c", "i")),
        ('RegExp("x", "im")', Regex("x", "im")),
        ("/x/g", Regex("x", "")),
        ("MinKey", MinKey()),
        ("MaxKey()", MaxKey()),
        (f'{{"$oid":"{ID}"}}', ObjectId(ID)),
        ('{"$date":"2014-04-29T08:24:54.005Z"}', datetime(2014, 4, 29, 8, 24, 54, 5000)),
        ('{"$date":{"$numberLong":"1398759894005"}}', datetime(2014, 4, 29, 8, 24, 54, 5000)),
        ('{"$date":-1}', datetime(1969, 12, 31, 23, 59, 59, 999000)),
        ('{"$numberDouble":"2"}', 2.0),
        ('{"$binary":"AQI=","$type":"00"}', b"\x01\x02"),
        ('{"$binary":{"base64":"AQI=","subType":"05"}}', Binary(b"\x01\x02", 5)),
        ('{"$regex":"x","$options":"i"}', {"$regex": "x", "$options": "i"}),
        ('{"$type":"string"}', {"$type": "string"}),
    ],
)
def test_values_of_the_shell_and_of_extended_json(text, value):
    parsed = parse_relaxed(text, now=noon)
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("", 1, "expected a value"),
        ("wrong query", 1, "expected a value"),
        ("{a:1", 5, "expected ',' or '}'"),
        ("{a 1}", 4, "':' after the key"),
        ("{a:1} x", 7, "expected the end"),
        ("{a:1,a:2}", 6, "stands twice"),
        ("{a:{b:1,b:2}}", 9, "stands twice"),
        ("{a:NaN}", 4, "NaN"),
        ("{a:-Infinity}", 5, "Infinity"),
        ("{a:1e999}", 4, "too large"),
        ("{a:" + "9" * 400 + "}", 4, "does not fit in 64 bits"),
        ("{a:9223372036854775808}", 4, "send it as a string"),
        ("{a:-9223372036854775809}", 5, "does not fit in 64 bits"),
        ("{a:007}", 4, "without zeros"),
        ("{a:12abc}", 4, "expected a number"),
        ("{a:'x}", 4, "not closed"),
        ('{a:"\\u12"}', 6, "hex digits"),
        ('{a:"\\ud83d"}', 4, "surrogate"),
        ("{a:foo}", 4, "expected a value"),
        ("{a:foo()}", 4, "not accepted"),
        ("{a:function(){return 1}}", 4, "JavaScript"),
        ("{a:ISODate('no')}", 4, "not a date"),
        ("{a:ISODate('2014-02-30')}", 4, "calendar"),
        ("{a:ObjectId('12')}", 4, "24 hex digits"),
        ("{a:ObjectId(1,2,3)}", 4, "argument"),
        ('{a:{"$date":"tomorrow"}}', 5, "not a date"),
        ('{a:{"$oid":"x"}}', 5, "24 hex digits"),
        ("{a:/x}", 4, "/pattern/"),
        ("{a:/x/q}", 4, "options"),
        ("{a:1/0}", 5, "not by zero"),
        ("{a:true+1}", 8, "joins numbers"),
        ('{"a\\u0000":1}', 2, "NUL"),
        ("{a:new 5}", 8, "the name of a function"),
        ("{a:{$P}}", 7, "':' after the key"),
    ],
)
def test_refusals_name_the_position_and_the_reason(text, position, reason):
    with pytest.raises(QuerySyntaxError) as caught:
        parse_relaxed(text, now=noon)
    assert f"at character {position}:" in caught.value.message
    assert reason in caught.value.message


def test_the_time_is_not_known_without_a_clock():
    with pytest.raises(QuerySyntaxError, match="current time is not known"):
        parse_relaxed("{a: new Date()}")


def test_bounds():
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    value, depth = parse_relaxed(deep), 0
    while value:
        value, depth = value[0], depth + 1
    assert depth == MAX_DEPTH - 1
    with pytest.raises(QuerySyntaxError, match="deeper"):
        parse_relaxed("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2))
    for bomb in ("(" * 5000, "-" * 5000, "{a:" * 5000, "[" * 100_000, "new Date(" * 5000):
        with pytest.raises(QuerySyntaxError, match="deeper"):
            parse_relaxed(bomb + "1")
    with pytest.raises(QuerySyntaxError, match="longer"):
        parse_relaxed("x" * (MAX_TEXT_CHARS + 1))
    with pytest.raises(QuerySyntaxError, match="values"):
        parse_relaxed("[" + "1," * (MAX_VALUES + 1) + "]")
    with pytest.raises(QuerySyntaxError, match="number longer"):
        parse_relaxed("9" * 5000)
    assert parse_relaxed("[-9223372036854775808, 9223372036854775807]") == [-(2**63), 2**63 - 1]
    assert parse_relaxed("9" * 30 + ".0") == 1e30


def test_errors_quote_only_plain_characters():
    with pytest.raises(QuerySyntaxError) as caught:
        parse_relaxed("{a: \x00\x1b[31m\ud800}")
    assert caught.value.message.isprintable()


def test_extended_json_there_and_back():
    value = {
        "when": datetime(2014, 4, 29, 8, 24, 54, 5000),
        "id": ObjectId(ID),
        "number": Int64(5),
        "decimal": Decimal128("1.50"),
        "bytes": b"\x01\x02",
        "list": [datetime(2014, 1, 1), {"deep": ObjectId(ID)}],
    }
    extended = to_extended(value)
    assert extended["when"] == {"$date": "2014-04-29T08:24:54.005Z"}
    assert extended["number"] == 5
    assert parse_relaxed(repr(extended)) == value


def test_an_operator_beside_another_is_no_extended_json():
    assert from_extended({"$date": "x", "$gt": 1}) == {"$date": "x", "$gt": 1}
    assert from_extended({}) == {}


@pytest.mark.parametrize(
    "text", ["2014-1-2", "2014-01-02T03:04", "2014-01-02 03:04:05,1", "2014-01-02T03:04:05.123456789Z"]
)
def test_dates_that_devices_write(text):
    assert parse_date(text).year == 2014


@pytest.mark.parametrize(
    "text", ["", "2014", "2014-13-01", "0001-01-01T00:00:00+23:00", "2014-01-01T25:00Z", "٢٠١٤-01-01"]
)
def test_what_is_no_date(text):
    with pytest.raises(ValueError):
        parse_date(text)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_characters="\0$", codec="utf-8")), inner)
    ),
    max_leaves=20,
)


@given(json_values)
def test_strict_json_is_read_as_json(value):
    import json

    assert parse_relaxed(json.dumps(value)) == value
    assert parse_relaxed(json.dumps(value, ensure_ascii=False)) == value
