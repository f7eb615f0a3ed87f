"""Answers and indications: the fields, the dialects, and what old clients cannot parse."""

import json

import pytest
from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st

from sib import errors
from sib.ssap.answers import (
    ERROR_CHARACTERS_MAX,
    AffectedIds,
    Answer,
    InsertAnswerTemplate,
    InsertedId,
    Json,
    NoData,
    Rows,
    Text,
    format_answer,
    format_command_indication,
    format_indication,
    format_indication_rest,
    format_unreadable,
)
from sib.ssap.envelope import MalformedRequest, Request, oversized, parse_request
from sib.ssap.messages import Dialect, MessageType
from sib.ssap.operations import Command, Unsupported
from sib.ssap.printing import print_rows_legacy, print_rows_one

OID = ObjectId("5a8eaae2e4b06f95860d1e1b")
DOCUMENTS = [{"_id": OID, "Sensor": {"measure": 25}}, {"_id": OID, "Sensor": {"assetId": "it's"}}]
ROWS = Rows(print_rows_legacy(DOCUMENTS), print_rows_one(DOCUMENTS))
LEGACY_DIALECTS = [Dialect.STRING, Dialect.OBJECT]


class OverQueriesError(errors.SibError):
    code, ssap_code, status = "query.too_many", errors.SSAPErrorCode.MAX_CONCURRENT_QUERIES_REACHED, 429


def request(message_type=MessageType.QUERY, dialect=Dialect.STRING, **fields):
    values = {"session_key": "K", "ontology": "X", "message_id": None, **fields}
    operation = Unsupported(message_type)
    return Request(message_type, dialect=dialect, dialect_told=True, operation=operation, **values)


def answer(question, outcome):
    """(envelope, body as object) of an answer."""
    envelope = json.loads(format_answer(question, outcome))
    body = envelope.pop("body")
    assert isinstance(body, str) is (question.dialect is Dialect.STRING)
    return envelope, json.loads(body) if isinstance(body, str) else body


def data_of(dialect, data):
    return answer(request(dialect=dialect), Answer(data))[1]["data"]


class TestFields:
    @pytest.mark.parametrize("dialect", Dialect)
    def test_exactly_these_keys_in_this_order(self, dialect):
        envelope = json.loads(format_answer(request(dialect=dialect), Answer(Text("OK"))))
        version = ["version"] if dialect is Dialect.ONE else []
        assert list(envelope) == ["messageId", "sessionKey", "ontology", "direction", "messageType", "body", *version]

    @pytest.mark.parametrize("dialect", Dialect)
    @pytest.mark.parametrize("outcome", [Answer(Text("OK")), Answer(error=errors.StoreError("Full"))])
    def test_exactly_these_keys_in_the_body(self, dialect, outcome):
        front = ["@type", "version", "contentType"] if dialect is Dialect.ONE else []
        assert list(answer(request(dialect=dialect), outcome)[1]) == [*front, "data", "ok", "error", "errorCode"]

    @pytest.mark.parametrize("dialect", Dialect)
    @pytest.mark.parametrize(
        "fields", [{"message_id": "M"}, {"message_id": 5}, {"ontology": ""}, {"session_key": None}]
    )
    def test_the_request_is_repeated(self, dialect, fields):
        question = request(MessageType.UPDATE, dialect, **fields)
        envelope, _ = answer(question, Answer(NoData()))
        assert envelope["messageId"] == question.message_id
        assert envelope["sessionKey"] == question.session_key
        assert envelope["ontology"] == question.ontology
        assert envelope["messageType"] == "UPDATE"

    @pytest.mark.parametrize("dialect", Dialect)
    def test_success(self, dialect):
        envelope, body = answer(request(dialect=dialect), Answer(Text("x")))
        assert envelope["direction"] == "RESPONSE"
        assert (body["ok"], body["error"], body["errorCode"]) == (True, None, None)

    @pytest.mark.parametrize("dialect", Dialect)
    def test_failure(self, dialect):
        outcome = Answer(Text("dropped"), errors.AuthorizationError("No right on X: ask its owner"))
        envelope, body = answer(request(dialect=dialect), outcome)
        assert envelope["direction"] == "ERROR"
        assert (body["data"], body["ok"], body["errorCode"]) == (None, False, "AUTHORIZATION")
        assert body["error"] == "No right on X: ask its owner [access.denied]"

    @pytest.mark.parametrize("dialect", Dialect)
    def test_an_accepted_join_carries_its_key(self, dialect):
        question = request(MessageType.JOIN, dialect, session_key=None)
        envelope, body = answer(question, Answer(Text("NEW"), session_key="NEW"))
        assert (envelope["sessionKey"], body["data"]) == ("NEW", "NEW")

    @pytest.mark.parametrize("dialect", Dialect)
    @pytest.mark.parametrize("outcome", [{}, {"session_key": "K"}])
    def test_a_refused_join_or_renewal_carries_none(self, dialect, outcome):
        error = errors.AuthenticationError("Wrong token")
        envelope, body = answer(request(MessageType.JOIN, dialect), Answer(error=error, **outcome))
        assert (envelope["sessionKey"], body["data"], body["errorCode"]) == (None, None, "AUTENTICATION")

    @pytest.mark.parametrize("dialect", Dialect)
    def test_a_refused_leave_repeats_its_key(self, dialect):
        envelope, body = answer(request(MessageType.LEAVE, dialect), Answer(error=errors.AuthenticationError("Dead")))
        assert (envelope["sessionKey"], body["data"], body["ok"]) == ("K", None, False)


