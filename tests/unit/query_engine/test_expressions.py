"""Aggregation expressions: each row is (expression, value), on one document."""

# ruff: noqa: E501 - a row of a table stays on its line

import math
import random
from datetime import datetime

import pytest
from bson import Decimal128, Int64, ObjectId, Regex, Timestamp
from hypothesis import given
from hypothesis import strategies as st

from sib.errors import LimitError, QueryError, QuerySyntaxError, QueryTimeoutError, SibError
from sib.query.budget import Budget, Context
from sib.query.expressions import compile_expression
from sib.query.expressions.compiler import OPERATORS
from sib.query.values import MISSING, identical

NOW = datetime(2026, 3, 4, 5, 6, 7, 89_000)
DATE = datetime(2024, 2, 29, 13, 45, 10, 123_000)  # a Thursday
OID = ObjectId("507c7f79bcf86cd7994f6c0e")
DOCUMENT = {
    "_id": 1,
    "n": 5,
    "f": 2.5,
    "long": Int64(7),
    "s": "Hola",
    "null": None,
    "d": DATE,
    "l": [3, 1, 2],
    "e": [],
    "o": {"a": 1, "b": {"c": 2}},
    "os": [{"x": 1, "y": "a"}, {"x": 2}],
    "t": True,
}


def evaluate(expression, document=DOCUMENT, context=None):
    return compile_expression(expression, context or Context(now=NOW))(document, {})


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        # Paths, literals, variables
        ("$n", 5),
        ("$o.b.c", 2),
        ("$os.x", [1, 2]),
        ("$os.y", ["a"]),
        ("$l.0", []),
        ("$nothing", MISSING),
        ("$n.x", MISSING),
        ("$$ROOT.n", 5),
        ("$$CURRENT.n", 5),
        ("$$NOW", NOW),
        ("$$REMOVE", MISSING),
        ("text", "text"),
        (["$n", "$nothing"], [5, None]),
        ({"a": "$n", "b": {"c": "$s"}, "d": "$nothing"}, {"a": 5, "b": {"c": "Hola"}}),
        ({"$literal": "$n"}, "$n"),
        ({"$literal": {"$add": [1, 2]}}, {"$add": [1, 2]}),
        ({"$let": {"vars": {"x": "$n", "y": 2}, "in": {"$add": ["$$x", "$$y"]}}}, 7),
        ({"$let": {"vars": {"x": "$o"}, "in": "$$x.b.c"}}, 2),
        # Arithmetic keeps types
        ({"$add": ["$n", 1]}, 6),
        ({"$add": ["$n", 1.5]}, 6.5),
        ({"$add": ["$long", 1]}, Int64(8)),
        ({"$add": ["$n", "$null"]}, None),
        ({"$add": ["$n", "$nothing"]}, None),
        ({"$add": [Decimal128("0.1"), 1]}, Decimal128("1.1")),
        ({"$add": ["$d", 1000]}, datetime(2024, 2, 29, 13, 45, 11, 123_000)),
        ({"$add": []}, 0),
        ({"$subtract": [5, 2]}, 3),
        ({"$subtract": ["$d", datetime(2024, 2, 29, 13, 45, 10)]}, Int64(123)),
        ({"$subtract": ["$d", 123]}, datetime(2024, 2, 29, 13, 45, 10)),
        ({"$multiply": [2, 3, 4]}, 24),
        ({"$multiply": [2, 1.5]}, 3.0),
        ({"$multiply": [2**62, 4]}, 2.0**64),
        ({"$divide": [7, 2]}, 3.5),
        ({"$divide": [6, 2]}, 3.0),
        ({"$mod": [7, 3]}, 1),
        ({"$mod": [-7, 3]}, -1),
        ({"$mod": [7.5, 2]}, 1.5),
        ({"$abs": -3}, 3),
        ({"$abs": "$null"}, None),
        ({"$ceil": 1.2}, 2.0),
        ({"$ceil": 1}, 1),
        ({"$floor": -1.2}, -2.0),
        ({"$round": [10.5]}, 10.0),
        ({"$round": [11.5]}, 12.0),
        ({"$round": [19.25, 1]}, 19.2),
        ({"$round": [28.73, 1]}, 28.7),
        ({"$round": [115, -1]}, 120),
        ({"$trunc": [19.99, 1]}, 19.9),
        ({"$trunc": -2.7}, -2.0),
        ({"$pow": [5, 2]}, 25),
        ({"$pow": [5, -2]}, 0.04),
        ({"$pow": [5, 0.5]}, math.sqrt(5)),
        ({"$pow": [-5, 0.5]}, float("nan")),
        ({"$sqrt": 25}, 5.0),
        ({"$exp": 0}, 1.0),
        ({"$ln": 1}, 0.0),
        ({"$log10": 1000}, 3.0),
        ({"$log": [8, 2]}, math.log(8) / math.log(2)),
        ({"$sin": 0}, 0.0),
        ({"$atan2": [0, 1]}, 0.0),
        ({"$degreesToRadians": 180}, math.pi),
        ({"$bitAnd": [12, 10]}, 8),
        ({"$bitNot": 0}, -1),
        # Comparison and logic: over all types
        ({"$eq": ["$n", 5.0]}, True),
        ({"$eq": [True, 1]}, False),
        ({"$ne": ["$n", 5]}, False),
        ({"$gt": ["text", 5]}, True),
        ({"$lt": ["$nothing", None]}, True),
        ({"$eq": ["$nothing", None]}, False),
        ({"$lte": [[1, 2], [1, 3]]}, True),
        ({"$gte": [{"a": 1}, {"a": 1}]}, True),
        ({"$cmp": [1, 2]}, -1),
        ({"$and": [1, "", "$t"]}, True),
        ({"$and": [1, 0]}, False),
        ({"$and": []}, True),
        ({"$or": [None, False, 0]}, False),
        ({"$or": []}, False),
        ({"$not": ["$nothing"]}, True),
        ({"$not": [[]]}, False),
        ({"$cond": [{"$gt": ["$n", 3]}, "big", "small"]}, "big"),
        ({"$cond": {"if": "$null", "then": 1, "else": 2}}, 2),
        ({"$ifNull": ["$null", "$nothing", "x"]}, "x"),
        ({"$ifNull": ["$n", "x"]}, 5),
        ({"$ifNull": ["$null", "$nothing"]}, MISSING),
        ({"$switch": {"branches": [{"case": False, "then": 1}, {"case": True, "then": 2}], "default": 3}}, 2),
        ({"$switch": {"branches": [{"case": False, "then": 1}], "default": 3}}, 3),
        # Strings
        ({"$concat": ["$s", " ", "x"]}, "Hola x"),
        ({"$concat": ["$s", "$null"]}, None),
        ({"$toUpper": "$s"}, "HOLA"),
        ({"$toLower": "$nothing"}, ""),
        ({"$strLenCP": "ñandú"}, 5),
        ({"$strLenBytes": "ñandú"}, 7),
        ({"$substrCP": ["ñandú", 1, 3]}, "and"),
        ({"$substr": ["Hola", 1, -1]}, "ola"),
        ({"$substrBytes": ["Hola", 0, 2]}, "Ho"),
        ({"$substr": ["$nothing", 0, 2]}, ""),
        ({"$split": ["a,b,,c", ","]}, ["a", "b", "", "c"]),
        ({"$indexOfCP": ["ñandú", "d"]}, 3),
        ({"$indexOfBytes": ["ñandú", "d"]}, 4),
        ({"$indexOfCP": ["abcabc", "c", 3]}, 5),
        ({"$indexOfCP": ["abc", "x"]}, -1),
        ({"$trim": {"input": "  a b \n"}}, "a b"),
        ({"$ltrim": {"input": "xxabx", "chars": "x"}}, "abx"),
        ({"$rtrim": {"input": "xxabx", "chars": "x"}}, "xxab"),
        ({"$replaceOne": {"input": "a.a", "find": ".", "replacement": "-"}}, "a-a"),
        ({"$replaceAll": {"input": "aaa", "find": "a", "replacement": "b"}}, "bbb"),
        ({"$strcasecmp": ["abc", "ABD"]}, -1),
        ({"$regexMatch": {"input": "$s", "regex": "^h", "options": "i"}}, True),
        ({"$regexMatch": {"input": "$s", "regex": Regex("OLA", "i")}}, True),
        ({"$regexMatch": {"input": "$null", "regex": "x"}}, False),
        (
            {"$regexFind": {"input": "año 2024", "regex": "(\\d)(\\d)"}},
            {"match": "20", "idx": 4, "captures": ["2", "0"]},
        ),
        ({"$regexFind": {"input": "x", "regex": "y"}}, None),
        (
            {"$regexFindAll": {"input": "a1b2", "regex": "[a-z](\\d)"}},
            [{"match": "a1", "idx": 0, "captures": ["1"]}, {"match": "b2", "idx": 2, "captures": ["2"]}],
        ),
        # Arrays
        ({"$size": "$l"}, 3),
        ({"$isArray": "$l"}, True),
        ({"$isArray": ["$n"]}, False),
        ({"$arrayElemAt": ["$l", 0]}, 3),
        ({"$arrayElemAt": ["$l", -1]}, 2),
        ({"$arrayElemAt": ["$l", 9]}, MISSING),
        ({"$first": "$l"}, 3),
        ({"$last": "$l"}, 2),
        ({"$first": "$e"}, MISSING),
        ({"$slice": ["$l", 2]}, [3, 1]),
        ({"$slice": ["$l", -2]}, [1, 2]),
        ({"$slice": ["$l", 1, 1]}, [1]),
        ({"$slice": ["$l", -9, 2]}, [3, 1]),
        ({"$concatArrays": ["$l", [9]]}, [3, 1, 2, 9]),
        ({"$concatArrays": ["$l", "$null"]}, None),
        ({"$in": [2, "$l"]}, True),
        ({"$in": ["2", "$l"]}, False),
        ({"$indexOfArray": ["$l", 2]}, 2),
        ({"$indexOfArray": ["$l", 9]}, -1),
        ({"$reverseArray": "$l"}, [2, 1, 3]),
        ({"$range": [0, 5, 2]}, [0, 2, 4]),
        ({"$range": [3, 0, -1]}, [3, 2, 1]),
        ({"$map": {"input": "$l", "as": "x", "in": {"$multiply": ["$$x", 2]}}}, [6, 2, 4]),
        ({"$map": {"input": "$l", "in": "$$this"}}, [3, 1, 2]),
        ({"$map": {"input": "$null", "in": 1}}, None),
        ({"$filter": {"input": "$l", "as": "x", "cond": {"$gt": ["$$x", 1]}}}, [3, 2]),
        ({"$filter": {"input": "$l", "cond": True, "limit": 1}}, [3]),
        ({"$reduce": {"input": "$l", "initialValue": 0, "in": {"$add": ["$$value", "$$this"]}}}, 6),
        ({"$reduce": {"input": "$null", "initialValue": 0, "in": 1}}, None),
        ({"$zip": {"inputs": [[1, 2], ["a"]]}}, [[1, "a"]]),
        ({"$zip": {"inputs": [[1, 2], ["a"]], "useLongestLength": True, "defaults": [0, "z"]}}, [[1, "a"], [2, "z"]]),
        ({"$sortArray": {"input": "$l", "sortBy": 1}}, [1, 2, 3]),
        ({"$sortArray": {"input": "$os", "sortBy": {"x": -1}}}, [{"x": 2}, {"x": 1, "y": "a"}]),
        ({"$firstN": {"input": "$l", "n": 2}}, [3, 1]),
        ({"$maxN": {"input": "$l", "n": 2}}, [3, 2]),
        ({"$setUnion": [[2, 1], [3, 1.0]]}, [1, 2, 3]),
        ({"$setIntersection": [[2, 1, 1], [1, 3]]}, [1]),
        ({"$setDifference": [[2, 1], [1]]}, [2]),
        ({"$setEquals": [[1, 2], [2, 1, 1]]}, True),
        ({"$setIsSubset": [[1], [1, 2]]}, True),
        ({"$anyElementTrue": [[0, 1]]}, True),
        ({"$allElementsTrue": [[0, 1]]}, False),
        ({"$sum": "$l"}, 6),
        ({"$sum": ["$n", "$f"]}, 7.5),
        ({"$sum": "$os.x"}, 3),
        ({"$avg": "$l"}, 2.0),
        ({"$max": "$l"}, 3),
        ({"$min": ["$n", "$f", "$null"]}, 2.5),
        ({"$stdDevPop": [[2, 4]]}, 1.0),
        # Objects
        ({"$mergeObjects": ["$o", {"a": 9}, "$null"]}, {"a": 9, "b": {"c": 2}}),
        ({"$objectToArray": {"a": 1}}, [{"k": "a", "v": 1}]),
        ({"$arrayToObject": [[["a", 1], ["b", 2]]]}, {"a": 1, "b": 2}),
        ({"$arrayToObject": [[{"k": "a", "v": 1}]]}, {"a": 1}),
        ({"$getField": "n"}, 5),
        ({"$getField": {"field": "a", "input": "$o"}}, 1),
        ({"$setField": {"field": "z", "input": {"a": 1}, "value": 2}}, {"a": 1, "z": 2}),
        ({"$unsetField": {"field": "a", "input": "$o"}}, {"b": {"c": 2}}),
        # Types
        ({"$type": "$n"}, "int"),
        ({"$type": "$nothing"}, "missing"),
        ({"$type": "$d"}, "date"),
        ({"$isNumber": "$f"}, True),
        ({"$isNumber": "$t"}, False),
        ({"$toInt": "12"}, 12),
        ({"$toInt": 2.9}, 2),
        ({"$toInt": True}, 1),
        ({"$toInt": "$null"}, None),
        ({"$toLong": "12"}, Int64(12)),
        ({"$toLong": "$d"}, Int64(1709214310123)),
        ({"$toDouble": "1.5"}, 1.5),
        ({"$toDouble": "1e3"}, 1000.0),
        ({"$toDecimal": "1.50"}, Decimal128("1.50")),
        ({"$toBool": "false"}, True),
        ({"$toBool": 0}, False),
        ({"$toString": 1.5}, "1.5"),
        ({"$toString": 2.0}, "2"),
        ({"$toString": True}, "true"),
        ({"$toString": OID}, "507c7f79bcf86cd7994f6c0e"),
        ({"$toString": "$d"}, "2024-02-29T13:45:10.123Z"),
        ({"$toDate": Int64(0)}, datetime(1970, 1, 1)),
        ({"$toDate": "2024-02-29"}, datetime(2024, 2, 29)),
        ({"$toDate": OID}, datetime(2012, 10, 15, 21, 26, 17)),
        ({"$toObjectId": "507c7f79bcf86cd7994f6c0e"}, OID),
        ({"$convert": {"input": "1.5", "to": "double"}}, 1.5),
        ({"$convert": {"input": "x", "to": "int", "onError": -1}}, -1),
        ({"$convert": {"input": "$nothing", "to": 16, "onNull": 0}}, 0),
        # Dates
        ({"$year": "$d"}, 2024),
        ({"$month": "$d"}, 2),
        ({"$dayOfMonth": ["$d"]}, 29),
        ({"$hour": "$d"}, 13),
        ({"$hour": {"date": "$d", "timezone": "Europe/Madrid"}}, 14),
        ({"$hour": {"date": "$d", "timezone": "-0530"}}, 8),
        ({"$minute": {"date": "$d", "timezone": "+05:30"}}, 15),
        ({"$second": "$d"}, 10),
        ({"$millisecond": "$d"}, 123),
        ({"$dayOfWeek": "$d"}, 5),
        ({"$dayOfYear": "$d"}, 60),
        ({"$week": "$d"}, 8),
        ({"$isoWeek": "$d"}, 9),
        ({"$isoWeekYear": datetime(2021, 1, 1)}, Int64(2020)),
        ({"$isoDayOfWeek": "$d"}, 4),
        ({"$year": OID}, 2012),
        ({"$year": Timestamp(0, 1)}, 1970),
        ({"$year": "$null"}, None),
        ({"$dateToString": {"date": "$d"}}, "2024-02-29T13:45:10.123Z"),
        ({"$dateToString": {"date": "$d", "format": "%Y-%m-%d"}}, "2024-02-29"),
        (
            {"$dateToString": {"date": "$d", "format": "%d/%m/%Y %H:%M:%S.%L %j %u %U %V %G %%"}},
            "29/02/2024 13:45:10.123 060 4 08 09 2024 %",
        ),
        ({"$dateToString": {"date": "$d", "format": "%H:%M %z %Z", "timezone": "Europe/Madrid"}}, "14:45 +0100 60"),
        ({"$dateToString": {"date": "$nothing", "onNull": "-"}}, "-"),
        ({"$dateFromString": {"dateString": "2017-02-08T12:10:40.787"}}, datetime(2017, 2, 8, 12, 10, 40, 787_000)),
        (
            {"$dateFromString": {"dateString": "2017-02-08T12:10:40.787+02:00"}},
            datetime(2017, 2, 8, 10, 10, 40, 787_000),
        ),
        ({"$dateFromString": {"dateString": "2017-02-08", "timezone": "America/New_York"}}, datetime(2017, 2, 8, 5)),
        (
            {"$dateFromString": {"dateString": "08/02/2017 13.05", "format": "%d/%m/%Y %H.%M"}},
            datetime(2017, 2, 8, 13, 5),
        ),
        ({"$dateFromString": {"dateString": "x", "onError": "bad"}}, "bad"),
        ({"$dateFromString": {"dateString": "$nothing", "onNull": "none"}}, "none"),
        ({"$dateFromParts": {"year": 2017, "month": 2, "day": 8, "hour": 12}}, datetime(2017, 2, 8, 12)),
        ({"$dateFromParts": {"year": 2017, "month": 14}}, datetime(2018, 2, 1)),
        ({"$dateFromParts": {"isoWeekYear": 2017, "isoWeek": 6, "isoDayOfWeek": 3}}, datetime(2017, 2, 8)),
        (
            {"$dateFromParts": {"year": 2016, "month": 12, "day": 31, "hour": 23, "timezone": "America/New_York"}},
            datetime(2017, 1, 1, 4),
        ),
        (
            {"$dateToParts": {"date": "$d"}},
            {"year": 2024, "month": 2, "day": 29, "hour": 13, "minute": 45, "second": 10, "millisecond": 123},
        ),
        (
            {"$dateToParts": {"date": "$d", "iso8601": True}},
            {
                "isoWeekYear": 2024,
                "isoWeek": 9,
                "isoDayOfWeek": 4,
                "hour": 13,
                "minute": 45,
                "second": 10,
                "millisecond": 123,
            },
        ),
        ({"$dateAdd": {"startDate": "$d", "unit": "year", "amount": 1}}, datetime(2025, 2, 28, 13, 45, 10, 123_000)),
        ({"$dateAdd": {"startDate": datetime(2020, 10, 31), "unit": "month", "amount": 1}}, datetime(2020, 11, 30)),
        (
            {
                "$dateAdd": {
                    "startDate": datetime(2024, 3, 30, 12),
                    "unit": "day",
                    "amount": 1,
                    "timezone": "Europe/Madrid",
                }
            },
            datetime(2024, 3, 31, 11),
        ),
        (
            {
                "$dateAdd": {
                    "startDate": datetime(2024, 3, 30, 12),
                    "unit": "hour",
                    "amount": 24,
                    "timezone": "Europe/Madrid",
                }
            },
            datetime(2024, 3, 31, 12),
        ),
        (
            {"$dateSubtract": {"startDate": "$d", "unit": "week", "amount": 1}},
            datetime(2024, 2, 22, 13, 45, 10, 123_000),
        ),
        ({"$dateDiff": {"startDate": datetime(2021, 1, 1), "endDate": datetime(2021, 3, 1), "unit": "day"}}, Int64(59)),
        (
            {
                "$dateDiff": {
                    "startDate": datetime(2020, 12, 31, 23, 59),
                    "endDate": datetime(2021, 1, 1),
                    "unit": "year",
                }
            },
            Int64(1),
        ),
        ({"$dateDiff": {"startDate": datetime(2021, 1, 2), "endDate": datetime(2021, 1, 3), "unit": "week"}}, Int64(1)),
        (
            {
                "$dateDiff": {
                    "startDate": datetime(2021, 1, 3),
                    "endDate": datetime(2021, 1, 4),
                    "unit": "week",
                    "startOfWeek": "Monday",
                }
            },
            Int64(1),
        ),
        ({"$dateDiff": {"startDate": "$d", "endDate": datetime(2024, 2, 29, 12), "unit": "hour"}}, Int64(-1)),
        ({"$dateTrunc": {"date": "$d", "unit": "hour"}}, datetime(2024, 2, 29, 13)),
        ({"$dateTrunc": {"date": "$d", "unit": "minute", "binSize": 15}}, datetime(2024, 2, 29, 13, 45)),
        ({"$dateTrunc": {"date": "$d", "unit": "hour", "binSize": 6}}, datetime(2024, 2, 29, 12)),
        ({"$dateTrunc": {"date": "$d", "unit": "day"}}, datetime(2024, 2, 29)),
        ({"$dateTrunc": {"date": "$d", "unit": "day", "timezone": "Europe/Madrid"}}, datetime(2024, 2, 28, 23)),
        ({"$dateTrunc": {"date": "$d", "unit": "week"}}, datetime(2024, 2, 25)),
        ({"$dateTrunc": {"date": "$d", "unit": "week", "startOfWeek": "monday"}}, datetime(2024, 2, 26)),
        ({"$dateTrunc": {"date": "$d", "unit": "month"}}, datetime(2024, 2, 1)),
        ({"$dateTrunc": {"date": datetime(2021, 11, 20), "unit": "quarter"}}, datetime(2021, 10, 1)),
        ({"$dateTrunc": {"date": "$d", "unit": "year", "binSize": 5}}, datetime(2020, 1, 1)),
        ({"$dateTrunc": {"date": datetime(1999, 12, 31, 23), "unit": "day", "binSize": 2}}, datetime(1999, 12, 30)),
        ({"$dateTrunc": {"date": "$null", "unit": "day"}}, None),
    ],
)
def test_expression(expression, value):
    before = repr(DOCUMENT)
    assert identical(evaluate(expression), value)
    assert repr(DOCUMENT) == before


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ({"$nothing": 1}, "$nothing"),
        ({"$function": {"body": "x", "args": [], "lang": "js"}}, "$function"),
        ({"$accumulator": {}}, "$accumulator"),
        ({"$add": 1, "$subtract": 2}, "one operator"),
        ({"a": 1, "$add": [1]}, "$add"),
        ({"$subtract": [1]}, "2 arguments"),
        ({"$cond": [1, 2]}, "3 arguments"),
        ({"$cond": {"if": 1, "then": 2}}, "else"),
        ({"$map": {"input": []}}, "in"),
        ({"$map": {"input": [], "in": 1, "foo": 1}}, "foo"),
        ({"$let": {"vars": {"X": 1}, "in": 1}}, "lower-case"),
        ("$$nothing", "$$nothing"),
        ({"$filter": {"input": "$l", "as": "x", "cond": "$$y"}}, "$$y"),
        ("$a..b", "empty field name"),
        ("$", "field name"),
        ({"$switch": {"branches": []}}, "branches"),
        ({"$regexMatch": {"input": "x", "regex": "(?=x)"}}, "refused"),
        ({"a.b": 1}, "dot"),
        ({"$convert": {"input": 1, "to": "nothing"}}, "$convert"),
        ({"$sortArray": {"input": [], "sortBy": 2}}, "$sortArray"),
    ],
)
def test_wrong_expressions_are_refused_by_name(expression, words):
    with pytest.raises(QuerySyntaxError) as caught:
        compile_expression(expression, Context())
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ({"$add": ["$s", 1]}, "$add"),
        ({"$add": ["$d", "$d"]}, "one date"),
        ({"$subtract": ["$n", "$d"]}, "$subtract"),
        ({"$divide": [1, 0]}, "zero"),
        ({"$mod": [1, 0]}, "zero"),
        ({"$sqrt": -1}, "$sqrt"),
        ({"$concat": ["$n"]}, "$concat"),
        ({"$size": "$n"}, "$size"),
        ({"$arrayElemAt": ["$l", 0.5]}, "whole"),
        ({"$in": [1, "$n"]}, "$in"),
        ({"$toInt": "1.5"}, "1.5"),
        ({"$toInt": 2**40}, "does not fit"),
        ({"$toInt": float("nan")}, "nan"),
        ({"$toObjectId": "x"}, "ObjectId"),
        ({"$year": "$s"}, "date"),
        ({"$year": {"date": "$d", "timezone": "Nowhere/Land"}}, "time zone"),
        ({"$year": {"date": "$d", "timezone": "../../etc/passwd"}}, "time zone"),
        ({"$dateToString": {"date": "$d", "format": "%Q"}}, "%Q"),
        ({"$dateFromString": {"dateString": "tomorrow"}}, "ISO 8601"),
        ({"$dateAdd": {"startDate": "$d", "unit": "century", "amount": 1}}, "unit"),
        ({"$dateAdd": {"startDate": "$d", "unit": "year", "amount": 100_000}}, "years 1 to 9999"),
        ({"$dateTrunc": {"date": "$d", "unit": "day", "binSize": 0}}, "binSize"),
        ({"$switch": {"branches": [{"case": False, "then": 1}]}}, "$switch"),
        ({"$range": [0, 10**9]}, "$range"),
        ({"$mergeObjects": ["$n"]}, "$mergeObjects"),
        ({"$substrBytes": ["ñ", 0, 1]}, "$substrCP"),
        ({"$pow": [0, -1]}, "$pow"),
    ],
)
def test_wrong_values_are_query_errors(expression, words):
    with pytest.raises(QueryError) as caught:
        evaluate(expression)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "bomb",
    [
        {"$reduce": {"input": {"$range": [0, 60]}, "initialValue": "x", "in": {"$concat": ["$$value", "$$value"]}}},
        {"$reduce": {"input": {"$range": [0, 60]}, "initialValue": [1], "in": {"$concatArrays": ["$$value", "$$value"]}}},
        {"$reduce": {"input": {"$range": [0, 60]}, "initialValue": 1, "in": ["$$value", "$$value"]}},
        {"$reduce": {"input": {"$range": [0, 60]}, "initialValue": 1, "in": {"a": "$$value", "b": "$$value"}}},
        {"$reduce": {"input": {"$range": [0, 5000]}, "initialValue": 1, "in": {"a": "$$value"}}},
        {"$replaceAll": {"input": {"$replaceAll": {"input": "a" * 9000, "find": "a", "replacement": "a" * 400}}, "find": "a", "replacement": "a" * 400}},
    ],
)  # fmt: skip
def test_growing_results_are_bounded(bomb):
    with pytest.raises(LimitError):
        evaluate(bomb)


