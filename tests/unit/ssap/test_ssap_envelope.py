"""Envelope, dialect and body of every operation, and the payloads that cannot be read."""

import json
import pickle

import orjson
import pytest

from sib.ssap.envelope import IgnoredPayload, MalformedRequest, oversized, parse_request
from sib.ssap.messages import Dialect, MessageType, QueryType
from sib.ssap.operations import (
    Command,
    Config,
    Delete,
    DeviceReport,
    Insert,
    Join,
    Leave,
    Query,
    Subscribe,
    SubscribeCommand,
    Unsubscribe,
    Unsupported,
    Update,
)


def envelope(message_type, body, **fields):
    return json.dumps({"messageType": message_type, "body": body, "sessionKey": "K", "ontology": "X", **fields})


def parse(message_type, body, fallback=Dialect.STRING, **fields):
    return parse_request(envelope(message_type, body, **fields), fallback=fallback)


def operation(message_type, body):
    """The operation of a body, which must be the same in all three dialects."""
    as_object = parse(message_type, body)
    as_string = parse(message_type, json.dumps(body))
    as_one = parse(message_type, {"@type": "SSAPBody", "version": None, **body})
    assert as_object.dialect is Dialect.OBJECT
    assert as_string.dialect is Dialect.STRING
    assert as_one.dialect is Dialect.ONE
    assert as_object.operation == as_string.operation == as_one.operation
    return as_object.operation


def malformed(payload, fallback=Dialect.STRING):
    with pytest.raises(MalformedRequest) as caught:
        parse_request(payload, fallback=fallback)
    assert caught.value.message
    return caught.value


class TestEnvelope:
    def test_fields_are_those_of_the_envelope(self):
        request = parse("QUERY", {"query": ""}, messageId="M")
        assert (request.message_type, request.session_key, request.ontology, request.message_id) == (
            MessageType.QUERY,
            "K",
            "X",
            "M",
        )

    def test_absent_fields_are_none(self):
        request = parse_request('{"messageType":"QUERY"}', fallback=Dialect.STRING)
        assert (request.session_key, request.ontology, request.message_id) == (None, None, None)

    @pytest.mark.parametrize("payload", [b'{"messageType":"LEAVE"}', ' \n {"messageType":"LEAVE"} \n'])
    def test_bytes_and_text_with_blanks_around(self, payload):
        assert parse_request(payload, fallback=Dialect.STRING).operation == Leave()

    def test_unknown_fields_are_ignored(self):
        assert parse("LEAVE", None, persistenceType="MONGODB", direction=None).operation == Leave()

    @pytest.mark.parametrize("message_type", MessageType)
    def test_every_message_type_is_read(self, message_type):
        assert parse(message_type.value, {}).message_type is message_type

    @pytest.mark.parametrize("message_type", ["NONE", "INDICATION", "CREATE", "DELETEINDEX", "GETINDEXES"])
    def test_types_without_an_operation(self, message_type):
        assert parse(message_type, {}).operation == Unsupported(MessageType(message_type))


class TestDialect:
    @pytest.mark.parametrize(
        ("fields", "dialect"),
        [
            ({"body": {"@type": "SSAPBodyEmptyMessage", "version": "LEGACY"}}, Dialect.ONE),
            ({"body": {"@type": "SSAPBodyEmptyMessage"}, "version": None}, Dialect.ONE),
            ({"body": {}, "version": "ONE"}, Dialect.ONE),
            ({"body": None, "version": "ONE"}, Dialect.ONE),
            ({"version": "ONE"}, Dialect.ONE),
            ({"body": "", "version": "ONE"}, Dialect.ONE),
            ({"body": '{"@type":"SSAPBodyEmptyMessage"}'}, Dialect.ONE),
            ({"body": ""}, Dialect.STRING),
            ({"body": "{}"}, Dialect.STRING),
            ({"body": "{}", "version": "LEGACY"}, Dialect.STRING),
            ({"body": {}}, Dialect.OBJECT),
            ({"body": {}, "version": "LEGACY"}, Dialect.OBJECT),
        ],
    )
    @pytest.mark.parametrize("fallback", Dialect)
    def test_the_message_tells(self, fields, dialect, fallback):
        request = parse_request(json.dumps({"messageType": "LEAVE", **fields}), fallback=fallback)
        assert (request.dialect, request.dialect_told) == (dialect, True)

    def test_an_array_is_the_object_dialect(self):
        assert parse("BULK", []).dialect is Dialect.OBJECT

    def test_an_array_in_a_string_is_the_string_dialect(self):
        assert parse("BULK", "[]", fallback=Dialect.ONE).dialect is Dialect.STRING

    @pytest.mark.parametrize("fields", [{}, {"body": None}, {"body": None, "version": "LEGACY"}])
    @pytest.mark.parametrize("fallback", Dialect)
    def test_no_body_falls_back(self, fields, fallback):
        request = parse_request(json.dumps({"messageType": "LEAVE", **fields}), fallback=fallback)
        assert (request.dialect, request.dialect_told) == (fallback, False)