class TestErrors:
    ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.SibError)]
    KNOWN = {
        "AUTENTICATION",
        "AUTHORIZATION",
        "PROCESSOR",
        "PERSISTENCE",
        "PARSE_SQL",
        "ONTOLOGY_NOT_FOUND",
        "SIB_DEFINED_QUERY_NOT_FOUND",
        "OTHER",
    }

    @pytest.mark.parametrize("kind", [*ALL, OverQueriesError])
    @pytest.mark.parametrize("dialect", LEGACY_DIALECTS)
    def test_old_clients_get_only_codes_that_they_know(self, kind, dialect):
        assert answer(request(dialect=dialect), Answer(error=kind("Sentence")))[1]["errorCode"] in self.KNOWN

    @pytest.mark.parametrize("kind", [*ALL, OverQueriesError])
    def test_one_gets_the_code_itself(self, kind):
        _, body = answer(request(dialect=Dialect.ONE), Answer(error=kind("Sentence")))
        assert body["errorCode"] == kind.ssap_code.value

    @pytest.mark.parametrize("code", errors.SSAPErrorCode)
    def test_every_code_is_spelled_as_on_the_wire(self, code):
        kind = type("AnyError", (errors.SibError,), {"ssap_code": code})
        assert answer(request(dialect=Dialect.ONE), Answer(error=kind("Sentence")))[1]["errorCode"] == code.value

    @pytest.mark.parametrize("sentence", ["", " "])
    def test_the_sentence_is_never_empty(self, sentence):
        body = answer(request(), Answer(error=errors.StoreError(sentence)))[1]
        assert body["error"] == "The request was refused [store.failed]"

    def test_the_sentence_is_bounded(self):
        body = answer(request(), Answer(error=errors.StoreError("x" * 1_000_000)))[1]
        assert len(body["error"]) < ERROR_CHARACTERS_MAX + 100

    def test_a_sentence_that_utf8_cannot_carry(self):
        assert "a?b" in answer(request(), Answer(error=errors.StoreError("a\ud800b")))[1]["error"]


class TestData:
    @pytest.mark.parametrize("dialect", Dialect)
    @pytest.mark.parametrize("text", ["", "OK", "0d9ba4be-6a4c-4d8e-b8f1-0c1a2b3c4d5e", 'it\'s "q" \\'])
    def test_text_is_a_string_everywhere(self, dialect, text):
        assert data_of(dialect, Text(text)) == text

    @pytest.mark.parametrize("dialect", Dialect)
    def test_no_data_is_null(self, dialect):
        assert data_of(dialect, NoData()) is None

    @pytest.mark.parametrize("dialect", LEGACY_DIALECTS)
    def test_ids_of_old_clients(self, dialect):
        assert data_of(dialect, InsertedId(OID)) == '{"_id":ObjectId("5a8eaae2e4b06f95860d1e1b")}'
        assert data_of(dialect, AffectedIds([])) == "[]"
        assert data_of(dialect, AffectedIds([OID, OID])) == (
            '[{"_id":ObjectId("5a8eaae2e4b06f95860d1e1b")},{"_id":ObjectId("5a8eaae2e4b06f95860d1e1b")}]'
        )

    def test_ids_of_one(self):
        assert data_of(Dialect.ONE, InsertedId(OID)) == {"_id": {"$oid": str(OID)}}
        assert data_of(Dialect.ONE, AffectedIds([])) == []
        assert data_of(Dialect.ONE, AffectedIds([OID, OID])) == [{"_id": {"$oid": str(OID)}}] * 2

    @pytest.mark.parametrize("rows", [ROWS, Rows(one=ROWS.one), Rows(legacy=ROWS.legacy)])
    def test_rows(self, rows):
        for dialect in LEGACY_DIALECTS:
            assert data_of(dialect, rows) == ROWS.legacy
        assert data_of(Dialect.ONE, rows) == json.loads(ROWS.one)

    @pytest.mark.parametrize("rows", [Rows("[ ]", b"[]"), Rows(one=b"[]"), Rows(legacy="[ ]"), Rows()])
    def test_no_rows(self, rows):
        assert [data_of(dialect, rows) for dialect in Dialect] == ["[ ]", "[ ]", []]

    def test_a_bare_number(self):
        assert [data_of(dialect, Rows(one=b"3")) for dialect in Dialect] == ["3", "3", 3]

    def test_a_configuration(self):
        value = {"kp": "KP", "lontologia": [{"esquemajson": "{}"}], "assetServiceParam": {}, "id": OID}
        texts = [data_of(dialect, Json(value)) for dialect in LEGACY_DIALECTS]
        read = {**value, "id": {"$oid": str(OID)}}
        assert [json.loads(text) for text in texts] == [read, read]
        assert data_of(Dialect.ONE, Json(value)) == read


