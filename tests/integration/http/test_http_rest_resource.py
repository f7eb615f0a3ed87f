"""The REST resource over real HTTP: verbs, paths, raw targets, status codes."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from sib.errors import OverloadedError, StoreUnavailableError
from sib.ssap.answers import Answer, Rows
from sib.ssap.messages import MessageType, QueryType
from sib.ssap.rest import InsertMany

OID = "5a8eaae2e4b06f95860d1e1b"
REST = "/sib/services/api_ssap/v01/SSAPResource"
PATHS = [
    REST,
    REST + "/",
    REST.replace("/v01", "//v01"),
    REST.replace("v01", "v01.0"),
    REST.replace("v01", "v01.0") + "/",
    REST.replace("api_ssap", "ssap"),
]


@pytest.mark.parametrize("path", PATHS)
async def test_join_answers_directly_on_every_spelling_of_the_path(client: httpx.AsyncClient, path: str) -> None:
    answer = await client.post(path, json={"join": True, "instanceKP": "KP:one", "token": "t"})
    assert answer.status_code == 200
    assert answer.text == '{"join":false,"leave":false,"sessionKey":"new-key","data":null}'


async def test_insert_legacy_answers_the_old_id_as_a_string(client: httpx.AsyncClient, gateway: Any) -> None:
    data = '{"Sensor":{"measure":1}}'
    answer = await client.post(REST, json={"sessionKey": "key", "ontology": "O", "data": data})
    assert answer.json() == {"join": False, "leave": False, "data": f'{{"_id":ObjectId("{OID}")}}'}
    request, origin = gateway.router.calls[0]
    assert (request.session_key, request.ontology, request.operation.data) == ("key", "O", data)
    assert (origin.kind, origin.peer) == ("rest", "127.0.0.1")


async def test_insert_in_a_session_that_joined_as_one_answers_an_object(client: httpx.AsyncClient) -> None:
    answer = await client.post(REST, json={"sessionKey": "one-key", "ontology": "O", "data": "{}"})
    assert answer.json() == {"join": False, "leave": False, "data": {"_id": {"$oid": OID}}, "version": "ONE"}


async def test_post_of_an_array_asks_for_all_or_none(client: httpx.AsyncClient, gateway: Any) -> None:
    answer = await client.post(REST, json={"sessionKey": "key", "ontology": "O", "data": [{"a": 1}, '{"a":2}']})
    assert answer.json()["data"] == (
        '{"_ids":[{"_id":ObjectId("5a8eaae2e4b06f95860d1e1b")},{"_id":ObjectId("5a8eaae2e4b06f95860d1e1c")}]}'
    )
    assert gateway.router.calls[0][0].operation == InsertMany((b'{"a":1}', '{"a":2}'))


async def test_put_and_delete(client: httpx.AsyncClient) -> None:
    data = f'{{"_id":{{"$oid":"{OID}"}},"Sensor":{{}}}}'
    body = {"sessionKey": "key", "ontology": "O", "data": data}
    ids = f'{{"_ids":[{{"_id":ObjectId("{OID}")}}]}}'
    assert (await client.put(REST + "/", json=body)).json()["data"] == ids
    assert (await client.request("DELETE", REST, json=body)).json()["data"] == ids
    parameters = {"$sessionKey": "key", "$ontology": "O"}
    assert (await client.delete(f"{REST}/{OID}", params=parameters)).json()["data"] == ids
    assert (await client.delete(f"{REST}/{OID}/", params=parameters)).status_code == 200


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
async def test_get_with_everything_raw_in_the_target(connect: Any, gateway: Any, encoding: str) -> None:
    connection = await connect()
    query = "{select+*+from+O+where+a=\"x&y\"|b='ñ#'}"
    target = f"{REST}?$sessionKey=key&$query={query}&$queryType=SQLLIKE&$queryArguments=null"
    await connection.send(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode(encoding))
    status, headers, body = await connection.read_answer()
    assert (status, body) == (200, b'{"join":false,"leave":false,"data":"[ ]"}')
    assert headers["content-type"] == "application/json"
    assert "server" not in headers
    operation = gateway.router.calls[0][0].operation
    assert (operation.query, operation.query_type) == ("select * from O where a=\"x&y\"|b='ñ#'", QueryType.SQLLIKE)


@pytest.mark.parametrize("target", ["$query=select * from O where a='ñ # b'", "$query=db.O.find({ })"])
async def test_raw_blanks_are_tolerated_in_a_target(connect: Any, gateway: Any, target: str) -> None:
    connection = await connect()
    for _ in range(2):
        await connection.send(f"GET {REST}?{target}&$queryType=NATIVE HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert (await connection.read_answer())[0] == 200
    assert [request.operation.query for request, _ in gateway.router.calls] == [target.removeprefix("$query=")] * 2


@pytest.mark.parametrize("raw", list("\"{}*=<>|\\^`[]()$,;:@!'~%"))
async def test_each_raw_character_is_tolerated_in_a_target(connect: Any, gateway: Any, raw: str) -> None:
    connection = await connect()
    await connection.send(f"GET {REST}?$sessionKey=key&$queryType=NATIVE&$query=a{raw}b HTTP/1.1\r\n\r\n".encode())
    status, _, _ = await connection.read_answer()
    assert status == 200
    assert gateway.router.calls[0][0].operation.query == f"a{raw}b"


async def test_rows_of_a_one_session_are_json(client: httpx.AsyncClient, gateway: Any) -> None:
    gateway.router.answers[MessageType.QUERY] = Answer(Rows(legacy="[ {}]", one=b'[{"_id":{"$oid":"x"}}]'))
    answer = await client.get(REST, params={"$sessionKey": "one", "$query": "select * from O"})
    assert answer.json()["data"] == [{"_id": {"$oid": "x"}}]


async def test_sub_paths_go_before_the_instance(client: httpx.AsyncClient, gateway: Any) -> None:
    parameters = {
        "$sessionKey": "key",
        "$ontology": "O",
        "$query": "select * from O",
        "$msRefresh": "0",
        "$endpoint": "http://127.0.0.1:9/x",
    }
    answer = await client.get(REST + "/subscribe/", params=parameters)
    assert answer.json() == {"join": False, "leave": False, "data": "subscription-1"}
    assert gateway.router.calls[0][1].endpoint == "http://127.0.0.1:9/x"
    answer = await client.get(REST + "/unsubscribe", params={"$sessionKey": "key", "$subscriptionId": "s"})
    assert answer.json()["data"] == ""


@pytest.mark.parametrize("endpoint", ["ftp://h/x", "nothing", "http://", "http://10.1.2.3/x", "http://user:pw@h/"])
async def test_an_endpoint_that_can_never_be_called_is_refused(client: httpx.AsyncClient, endpoint: str) -> None:
    parameters = {"$sessionKey": "key", "$query": "select * from O", "$endpoint": endpoint}
    answer = await client.get(REST + "/subscribe", params=parameters)
    assert answer.status_code == 400
    assert answer.json()["errorCode"] == "OTHER"


async def test_a_dead_session_is_401(client: httpx.AsyncClient) -> None:
    answer = await client.post(REST, json={"sessionKey": "dead", "ontology": "O", "data": "{}"})
    assert answer.status_code == 401
    assert answer.json()["errorCode"] == "AUTENTICATION"


@pytest.mark.parametrize(
    ("error", "code"), [(StoreUnavailableError("down"), "PERSISTENCE"), (OverloadedError("full"), "OTHER")]
)
async def test_a_bound_is_503_with_retry_after(client: httpx.AsyncClient, gateway: Any, error: Any, code: str) -> None:
    gateway.router.error = error
    answer = await client.post(REST, json={"sessionKey": "key", "ontology": "O", "data": "{}"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert answer.json()["errorCode"] == code


async def test_our_own_fault_is_500_and_shows_nothing(client: httpx.AsyncClient, gateway: Any) -> None:
    gateway.router.error = RuntimeError("secret")
    answer = await client.post(REST, json={"sessionKey": "key", "ontology": "O", "data": "{}"})
    assert answer.status_code == 500
    assert answer.json()["errorCode"] == "OTHER"
    assert "secret" not in answer.text


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"null", b"\xff", b'{"a":NaN}', b'{"join":true,"join":true}'])
async def test_malformed_bodies_are_400(client: httpx.AsyncClient, body: bytes) -> None:
    answer = await client.post(REST, content=body)
    assert answer.status_code == 400
    assert answer.json()["errorCode"] == "OTHER"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PATCH", REST),
        ("OPTIONS", REST),
        ("POST", REST + "/unknown"),
        ("POST", REST + "/config"),
        ("PUT", REST + "/x/y"),
    ],
)
async def test_other_verbs_are_400(client: httpx.AsyncClient, method: str, path: str) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == 400
    assert answer.json()["errorCode"] == "OTHER"


async def test_a_body_over_the_limit_is_answered_and_the_connection_goes_on(connect: Any, gateway: Any) -> None:
    connection = await connect()
    size = gateway.limits.message_bytes_max * 3
    await connection.send(b"POST %b HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % (REST.encode(), size))
    await connection.send(b"x" * size)
    status, _, body = await connection.read_answer()
    assert status == 400
    assert str(size).encode() in body
    await connection.send(f"GET {REST}?$sessionKey=key&$query=x HTTP/1.1\r\n\r\n".encode())
    assert (await connection.read_answer())[0] == 200


async def test_a_chunked_body_is_read(connect: Any, gateway: Any) -> None:
    connection = await connect()
    body = b'{"join":true,"instanceKP":"KP:i","token":"t"}'
    await connection.send(f"POST {REST} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    for piece in (body[:7], body[7:]):
        await connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
    await connection.send(b"0\r\n\r\n")
    assert (await connection.read_answer())[0] == 200


async def test_pipelined_requests_are_answered_in_order(connect: Any, gateway: Any) -> None:
    connection = await connect()
    for key in ("key", "dead", "key"):
        await connection.send(f"GET {REST}?$sessionKey={key}&$query=x HTTP/1.1\r\n\r\n".encode())
    assert [(await connection.read_answer())[0] for _ in range(3)] == [200, 401, 200]