class TestJoinAndLeave:
    def test_join_by_token(self):
        join = operation("JOIN", {"instance": "KP:01", "token": "secret", "args": None})
        assert join == Join("KP:01", token="secret")
        assert (join.kp, join.instance_name) == ("KP", "01")

    def test_join_by_user(self):
        assert operation("JOIN", {"instance": "KP:1", "user": "u", "password": "p"}) == Join("KP:1", None, "u", "p")

    def test_only_the_first_colon_splits_the_instance(self):
        assert Join("KP:a:b").instance_name == "a:b"

    def test_an_instance_without_colon_has_no_name(self):
        assert (Join("KP").kp, Join("KP").instance_name) == ("KP", "")

    def test_secrets_are_not_shown(self):
        assert "S3CRET" not in repr(Join("KP:1", token="S3CRET", user="u", password="S3CRET"))
        assert "S3CRET" not in repr(parse("CONFIG", {"token": "S3CRET"}))
        assert "S3CRET" not in repr(parse("LOG", {"token": "S3CRET"}))
        assert "S3CRET" not in repr(parse("SUBSCRIBECOMMAND", {"token": "S3CRET"}))

    def test_join_without_credentials_is_read(self):
        assert operation("JOIN", {}) == Join("")

    @pytest.mark.parametrize("body", [None, "", " ", "null", "{}", {}])
    def test_leave_bodies(self, body):
        assert parse("LEAVE", body).operation == Leave()


class TestInsert:
    TEXT = '{"Sensor": {"measure":1}}'

    def test_text_is_kept_as_it_is(self):
        assert operation("INSERT", {"data": self.TEXT, "query": None}) == Insert(self.TEXT, None, QueryType.NATIVE)

    def test_an_object_is_written_as_json(self):
        insert = parse("INSERT", {"data": json.loads(self.TEXT)}).operation
        assert insert == Insert(b'{"Sensor":{"measure":1}}', None, QueryType.NATIVE)

    @pytest.mark.parametrize("query", ["", "{}", None, "null", "db.X.insert({})"])
    def test_query_is_ignored_beside_native_data(self, query):
        body = {"data": self.TEXT, "query": query, "queryType": "NATIVE"}
        assert operation("INSERT", body) == Insert(self.TEXT, None, QueryType.NATIVE)

    @pytest.mark.parametrize("data", [None, "", "null", "{}", {}])
    def test_a_shell_statement(self, data):
        insert = operation("INSERT", {"data": data, "query": '{db.X.insert({"a":1})}'})
        assert insert == Insert(None, 'db.X.insert({"a":1})', QueryType.NATIVE)

    @pytest.mark.parametrize("query", ['{"Sensor": {"measure":1}}', "{Sensor:{measure:1}}", {"Sensor": 1}])
    def test_an_instance_in_place_of_a_query(self, query):
        insert = operation("INSERT", {"query": query, "queryType": "NATIVE", "queryParams": None})
        assert insert.query is None
        assert insert.data == (query if isinstance(query, str) else '{"Sensor":1}')

    @pytest.mark.parametrize("data", [None, "", "null", "{}", '{"Sensor":{}}'])
    @pytest.mark.parametrize("query", ["insert into X(a) values (1)", "{insert into X(a) values (1)}"])
    def test_sql_takes_the_query(self, data, query):
        insert = operation("INSERT", {"data": data, "query": query, "queryType": "SQLLIKE"})
        assert insert == Insert(None, "insert into X(a) values (1)", QueryType.SQLLIKE)

    @pytest.mark.parametrize("query", [None, "", "{}"])
    def test_sql_in_data(self, query):
        insert = operation("INSERT", {"data": "{insert into X(a) values (1)}", "query": query, "queryType": "SQLLIKE"})
        assert insert == Insert(None, "insert into X(a) values (1)", QueryType.SQLLIKE)

    @pytest.mark.parametrize(("data", "text"), [(None, ""), ("", ""), ("null", "null"), ("{}", "{}"), ({}, b"{}")])
    def test_nothing_to_insert_goes_on_to_the_check_of_the_instance(self, data, text):
        assert parse("INSERT", {"data": data, "query": None}).operation == Insert(text, None, QueryType.NATIVE)

    def test_no_sql_statement_is_the_empty_statement(self):
        assert operation("INSERT", {"queryType": "SQLLIKE"}) == Insert(None, "", QueryType.SQLLIKE)

    @pytest.mark.parametrize("text", ['{ "a":1}', '{"a":1}', '[{"a":1},{"a":2}]'])
    def test_braces_around_a_whole_instance_are_taken_off(self, text):
        assert operation("INSERT", {"data": "{ " + text + "}"}).data == text

    def test_a_missing_opening_brace_is_left_to_the_reader_of_instances(self):
        assert operation("INSERT", {"data": '"Sensor":{}}'}).data == '"Sensor":{}}'


