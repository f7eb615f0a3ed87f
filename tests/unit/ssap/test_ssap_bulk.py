"""BULK: items in every dialect, what is wrong with one stays with that one."""

import json

import pytest
from bson import ObjectId

from sib.errors import InvalidInstanceError
from sib.ssap.answers import Answer, BulkResult, format_answer
from sib.ssap.bodies import BULK_ITEMS_MAX
from sib.ssap.envelope import MalformedRequest, parse_request
from sib.ssap.messages import Dialect, MessageType, QueryType
from sib.ssap.operations import Bulk, Delete, Insert, Update

INSERT = {"query": None, "data": '{"a":1}', "queryType": "NATIVE"}
SQL = {"query": "{update X set a=1}", "data": "{}", "queryType": 1}
REMOVAL = {"query": "db.X.remove({})", "data": None}


def item(kind, body, **fields):
    return {"type": kind, "body": body, "ontology": "X", **fields}


def text_item(kind, body, **fields):
    return item(kind, json.dumps(body), **fields)


def parse(body, **fields):
    return parse_request(json.dumps({"messageType": "BULK", "body": body, **fields}), fallback=Dialect.STRING)


MIXED = [item("INSERT", INSERT), text_item("UPDATE", SQL), item("DELETE", REMOVAL)]


@pytest.mark.parametrize(
    ("body", "dialect"),
    [
        (MIXED, Dialect.OBJECT),
        ({"items": MIXED}, Dialect.OBJECT),
        (json.dumps(MIXED), Dialect.STRING),
        (json.dumps({"items": MIXED}), Dialect.STRING),
        ({"@type": "SSAPBodyBulkMessage", "version": "LEGACY", "data": None, "items": MIXED}, Dialect.ONE),
        ({"@type": "SSAPBodyBulkMessage", "items": json.dumps(MIXED)}, Dialect.ONE),
    ],
)
def test_items_in_every_dialect(body, dialect):
    request = parse(body)
    assert request.dialect is dialect
    assert [(one.type, one.ontology, one.operation, one.error) for one in request.operation.items] == [
        (MessageType.INSERT, "X", Insert('{"a":1}', None, QueryType.NATIVE), None),
        (MessageType.UPDATE, "X", Update(None, "update X set a=1", QueryType.SQLLIKE), None),
        (MessageType.DELETE, "X", Delete("db.X.remove({})", QueryType.NATIVE), None),
    ]


def test_an_item_of_one_may_hold_the_text_of_a_typed_body():
    body = {"@type": "SSAPBodyOperationMessage", "version": None, **INSERT}
    (one,) = parse({"@type": "SSAPBodyBulkMessage", "items": [text_item("INSERT", body)]}).operation.items
    assert one.operation == Insert('{"a":1}', None, QueryType.NATIVE)


@pytest.mark.parametrize(
    "body", [[], {}, {"items": None}, {"items": []}, {"items": ""}, None, "", "[]", '{"items":[]}']
)
def test_an_empty_bulk(body):
    assert parse(body).operation == Bulk(())


def test_the_ontology_of_an_item_may_be_missing():
    (one,) = parse([{"type": "UPDATE", "body": SQL}]).operation.items
    assert (one.ontology, one.error) == (None, None)


@pytest.mark.parametrize(
    "bad",
    [
        item("QUERY", {"query": ""}),
        item("BULK", []),
        item(None, INSERT),
        item(["INSERT"], INSERT),
        item("insert", INSERT),
        item("INSERT", INSERT, ontology=5),
        item("INSERT", "{broken"),
        item("INSERT", '{"data":1,"data":2}'),
        item("INSERT", None),
        item("INSERT", 5),
        item("INSERT", []),
        item("UPDATE", {"query": 5}),
        item("DELETE", {"query": "a", "queryType": "XQUERY"}),
        {},
        5,
        None,
        "text",
        [],
    ],
)
def test_a_bad_item_is_an_error_of_its_own(bad):
    items = parse([item("INSERT", INSERT), bad, item("DELETE", REMOVAL)]).operation.items
    assert [one.error is None for one in items] == [True, False, True]
    assert items[1].operation is None
    assert items[1].error.message
    assert isinstance(items[1].request_body, str)


def test_the_body_of_an_item_is_given_back_as_text():
    items = parse([item("INSERT", "{broken"), item("INSERT", {"a": 1}), item("QUERY", None)]).operation.items
    assert [one.request_body for one in items] == ["{broken", '{"a":1}', "null"]


@pytest.mark.parametrize("body", [{"items": 5}, {"items": {}}, {"items": "{"}, "5", {"items": "5"}])
def test_a_bulk_that_cannot_be_read(body):
    with pytest.raises(MalformedRequest) as caught:
        parse(body)
    assert caught.value.message_type is MessageType.BULK


def test_the_number_of_items_is_bounded():
    assert len(parse([{}] * BULK_ITEMS_MAX).operation.items) == BULK_ITEMS_MAX
    with pytest.raises(MalformedRequest, match=str(BULK_ITEMS_MAX)):
        parse([{}] * (BULK_ITEMS_MAX + 1))


class TestAnswer:
    IDS = [ObjectId(f"{number:024x}") for number in range(4)]
    LEGACY = [f'{{"_id":ObjectId("{number:024x}")}}' for number in range(4)]

    def result(self, items):
        result = BulkResult()
        result.add_ids(items[0], self.IDS[:1])
        result.add_ids(items[1], self.IDS[1:3])
        result.add_ids(items[2], self.IDS[3:])
        result.add_error(items[0], InvalidInstanceError("measure: it's no number"))
        return result

    @pytest.mark.parametrize(
        "body",
        [MIXED, json.dumps(MIXED), {"@type": "SSAPBodyBulkMessage", "items": MIXED}],
        ids=["object", "string", "one"],
    )
    def test_summaries_are_the_same_in_all_dialects(self, body):
        request = parse(body)
        answer = json.loads(format_answer(request, Answer(self.result(request.operation.items))))
        body = json.loads(answer["body"]) if request.dialect is Dialect.STRING else answer["body"]
        data = body["data"] if request.dialect is Dialect.ONE else json.loads(body["data"])
        sentence = "measure: it's no number [ontology.invalid_instance]"
        errors = [{"requestBody": json.dumps(INSERT, separators=(",", ":")), "responseBody": sentence}]
        assert (body["ok"], body["error"], body["errorCode"]) == (True, None, None)
        assert data == {
            "insertSummary": {"objectIds": self.LEGACY[:1], "errors": errors},
            "updateSummary": {"objectIds": self.LEGACY[1:3], "errors": []},
            "deleteSummary": {"objectIds": self.LEGACY[3:], "errors": []},
        }

    @pytest.mark.parametrize("bad", [item("QUERY", {}), 5, item(None, None)])
    def test_items_of_other_types_are_errors_of_the_inserts(self, bad):
        (one,) = parse([bad]).operation.items
        result = BulkResult()
        result.add_error(one, one.error)
        assert len(result.insert.errors) == 1

    def test_an_unreadable_update_is_an_error_of_the_updates(self):
        (one,) = parse([item("UPDATE", "{broken")]).operation.items
        result = BulkResult()
        result.add_error(one, one.error)
        assert len(result.update.errors) == 1