def test_loops_spend_from_the_budget():
    clock = iter(range(100_000))
    context = Context(Budget(5, lambda: next(clock)))
    endless = {"$map": {"input": {"$range": [0, 1000]}, "in": {"$map": {"input": {"$range": [0, 1000]}, "in": 1}}}}
    with pytest.raises(QueryTimeoutError):
        evaluate(endless, context=context)


def test_nesting_is_bounded():
    spec = 1
    for _ in range(3000):
        spec = {"$abs": [spec]}
    with pytest.raises(QuerySyntaxError, match="nested"):
        compile_expression(spec, Context())


def test_rand_uses_the_source_of_the_context():
    first = evaluate({"$rand": {}}, context=Context(source=random.Random(7)))
    assert first == random.Random(7).random()


def test_now_is_refused_without_a_clock():
    with pytest.raises(QuerySyntaxError, match="NOW"):
        evaluate("$$NOW", context=Context())


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**63 - 1), st.integers(-3, 3), st.floats(), st.text(max_size=4),
    st.sampled_from(["$n", "$f", "$s", "$l", "$o", "$os", "$d", "$nothing", "$null", "$$ROOT", "day", "UTC", OID]),
    st.sampled_from([DATE, Decimal128("1.5"), Decimal128("NaN"), Int64(2**62), Decimal128("1E+6000")]),
)  # fmt: skip
NAMES = sorted(OPERATORS)
ARGUMENT_NAMES = st.sampled_from(["input", "in", "cond", "date", "unit", "amount", "startDate", "timezone", "format", "to", "n",
                                  "regex", "find", "replacement", "initialValue", "sortBy", "field", "value", "dateString", "as"])  # fmt: skip
EXPRESSIONS = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(NAMES), inner | st.lists(inner, min_size=1, max_size=3), min_size=1, max_size=1
        )
        | st.dictionaries(
            st.sampled_from(NAMES),
            st.dictionaries(ARGUMENT_NAMES, inner, min_size=1, max_size=3),
            min_size=1,
            max_size=1,
        )
    ),
    max_leaves=6,
)


@given(EXPRESSIONS)
def test_random_expressions_raise_nothing_but_refusals(expression):
    try:
        evaluate(expression)
    except SibError:
        pass


@given(st.sampled_from(NAMES), st.lists(SCALARS, min_size=1, max_size=3))
def test_every_operator_with_any_arguments(name, arguments):
    for argument in (arguments, arguments[0]):
        try:
            evaluate({name: argument})
        except SibError:
            pass


@given(st.sampled_from(NAMES), st.dictionaries(ARGUMENT_NAMES, SCALARS, min_size=1, max_size=4))
def test_every_operator_with_any_named_arguments(name, arguments):
    try:
        evaluate({name: arguments})
    except SibError:
        pass
