"""REST requests become SSAP requests: every verb and path, every odd parameter."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sib.errors import AuthenticationError, LimitError, MalformedMessageError, SibError, UnsupportedError
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
    Update,
)
from sib.ssap.rest import INSTANCES_PER_POST_MAX, InsertMany, RestCall, read_call

OID = "5a8eaae2e4b06f95860d1e1b"
BY_ID = f'{{"_id":{{"$oid":"{OID}"}}}}'


def call(method: str, tail: str = "", query: str | bytes = b"", body: Any = b"") -> RestCall:
    return read_call(
        method,
        tail,
        query if isinstance(query, bytes) else query.encode(),
        body if isinstance(body, bytes) else json.dumps(body).encode(),
    )


def operation(*args: Any) -> Any:
    return call(*args).request.operation


class TestResource:
    def test_join(self):
        request = call("POST", "", "", {"join": True, "instanceKP": "KP:one", "token": "t"}).request
        assert request.message_type is MessageType.JOIN
        assert request.operation == Join("KP:one", token="t")
        assert (request.session_key, request.dialect, request.dialect_told) == (None, Dialect.STRING, False)

    def test_join_with_all_fields_of_the_java_client(self):
        body = {
            "join": True,
            "leave": False,
            "instanceKP": "KP:one",
            "token": "t",
            "sessionKey": "live",
            "ontology": None,
            "data": None,
            "version": "ONE",
        }
        request = call("POST", "", "", body).request
        assert (request.session_key, request.dialect, request.dialect_told) == ("live", Dialect.ONE, True)

    @pytest.mark.parametrize(
        "body", [{"join": True}, {"join": True, "instanceKP": "KP:one"}, {"join": True, "token": "t"}]
    )
    def test_join_without_instance_or_token(self, body):
        with pytest.raises(MalformedMessageError, match="instanceKP"):
            call("POST", "", "", body)

    def test_join_and_leave_at_once(self):
        with pytest.raises(MalformedMessageError, match="both"):
            call("POST", "", "", {"join": True, "leave": True, "instanceKP": "KP:one", "token": "t"})

    def test_leave(self):
        request = call("POST", "", "", {"leave": True, "sessionKey": "key"}).request
        assert (request.message_type, request.session_key, request.operation) == (MessageType.LEAVE, "key", Leave())

    @pytest.mark.parametrize("data", ['{"Sensor":{"measure":1}}', " {'relaxed': 1}", "not json"])
    def test_insert_hands_the_text_on_as_sent(self, data):
        request = call("POST", "", "", {"sessionKey": "key", "ontology": "O", "data": data}).request
        assert (request.session_key, request.ontology, request.message_id) == ("key", "O", None)
        assert request.operation == Insert(data, None, QueryType.NATIVE)

    def test_insert_of_an_object(self):
        assert operation("POST", "", "", {"sessionKey": "key", "data": {"a": 1}}).data == b'{"a":1}'

    @pytest.mark.parametrize("data", [None, "", "  "])
    def test_insert_without_data(self, data):
        with pytest.raises(MalformedMessageError, match="data is missing"):
            call("POST", "", "", {"sessionKey": "key", "ontology": "O", "data": data})

    @pytest.mark.parametrize("as_text", [False, True])
    def test_insert_of_an_array_of_objects_and_texts(self, as_text):
        data: Any = [{"a": 1}, '{"a":2}', {"a": [3]}]
        body = {"sessionKey": "key", "ontology": "O", "data": json.dumps(data) if as_text else data}
        assert operation("POST", "", "", body) == InsertMany((b'{"a":1}', '{"a":2}', b'{"a":[3]}'))

    def test_an_empty_array_is_refused(self):
        with pytest.raises(MalformedMessageError, match="empty array"):
            call("POST", "", "", {"sessionKey": "key", "data": "[]"})

    def test_an_array_over_the_bound_is_refused_with_the_bound(self):
        with pytest.raises(LimitError, match=str(INSTANCES_PER_POST_MAX)):
            call("POST", "", "", {"sessionKey": "key", "data": [1] * (INSTANCES_PER_POST_MAX + 1)})

    @pytest.mark.parametrize(
        "data",
        [
            f'{{"_id":{{"$oid":"{OID}"}},"Sensor":{{"other":{{"$oid":"000000000000000000000000"}}}}}}',
            f'{{"Sensor":{{"other":{{"$oid":"000000000000000000000000"}}}},"_id":{{"$oid":"{OID}"}}}}',
            f'{{"_id":"{OID}","a":1}}',
            f'{{"_id":ObjectId("{OID}"),"a":1}}',
            f"{{_id:{{'$oid':'{OID}'}},a:{{'$oid':'000000000000000000000000'}}}}",
        ],
    )
    def test_put_selects_by_the_id_in_its_data(self, data):
        request = call("PUT", "", "", {"sessionKey": "key", "ontology": "O", "data": data}).request
        assert request.message_type is MessageType.UPDATE
        assert request.operation == Update(data, BY_ID, QueryType.NATIVE)

    @pytest.mark.parametrize(
        "data", [None, "{}", '{"a":1}', '{"a":{"$oid":"5a8eaae2e4b06f95860d1e1b"}}', '{"_id":"x"}', "[]"]
    )
    def test_put_without_an_id(self, data):
        with pytest.raises(MalformedMessageError):
            call("PUT", "", "", {"sessionKey": "key", "ontology": "O", "data": data})

    @pytest.mark.parametrize(
        "data",
        [
            BY_ID,
            {"_id": {"$oid": OID}},
            f'{{"_id":ObjectId("{OID}")}}',
            f'{{"$oid":"{OID}"}}',
            OID,
            f' {{"_id":"{OID}"}} ',
        ],
    )
    def test_delete_with_a_body(self, data):
        deleted = call("DELETE", "", "", {"sessionKey": "key", "ontology": "O", "data": data})
        assert deleted.request.operation == Delete(BY_ID, QueryType.NATIVE)
        assert deleted.is_one_instance

    def test_delete_without_an_id_is_refused(self):
        with pytest.raises(MalformedMessageError):
            call("DELETE", "", "", {"sessionKey": "key", "ontology": "O", "data": "{}"})

    @pytest.mark.parametrize("tail", [OID, OID.upper(), BY_ID, f'ObjectId("{OID}")'])
    def test_one_instance_by_path(self, tail):
        deleted = call("DELETE", tail, "$sessionKey=key&$ontology=O")
        assert deleted.request.operation == Delete(BY_ID, QueryType.NATIVE)
        assert (deleted.request.session_key, deleted.request.ontology) == ("key", "O")
        assert operation("GET", tail, "$sessionKey=key&$ontology=O") == Query(BY_ID, QueryType.NATIVE)

    def test_a_path_that_is_no_id_matches_nothing(self):
        assert operation("GET", 'no"id') == Query('{"_id":"no\\"id"}', QueryType.NATIVE)

    @pytest.mark.parametrize(
        "body",
        [b"", b"[]", b"1", b"null", b"{", b"\xff\xfe", b'{"a":NaN}', b'{"join":true,"join":true}', b"[" * 5000],
    )
    @pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
    def test_malformed_bodies(self, method, body):
        with pytest.raises(MalformedMessageError):
            call(method, "", "", body)

    @pytest.mark.parametrize("field", ["sessionKey", "ontology"])
    def test_fields_of_a_wrong_type(self, field):
        with pytest.raises(MalformedMessageError, match="must be strings"):
            call("POST", "", "", {"data": "{}", field: 5})


class TestQuery:
    def test_the_default_is_sql_like(self):
        request = call("GET", "", "$sessionKey=key&$ontology=O&$query=select+*+from+O").request
        assert request.operation == Query("select * from O", QueryType.SQLLIKE)
        assert (request.session_key, request.ontology) == ("key", "O")

    @pytest.mark.parametrize("odd", ["", "null"])
    def test_odd_parameters_are_as_if_missing(self, odd):
        query = f"$sessionKey=key&$ontology={odd}&$query=select 1&$queryArguments={odd}&$queryType={odd}"
        request = call("GET", "", query).request
        assert request.ontology is None
        assert request.operation == Query("select 1", QueryType.SQLLIKE)

    @pytest.mark.parametrize(
        ("spelling", "kind"),
        [
            ("NATIVE", QueryType.NATIVE),
            ("native", QueryType.NATIVE),
            ("1", QueryType.SQLLIKE),
            ("HDB", QueryType.BDH),
            ("SIB_DEFINED", QueryType.SIB_DEFINED),
        ],
    )
    def test_query_types(self, spelling, kind):
        assert operation("GET", "", f"$query=x&$queryType={spelling}").query_type is kind

    def test_an_unknown_query_type_is_refused_with_the_known_ones(self):
        with pytest.raises(MalformedMessageError, match="NATIVE"):
            call("GET", "", "$query=x&$queryType=SPARQL")

    @pytest.mark.parametrize("empty", ["", "{}"])
    def test_an_empty_native_query(self, empty):
        assert operation("GET", "", f"$query={empty}&$queryType=NATIVE").query == ""

    def test_a_missing_query_is_refused(self):
        with pytest.raises(MalformedMessageError, match=r"\$query"):
            call("GET", "", "$sessionKey=key")

    @pytest.mark.parametrize(
        "text",
        [
            'db.X.find({"_id":{"$oid":"x"}}).limit(1)',
            "select * from X where a='b&c' and d=\"e&query=f\"",
            "select a from X where n<5 and s like 'x%y|z'",
            "{Sensor.measure:{$gt:10}}",
            "select * from X where a='ñ€'",
        ],
    )
    def test_raw_and_encoded_texts_are_the_same(self, text):
        raw = "$sessionKey=k&$query=" + text.replace(" ", "+") + "&$queryType=NATIVE"
        encoded = "%24sessionKey=k&%24query=" + quote(text, safe="") + "&%24queryType=NATIVE"
        assert operation("GET", "", raw) == operation("GET", "", encoded) == Query(text, QueryType.NATIVE)

    def test_latin_1_as_node_sends_it(self):
        query = b"$query=select * from X where a='a\xf1o'"
        assert operation("GET", "", query).query == "select * from X where a='año'"

    def test_foreign_parameters_are_ignored(self):
        assert operation("GET", "", "_=123&$query=x&callback=f&$sessionKey=k") == Query("x", QueryType.SQLLIKE)

    @pytest.mark.parametrize(
        "arguments",
        ['{"PARAM1":"v","n":"2"}', "PARAM1=v,n=2", "PARAM1=v;n=2", "PARAM1=v|n=2", '{"PARAM1":"\\"v\\"","n":2}'],
    )
    def test_arguments_of_a_stored_query(self, arguments):
        query = f"$query=stored&$queryType=SIB_DEFINED&$queryArguments={quote(arguments)}"
        assert operation("GET", "", query) == Query("stored", QueryType.SIB_DEFINED, {"PARAM1": "v", "n": "2"})

    @pytest.mark.parametrize("arguments", ["{broken", "neither", "=v"])
    def test_unreadable_arguments(self, arguments):
        with pytest.raises(MalformedMessageError):
            call("GET", "", f"$query=stored&$queryArguments={arguments}")

    @given(st.binary(max_size=200), st.sampled_from(["", "subscribe", "config", "unsubscribe", OID]))
    def test_any_query_string_is_read_or_refused(self, query, tail):
        try:
            call("GET", tail, query)
        except SibError:
            pass

    @given(
        st.binary(max_size=200), st.sampled_from(["POST", "PUT", "DELETE"]), st.sampled_from(["", "status", "command"])
    )
    def test_any_body_is_read_or_refused(self, body, method, tail):
        try:
            call(method, tail, b"", body)
        except SibError:
            pass

    @pytest.mark.parametrize("piece", ["&", "&'", '&"a', "&$query='", " ", "+", "%", "{", "_id:"])
    def test_long_targets_and_bodies_take_no_long_time(self, piece):
        """Quadratic reading would take minutes here, the test's time-out is far below."""
        text = "$query='" + piece * (250_000 // len(piece))
        call("GET", "", text)
        call("GET", text)
        for method in ("PUT", "DELETE"):
            with pytest.raises(MalformedMessageError):
                call(method, "", "", {"sessionKey": "k", "data": piece * 500_000})


class TestSubPaths:
    def test_config(self):
        query = '$kp=KP&$instanciakp=KP:one&$token=t&$assetService=s&$assetServiceParam={"a":1}'
        assert operation("GET", "config", query) == Config("KP", "KP:one", "t", "s", {"a": 1})

    @pytest.mark.parametrize("endpoint", ["http://h:9/p?a=1&b=2", quote("http://h:9/p?a=1&b=2", safe="")])
    def test_subscribe_with_a_raw_or_encoded_endpoint(self, endpoint):
        query = (
            "$sessionKey=k&$ontology=O&$query=select * from O&$msRefresh=1000&$queryArguments=null"
            f"&$endpoint={endpoint}&$queryType=SQLLIKE"
        )
        read = call("GET", "subscribe", query)
        assert read.request.message_type is MessageType.SUBSCRIBE
        assert read.request.operation == Subscribe("select * from O", QueryType.SQLLIKE, 1000)
        assert read.endpoint == "http://h:9/p?a=1&b=2"

    def test_a_raw_endpoint_keeps_its_own_escapes(self):
        assert call("GET", "subscribe", "$query=x&$endpoint=http://h/a%20b?c=%26").endpoint == "http://h/a%20b?c=%26"

    @pytest.mark.parametrize("query", ["$query=x", "$query=x&$endpoint=", "$endpoint=http://h/"])
    def test_subscribe_needs_query_and_endpoint(self, query):
        with pytest.raises(MalformedMessageError, match="missing"):
            call("GET", "subscribe", f"$sessionKey=k&{query}")

    @pytest.mark.parametrize(
        ("method", "tail", "query", "body"),
        [
            ("GET", "", "", b""),
            ("GET", "", "$sessionKey=&$ontology=O", b""),
            ("GET", "subscribe", "$query=x", b""),
            ("GET", "unsubscribe", "", b""),
            ("POST", "", "", {"ontology": "O"}),
            ("PUT", "", "", {"ontology": "O", "data": "{}"}),
        ],
    )
    def test_without_a_session_a_missing_part_is_not_what_is_told(self, method, tail, query, body):
        with pytest.raises(AuthenticationError, match="no session key"):
            call(method, tail, query, body)

    def test_a_device_with_a_token_needs_no_session_to_be_told_what_is_missing(self):
        with pytest.raises(MalformedMessageError, match="endpoint is missing"):
            call("GET", "subscribe_command", "$token=t")

    @pytest.mark.parametrize("refresh", ["x", "-1", "99999999999"])
    def test_subscribe_with_a_bad_refresh_time(self, refresh):
        with pytest.raises(MalformedMessageError, match="msRefresh"):
            call("GET", "subscribe", f"$query=x&$endpoint=http://h/&$msRefresh={refresh}")

    def test_unsubscribe(self):
        assert operation("GET", "unsubscribe", "$sessionKey=k&$subscriptionId=s") == Unsubscribe("s")
        with pytest.raises(MalformedMessageError, match=r"\$subscriptionId"):
            call("GET", "unsubscribe", "$sessionKey=k")

    def test_status(self):
        query = "$thinkp=KP&$kp=one&$token=t&$owner=o&$timestamp=2016-01-01-00:00:00"
        fields = {"timestamp": "2016-01-01-00:00:00", "status": {"k": "v"}}
        assert operation("POST", "status", query, {"k": "v"}) == DeviceReport(
            MessageType.STATUS, "KP", "one", "t", "o", fields
        )

    @pytest.mark.parametrize("body", [b"", b"null", b"{}"])
    def test_status_without_a_body(self, body):
        assert operation("POST", "status", "$thinkp=KP", body).fields["status"] == {}

    def test_location_with_the_decimal_comma_of_dotnet(self):
        query = (
            "$thinkp=KP&$kp=one&$token=t&$accuracy=1&$lat=40,5&$lon=-3.6&$alt=600&$bearing=0&$speed=fast&$timestamp=t"
        )
        assert operation("POST", "location", query).fields == {
            "accuracy": 1.0,
            "lat": 40.5,
            "lon": -3.6,
            "alt": 600.0,
            "bearing": 0.0,
            "speed": "fast",
            "timestamp": "t",
        }

    @pytest.mark.parametrize(("tail", "kind"), [("error", MessageType.ERROR), ("log", MessageType.LOG)])
    def test_error_and_log(self, tail, kind):
        query = "$thinkp=KP&$kp=one&$token=t&$owner=o&$code=7&$message=it+broke&$timestamp=t&$severity=CRITICAL"
        report = operation("POST", tail, query)
        assert (report.kind, report.kp, report.instance) == (kind, "KP", "one")
        assert (report.fields["message"], report.fields["severity"]) == ("it broke", "CRITICAL")

    def test_a_log_has_a_level(self):
        assert operation("POST", "log", "$thinkp=KP&$severity=INFO").fields["level"] == "INFO"

    def test_command(self):
        read = call("POST", "command", "$sessionKey=k&$thinkp=KP&$kp=one&$type=STATUS", {"a": "b"})
        assert read.request.session_key == "k"
        assert read.request.operation == Command("KP", "one", "STATUS", {"a": "b"})

    def test_subscribe_command(self):
        read = call("GET", "subscribe_command", "$thinkp=KP&$kp=one&$token=t&$type=STATUS&$endpoint=http://h/")
        assert read.request.operation == SubscribeCommand("KP", "one", "t", "STATUS")
        assert read.endpoint == "http://h/"

    @pytest.mark.parametrize(
        ("method", "tail"),
        [
            ("POST", "config"),
            ("POST", "subscribe"),
            ("DELETE", "unsubscribe"),
            ("GET", "status"),
            ("GET", "command"),
            ("POST", OID),
            ("PUT", OID),
            ("PATCH", ""),
            ("OPTIONS", ""),
        ],
    )
    def test_other_verbs_are_refused(self, method, tail):
        with pytest.raises(UnsupportedError):
            call(method, tail, "", {})

    def test_no_secret_is_shown(self):
        shown = repr(call("POST", "", "", {"join": True, "instanceKP": "KP:one", "token": "s3cret"}))
        assert "s3cret" not in shown