class TestUpdateAndDelete:
    def test_native_replacement(self):
        update = operation("UPDATE", {"data": '{"a":1}', "query": "{a:2}"})
        assert update == Update('{"a":1}', "{a:2}", QueryType.NATIVE)

    def test_replacement_as_object(self):
        assert operation("UPDATE", {"data": {"a": 1}, "query": "{a:2}"}).data == '{"a":1}'

    @pytest.mark.parametrize("data", [None, "", "null", "{}", {}])
    def test_no_data(self, data):
        update = operation("UPDATE", {"data": data, "query": "db.X.update({},{$set:{a:1}})"})
        assert update == Update(None, "db.X.update({},{$set:{a:1}})", QueryType.NATIVE, is_removal=data == "")

    @pytest.mark.parametrize("data", [None, "", "null", "{}", '{"a":1}'])
    def test_sql_ignores_data(self, data):
        update = operation("UPDATE", {"data": data, "query": "{update X set a=1}", "queryType": "SQLLIKE"})
        assert update == Update(None, "update X set a=1", QueryType.SQLLIKE)

    @pytest.mark.parametrize("query", [None, "", "{}", "null", "  ", "{ }"])
    def test_everything_is_the_empty_query(self, query):
        assert operation("UPDATE", {"data": '{"a":1}', "query": query}) == Update('{"a":1}', "", QueryType.NATIVE)
        assert operation("DELETE", {"data": None, "query": query}) == Delete("", QueryType.NATIVE)

    def test_an_explicit_removal_of_everything_is_not_empty(self):
        assert operation("DELETE", {"query": "{db.X.remove({})}"}).query == "db.X.remove({})"


class TestQuery:
    def test_parameters(self):
        params = {"p": '"quoted"', "q": "plain", "n": 5, "b": True, "z": None, "s": "'single'", "e": '""', "l": '"'}
        query = operation("QUERY", {"query": "{Stored}", "queryType": "SIB_DEFINED", "queryParams": params})
        assert query == Query(
            "Stored",
            QueryType.SIB_DEFINED,
            {"p": "quoted", "q": "plain", "n": "5", "b": "true", "z": "null", "s": "single", "e": "", "l": '"'},
        )

    @pytest.mark.parametrize("params", [None, "", "null", "{}", {}])
    def test_no_parameters(self, params):
        assert operation("QUERY", {"query": "Stored", "queryParams": params}).params is None

    def test_parameters_as_text(self):
        assert operation("QUERY", {"query": "Stored", "queryParams": '{"p":"\\"x\\""}'}).params == {"p": "x"}

    def test_a_criterion_as_object(self):
        assert parse("QUERY", {"query": {"a": 1}}).operation.query == '{"a":1}'

    @pytest.mark.parametrize(
        ("sent", "query_type"),
        [
            *[(kind.value, kind) for kind in QueryType],
            *list(enumerate(QueryType)),
            *[(str(number), kind) for number, kind in enumerate(QueryType)],
            (None, QueryType.NATIVE),
            ("", QueryType.NATIVE),
            ("HDB", QueryType.BDH),
            ("CDB", QueryType.BDC),
        ],
    )
    def test_query_types(self, sent, query_type):
        assert operation("QUERY", {"query": "x", "queryType": sent}).query_type is query_type

    def test_ordinals_are_in_this_order(self):
        names = ["NATIVE", "SQLLIKE", "SIB_DEFINED", "CEP", "BDH", "BDC", "SQL"]
        assert [operation("QUERY", {"queryType": number}).query_type for number in range(7)] == names

    def test_absent_query_type_is_native(self):
        assert operation("QUERY", {"query": "x"}).query_type is QueryType.NATIVE

    @pytest.mark.parametrize("query_type", ["XQUERY", 7, -1, 1.5, ["NATIVE"], {}])
    def test_unknown_query_type(self, query_type):
        assert "queryType" in malformed(envelope("QUERY", {"query": "x", "queryType": query_type})).message