class TestExamples:
    """The answers as they stand in the protocol's description, byte for byte."""

    ROWS = Rows(one=print_rows_one([{"_id": OID}]))

    def test_string(self):
        assert format_indication("S", "K", "TestSensorTemperatura", Dialect.STRING, self.ROWS).decode() == (
            '{"messageId":"S","sessionKey":"K","ontology":"TestSensorTemperatura","direction":"RESPONSE",'
            '"messageType":"INDICATION","body":"{\\"data\\":\\"[ { \\\\\\"_id\\\\\\" : { \\\\\\"$oid\\\\\\" : '
            '\\\\\\"5a8eaae2e4b06f95860d1e1b\\\\\\"}}]\\",\\"ok\\":true,\\"error\\":null,\\"errorCode\\":null}"}'
        )

    def test_object(self):
        assert format_indication("S", "K", "TestSensorTemperatura", Dialect.OBJECT, self.ROWS).decode() == (
            '{"messageId":"S","sessionKey":"K","ontology":"TestSensorTemperatura","direction":"RESPONSE",'
            '"messageType":"INDICATION","body":{"data":"[ { \\"_id\\" : { \\"$oid\\" : '
            '\\"5a8eaae2e4b06f95860d1e1b\\"}}]","ok":true,"error":null,"errorCode":null}}'
        )

    def test_one(self):
        assert format_indication("S", "K", "TestSensorTemperatura", Dialect.ONE, self.ROWS).decode() == (
            '{"messageId":"S","sessionKey":"K","ontology":"TestSensorTemperatura","direction":"RESPONSE",'
            '"messageType":"INDICATION","body":{"@type":"SSAPBodyReturnMessage","version":"ONE","contentType":null,'
            '"data":[{"_id":{"$oid":"5a8eaae2e4b06f95860d1e1b"}}],"ok":true,"error":null,"errorCode":null},'
            '"version":"ONE"}'
        )

    def test_a_response_has_the_same_shape(self):
        question = request(MessageType.INDICATION, Dialect.STRING, ontology="TestSensorTemperatura")
        assert format_answer(question, Answer(self.ROWS)).replace(b'"messageId":null', b'"messageId":"S"') == (
            format_indication("S", "K", "TestSensorTemperatura", Dialect.STRING, self.ROWS)
        )


class TestApostrophe:
    OUTCOMES = [Answer(ROWS), Answer(Text("it's")), Answer(Json({"a'": "'"})), Answer(error=errors.StoreError("can't"))]

    @pytest.mark.parametrize("dialect", LEGACY_DIALECTS)
    @pytest.mark.parametrize("outcome", OUTCOMES)
    def test_no_apostrophe_in_the_frames_of_old_clients(self, dialect, outcome):
        frame = format_answer(request(dialect=dialect, ontology="o'", session_key="k'", message_id="m'"), outcome)
        assert b"'" not in frame
        assert json.loads(frame)["ontology"] == "o'"

    @pytest.mark.parametrize("dialect", LEGACY_DIALECTS)
    def test_what_javascript_reads_is_the_frame(self, dialect):
        frame = format_answer(request(dialect=dialect), Answer(ROWS)).decode()
        assert frame.replace("'", '\\"') == frame
        body = json.loads(frame)["body"]
        assert json.loads(body if dialect is Dialect.STRING else json.dumps(body))["data"] == ROWS.legacy

    @pytest.mark.parametrize("dialect", LEGACY_DIALECTS)
    def test_indications_too(self, dialect):
        assert b"'" not in format_indication("S", "K", "X", dialect, ROWS)
        assert b"'" not in format_indication_rest("S", "K", "X", ROWS, is_one=False)
        assert b"'" not in format_command_indication("S", dialect, Command("KP", "1", "STATUS", {"a": "'"}))