class TestSubscribe:
    @pytest.mark.parametrize(
        ("sent", "ms_refresh"),
        [("0", 0), (0, 0), ("3000", 3000), (" 5 ", 5), (100, 100), (100.0, 100), (None, 0), ("", 0), (2**31 - 1,) * 2],
    )
    def test_refresh(self, sent, ms_refresh):
        subscribe = operation("SUBSCRIBE", {"query": "", "msRefresh": sent, "queryType": "SQLLIKE"})
        assert subscribe == Subscribe("", QueryType.SQLLIKE, ms_refresh, None)

    @pytest.mark.parametrize("sent", [-1, "-1", "soon", "1.5", 2**31, "9" * 5000, [], {}, 1e300])
    def test_unusable_refresh(self, sent):
        assert "msRefresh" in malformed(envelope("SUBSCRIBE", {"query": "", "msRefresh": sent})).message

    def test_ordinal_as_dotnet_sends_it(self):
        assert operation("SUBSCRIBE", {"query": "select * from X", "queryType": 1}).query_type is QueryType.SQLLIKE

    @pytest.mark.parametrize(("body", "found"), [({"idSuscripcion": "S"}, "S"), ({"idSuscripcion": 5}, "5"), ({}, "")])
    def test_unsubscribe(self, body, found):
        assert operation("UNSUBSCRIBE", body) == Unsubscribe(found)


class TestDevices:
    @pytest.mark.parametrize(
        "body",
        [
            {"kp": "KP", "instanciaKp": "01", "token": "t", "assetService": None, "assetServiceParam": None},
            {"kp": "KP", "instanciaKp": "KP:01", "token": "t", "assetService": None, "assetServiceParam": "{}"},
            {"kp": "KP", "instance": "01", "token": "t", "assetServiceParam": ""},
            {"instance": "KP:01", "token": "t"},
        ],
    )
    def test_config(self, body):
        config = operation("CONFIG", body)
        assert (config.kp, config.instance_name, config.token) == ("KP", "01", "t")
        assert (config.asset_service, config.asset_service_params) == (None, {})

    def test_config_parameters_as_text(self):
        config = operation("CONFIG", {"assetService": "s", "assetServiceParam": '{"a":1}'})
        assert config == Config(None, None, None, "s", {"a": 1})

    def test_a_query_sent_as_config_has_no_token(self):
        body = {"@type": "SSAPBodyQueryMessage", "query": "{a:1}", "queryType": "NATIVE"}
        assert parse("CONFIG", body).operation.token is None

    def test_location(self):
        where = {"accuracy": 90.0, "lat": 10.0, "lon": 4.5, "alt": 0, "bearing": 1, "speed": 2, "timestamp": "t"}
        report = operation(
            "LOCATION", {"thinkp": "KP", "instanciathinkp": "KP:1", "token": "t", "owner": None, **where}
        )
        assert report == DeviceReport(MessageType.LOCATION, "KP", "KP:1", "t", None, where)
        assert report.instance_name == "1"

    @pytest.mark.parametrize(
        ("status", "read"), [(None, {}), ({}, {}), ({"k": "v"}, {"k": "v"}), ('{"k":"v"}', {"k": "v"})]
    )
    def test_status(self, status, read):
        assert operation("STATUS", {"thinkp": "KP", "status": status}).fields == {"status": read}

    @pytest.mark.parametrize(("message_type", "level"), [("LOG", "level"), ("ERROR", "severity")])
    def test_log_and_error(self, message_type, level):
        fields = {level: "INFO", "code": "1", "message": "it's", "timestamp": "2026-11-2403:08:19"}
        report = operation(message_type, {"thinkp": "KP", "instanciathinkp": "1", "token": "t", "owner": "o", **fields})
        assert report == DeviceReport(MessageType(message_type), "KP", "1", "t", "o", fields)

    @pytest.mark.parametrize(("sent", "read"), [("STATUS", "STATUS"), (0, "STATUS"), (None, None)])
    def test_commands(self, sent, read):
        body = {"thinkp": "KP", "thinkpInstance": "KP:1", "token": "t", "type": sent, "args": {"a": "b"}}
        assert operation("COMMAND", body) == Command("KP", "KP:1", read, {"a": "b"})
        assert operation("SUBSCRIBECOMMAND", body) == SubscribeCommand("KP", "KP:1", "t", read)

    def test_command_without_arguments(self):
        assert operation("COMMAND", {"thinkp": "KP", "thinkpInstance": "1", "args": None}).args == {}

    def test_a_name_inside_the_instance_is_not_the_prefix(self):
        assert operation("COMMAND", {"thinkp": "KP", "thinkpInstance": "other:KP:1"}).instance_name == "other:KP:1"


class TestWireForms:
    """Frames of clients that are not among the recorded ones, as their sources write them."""

    ARDUINO = (
        '{"messageId":null,"sessionKey":"K","ontology":%s,"direction":"REQUEST","messageType":"%s",'
        '"persistenceType":"MONGODB","body":%s}'
    )

    @pytest.mark.parametrize(
        ("message_type", "body", "read"),
        [
            ("INSERT", {"data": '{"a":1}', "query": ""}, Insert('{"a":1}', None, QueryType.NATIVE)),
            (
                "UPDATE",
                {"data": "", "query": "db.X.remove({})"},
                Update(None, "db.X.remove({})", QueryType.NATIVE, is_removal=True),
            ),
            ("SUBSCRIBE", {"query": "", "msRefresh": 1000}, Subscribe("", QueryType.NATIVE, 1000)),
            ("QUERY", {"data": "", "query": "{a:1}"}, Query("{a:1}", QueryType.NATIVE)),
        ],
    )
    def test_arduino(self, message_type, body, read):
        payload = self.ARDUINO % ('"X"', message_type, json.dumps(json.dumps(body)))
        request = parse_request(payload, fallback=Dialect.OBJECT)
        assert (request.operation, request.dialect) == (read, Dialect.STRING)

    def test_ios(self):
        payload = (
            '{"body":{"query":"{insert into X(a) values (\'\\/\')}","queryType":"SQLLIKE","queryParams":null},'
            '"direction":"REQUEST","messageId":null,"messageType":"INSERT","ontology":"X","sessionKey":"K"}'
        )
        request = parse_request(payload, fallback=Dialect.STRING)
        assert request.operation == Insert(None, "insert into X(a) values ('/')", QueryType.SQLLIKE)
        assert request.dialect is Dialect.OBJECT

    def test_dotnet_leaves_with_a_body_of_null_and_version_one(self):
        payload = (
            '{"messageId":null,"sessionKey":"K","ontology":null,"messageType":"LEAVE","body":null,"version":"ONE"}'
        )
        request = parse_request(payload, fallback=Dialect.OBJECT)
        assert (request.operation, request.dialect, request.dialect_told) == (Leave(), Dialect.ONE, True)


class TestIgnored:
    @pytest.mark.parametrize(
        "payload",
        [
            b"",
            "",
            " ",
            b"\n\t \r\n",
            b"{}",
            b'{"messageId":"1","clientId":"c","commandMessage":"done"}',
            b'{"body":"{broken"}',
            b'{"body":5,"sessionKey":5}',
        ],
    )
    def test_no_answer(self, payload):
        with pytest.raises(IgnoredPayload):
            parse_request(payload, fallback=Dialect.STRING)