class TestRestIndication:
    def test_legacy_instances_stand_one_after_the_other(self):
        envelope = json.loads(format_indication_rest("S", "K", "X", ROWS, is_one=False))
        assert envelope["messageId"] == "S"
        assert "version" not in envelope
        body = json.loads(envelope["body"])
        assert body["data"] == ROWS.legacy[1:-1]
        assert body["data"].startswith(" { ")
        assert json.loads(f"[{body['data']}]") == json.loads(ROWS.one)
        assert (body["ok"], body["error"], body["errorCode"]) == (True, None, None)

    def test_one(self):
        envelope = json.loads(format_indication_rest("S", "K", "X", ROWS, is_one=True))
        assert envelope["version"] == "ONE"
        assert envelope["body"]["@type"] == "SSAPBodyReturnMessage"
        assert envelope["body"]["data"] == json.loads(ROWS.one)


class TestCommandIndication:
    COMMAND = Command("KP", "KP:1", "STATUS", {"a": "b"})
    DATA = {"thinkp": "KP", "thinkpInstance": "KP:1", "type": "STATUS", "args": {"a": "b"}}

    @pytest.mark.parametrize("dialect", Dialect)
    def test_it_has_neither_session_nor_ontology(self, dialect):
        envelope = json.loads(format_command_indication("S", dialect, self.COMMAND))
        body = json.loads(envelope["body"]) if dialect is Dialect.STRING else envelope["body"]
        data = body["data"] if dialect is Dialect.ONE else json.loads(body["data"])
        assert (envelope["messageId"], envelope["sessionKey"], envelope["ontology"]) == ("S", None, None)
        assert (envelope["direction"], envelope["messageType"]) == ("RESPONSE", "INDICATION")
        assert data == self.DATA


class TestInsertTemplate:
    @pytest.mark.parametrize("dialect", Dialect)
    @pytest.mark.parametrize("key", ["K", None, "it's", "0123456789abcdef01234567"])
    @pytest.mark.parametrize("ontology", ["X", None, "0123456789abcdef01234567"])
    def test_it_says_what_the_formatter_says(self, dialect, key, ontology):
        template = InsertAnswerTemplate.for_session(key, ontology, dialect)
        question = request(MessageType.INSERT, dialect, session_key=key, ontology=ontology)
        assert template.format(OID) == format_answer(question, Answer(InsertedId(OID)))
        assert template.head + str(OID).encode() + template.tail == template.format(OID)


class TestUnreadable:
    def unreadable(self, payload, fallback=Dialect.STRING):
        with pytest.raises(MalformedRequest) as caught:
            parse_request(payload, fallback=fallback)
        return json.loads(format_unreadable(caught.value))

    @pytest.mark.parametrize("fallback", Dialect)
    def test_broken_json_is_answered_in_the_dialect_of_the_connection(self, fallback):
        envelope = self.unreadable(b'{"messageType":"INSERT","sessionKey":"K"', fallback)
        assert (envelope["messageType"], envelope["sessionKey"], envelope["direction"]) == ("INSERT", None, "ERROR")
        body = json.loads(envelope["body"]) if fallback is Dialect.STRING else envelope["body"]
        assert (body["data"], body["ok"], body["errorCode"]) == (None, False, "OTHER")
        assert body["error"]

    def test_an_unknown_type_is_answered_with_none(self):
        envelope = self.unreadable(b'{"messageType":"DANCE","sessionKey":"K","messageId":"M","body":{}}', Dialect.ONE)
        assert (envelope["messageType"], envelope["sessionKey"], envelope["messageId"]) == ("NONE", "K", "M")
        assert "version" not in envelope

    def test_a_broken_join_carries_no_key(self):
        assert self.unreadable(b'{"messageType":"JOIN","sessionKey":"K","body":"{"}')["sessionKey"] is None

    def test_too_long(self):
        envelope = json.loads(format_unreadable(oversized(b'{"messageType":"BULK"', 9, 5, fallback=Dialect.OBJECT)))
        assert (envelope["messageType"], envelope["body"]["errorCode"]) == ("BULK", "OTHER")


@given(st.sampled_from(Dialect), st.text(), st.none() | st.text(), st.none() | st.text(), st.text())
def test_every_frame_is_json_and_repeats_what_it_was_given(dialect, text, key, ontology, sentence):
    question = request(dialect=dialect, session_key=key, ontology=ontology, message_id=text)
    envelope, body = answer(question, Answer(Text(text)))
    assert (envelope["messageId"], envelope["sessionKey"], envelope["ontology"]) == (text, key, ontology)
    assert body["data"] == text
    _, body = answer(question, Answer(error=errors.StoreError(sentence)))
    assert body["error"].endswith("[store.failed]")