class TestMalformed:
    @pytest.mark.parametrize(
        "payload",
        [
            b'{"messageType":"QUERY"',
            b'{"messageType":"QUERY",}',
            b'{"messageType": "QUERY", "body": {"query": NaN}}',
            b'{"messageType":"QUERY","body":{"x":Infinity}}',
            b'{"messageType":"QUERY","body":"\xff"}',
            b'{"messageType":"QUERY","body":"\\ud800"}',
            b'{"messageType":"QUERY","body":"a\nb"}',
            b'{"messageType":"QUERY","body":{"a":1,"a":2}}',
            b'{"messageType": "QUERY", "messageType": "QUERY"}',
            b'{"messageType":"QUERY","messageType":"QUERY"}',
            b'{"messageType":"QUERY","body":{"x":' + b"[" * 255 + b"]" * 255 + b"}}",
            b'{"messageType":"QUERY","body":' + b"[" * 100_000,
            b'{"messageType":"QUERY","body":' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}",
        ],
    )
    @pytest.mark.parametrize("fallback", Dialect)
    def test_broken_json_takes_the_type_from_the_text(self, payload, fallback):
        error = malformed(payload, fallback)
        shown = Dialect.OBJECT if b'"body":{' in payload.replace(b" ", b"") else Dialect.STRING
        assert error.message_type is MessageType.QUERY
        assert error.dialect in (fallback, shown)
        assert error.ssap_code == "OTHER"

    @pytest.mark.parametrize("fallback", Dialect)
    def test_broken_json_is_answered_in_the_dialect_that_its_body_shows(self, fallback):
        error = malformed(b'{"messageType":"QUERY","messageId":"M","body":{"query":NaN}}', fallback)
        assert (error.dialect, error.request.message_id) == (Dialect.OBJECT, "M")
        assert malformed(b'{"messageType":"QUERY"', fallback).dialect is fallback

    @pytest.mark.parametrize(
        "payload",
        [b"[]", b"5", b'"text"', b"null", b"[1,2", b"}", b"\xff\xfe", b"not json", '{"a":\udc80}', b"\x00", b"{"],
    )
    def test_without_a_type_it_is_none(self, payload):
        assert malformed(payload).message_type is MessageType.NONE

    @pytest.mark.parametrize(
        "body", ["{", "[1", "text", "{'a':1}", '{"a":1,"a":2}', "5", '"{}"', "[]", '{"a":' * 300 + "1" + "}" * 300]
    )
    def test_a_broken_body_keeps_the_envelope(self, body):
        request = malformed(envelope("QUERY", body, messageId="M"), Dialect.OBJECT).request
        assert (request.message_type, request.dialect, request.dialect_told) == (
            MessageType.QUERY,
            Dialect.STRING,
            True,
        )
        assert (request.message_id, request.session_key, request.ontology) == ("M", "K", "X")

    @pytest.mark.parametrize("body", [5, True, [], [{}]])
    def test_a_body_of_the_wrong_kind(self, body):
        assert malformed(envelope("QUERY", body)).message_type is MessageType.QUERY

    @pytest.mark.parametrize("kind", ["DANCE", "join", "", None, 5, ["JOIN"], {"JOIN": 1}, True])
    def test_an_unknown_type_is_none_and_keeps_the_rest(self, kind):
        request = malformed(envelope(kind, {}, messageId="M")).request
        assert (request.message_type, request.message_id, request.session_key) == (MessageType.NONE, "M", "K")
        assert request.dialect is Dialect.OBJECT

    @pytest.mark.parametrize("field", ["sessionKey", "ontology"])
    @pytest.mark.parametrize("value", [5, {}, [], True])
    def test_envelope_fields_of_the_wrong_kind(self, field, value):
        assert field in malformed(envelope("QUERY", {}, **{field: value})).message

    @pytest.mark.parametrize(
        ("message_type", "body"),
        [
            ("JOIN", {"instance": {}}),
            ("JOIN", {"instance": "a", "token": ["t"]}),
            ("QUERY", {"query": 5}),
            ("QUERY", {"query": ["a"]}),
            ("QUERY", {"query": "a", "queryParams": "{"}),
            ("QUERY", {"query": "a", "queryParams": [1]}),
            ("DELETE", {"query": True}),
            ("UNSUBSCRIBE", {"idSuscripcion": {}}),
            ("CONFIG", {"assetServiceParam": "{"}),
            ("STATUS", {"status": 5}),
            ("COMMAND", {"args": []}),
        ],
    )
    def test_body_fields_of_the_wrong_kind(self, message_type, body):
        assert malformed(envelope(message_type, body)).message_type == message_type

    def test_too_long(self):
        payload = envelope("INSERT", {"data": "x" * 3_000_000}).encode()
        error = malformed(payload)
        assert error.message_type is MessageType.INSERT
        assert "1900000" in error.message

    def test_the_limit_is_an_argument(self):
        payload = b'{"messageType":"LEAVE"}'
        assert parse_request(payload, fallback=Dialect.STRING, size_max=len(payload)).operation == Leave()
        with pytest.raises(MalformedRequest):
            parse_request(payload, fallback=Dialect.STRING, size_max=len(payload) - 1)

    def test_a_message_thrown_away_while_reading(self):
        error = oversized(b'{"messageType" : "INSERT","bo', 5_000_000, 1_900_000, fallback=Dialect.ONE)
        assert (error.message_type, error.dialect) == (MessageType.INSERT, Dialect.ONE)
        assert "5000000" in error.message

    @pytest.mark.parametrize(
        ("head", "dialect"),
        [
            ('"body":"{\\"data\\":\\"{', Dialect.STRING),
            ('"body" : {"data":{"messageType":"LEAVE"', Dialect.OBJECT),
            ('"body":{"@type":"SSAPBodyOperationMessage","data":', Dialect.ONE),
            ('"version":"ONE","body":{"data":', Dialect.ONE),
            ('"sess', Dialect.OBJECT),
        ],
    )
    def test_the_head_of_one_thrown_away_says_how_it_is_answered(self, head, dialect):
        start = '{"messageId":"M\\u0031","messageType":"INSERT", "ontology":"Onto","sessionKey":null,'
        request = oversized((start + head).encode(), 9, 5, fallback=Dialect.OBJECT).request
        assert request.dialect is dialect
        assert (request.message_type, request.message_id, request.ontology) == (MessageType.INSERT, "M1", "Onto")

    @pytest.mark.parametrize("head", [b"", b"{", b"{}", b"[1,", b"\xff\xfe", b'{"messageId":{"a":1},"messageType":"JO'])
    def test_a_head_that_says_nothing(self, head):
        error = oversized(head, 9, 5, fallback=Dialect.OBJECT)
        assert (error.message_type, error.dialect) == (MessageType.NONE, Dialect.OBJECT)

    def test_what_is_inside_a_body_is_not_taken_for_the_envelope(self):
        request = oversized(b'{"body":{"messageId":"x","ontology":"y","data":"', 9, 5, fallback=Dialect.ONE).request
        assert (request.message_id, request.ontology) == (None, None)

    @pytest.mark.parametrize(
        "body",
        [
            '{"data":{"S":{"a":123456789012345678901}}}',
            '{"data":[{"a": 18446744073709551616}]}',
            json.dumps('{"data": {"S": {"a": -123456789012345678901}}}'),
        ],
    )
    def test_an_integer_that_would_lose_digits_is_refused(self, body):
        payload = f'{{"messageType":"INSERT","ontology":"S","messageId":"M","body":{body}}}'
        error = malformed(payload)
        assert "64 bits: send it as a string" in error.message
        assert (error.message_type, error.request.message_id) == (MessageType.INSERT, "M")

    def test_it_survives_pickling(self):
        error = pickle.loads(pickle.dumps(malformed(envelope("QUERY", "{", messageId="M"))))
        assert (error.request.message_id, error.message_type) == ("M", MessageType.QUERY)

    @pytest.mark.parametrize(
        "text",
        ['{"a": {"b" : 1}, "c":"\\":"}', '{"a":"\\u0022:","b\\\\":1}', '{ "a" :1, "b" :2}', '{"a":1e5,"é":"\\/"}'],
    )
    def test_odd_spelling_is_no_repeated_key(self, text):
        payload = f'{{"messageType":"CONFIG","body":{{"assetServiceParam":{text}}}}}'
        assert parse_request(payload, fallback=Dialect.STRING).operation.asset_service_params == orjson.loads(text)
