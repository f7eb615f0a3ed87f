"""The KP client without a network: a transport that a test plays."""

import asyncio
import logging

import orjson
import pytest

from sib.errors import AuthenticationError, ConfigurationError, StoreError
from sofia2 import KP
from sofia2.kp import ConnectionLostError, RequestTimeoutError
from sofia2.kp.connectors import connector_of
from sofia2.kp.messages import query_type, read_reply
from sofia2.kp.mqtt import MqttConnector
from sofia2.kp.websocket import WebSocketConnector


class FakePlatform:
    """Answers in order; a test may hold answers back, lose the connection, or refuse."""

    needs_join = True

    def __init__(self):
        self.connections = []
        self.requests = []
        self.refused_keys = set()
        self.is_silent = False
        self.is_down = False
        self.joins = 0
        self.refuse_joins = False
        self.subscriptions = 0

    async def connect(self):
        if self.is_down:
            raise ConnectionLostError("down")
        self.connections.append(FakeTransport(self))
        return self.connections[-1]

    def answer(self, request):
        kind, body = request["messageType"], request["body"]
        key = request["sessionKey"]
        if kind == "JOIN":
            if self.refuse_joins or (key is not None and key in self.refused_keys):
                return self.reply(request, None, code="AUTENTICATION", key=None)
            self.joins += key is None
            key = key or f"key{self.joins}"
            return self.reply(request, key, key=key)
        if key in self.refused_keys:
            return self.reply(request, None, code="AUTENTICATION")
        if kind == "SUBSCRIBE":
            self.subscriptions += 1
            return self.reply(request, f"sub{self.subscriptions}")
        if kind == "INSERT" and "bad" in body["data"]:
            return self.reply(request, None, code="PERSISTENCE")
        if kind == "INSERT":
            return self.reply(request, {"_id": {"$oid": f"{len(self.requests):024x}"}})
        return self.reply(request, [body.get("query")] if kind == "QUERY" else "")

    @staticmethod
    def reply(request, data, *, code=None, key="same"):
        body = {
            "@type": "SSAPBodyReturnMessage",
            "data": data,
            "ok": code is None,
            "error": code and "no: because",
            "errorCode": code,
        }
        session_key = request["sessionKey"] if key == "same" else key
        return {**request, "sessionKey": session_key, "direction": "RESPONSE", "body": body}


class FakeTransport:
    def __init__(self, platform):
        self.platform = platform
        self.queue = asyncio.Queue()
        self.is_lost = False

    async def send(self, payload):
        if self.is_lost:
            raise ConnectionLostError("lost")
        request = orjson.loads(payload)
        self.platform.requests.append(request)
        if not self.platform.is_silent:
            self.queue.put_nowait(orjson.dumps(self.platform.answer(request)))

    async def receive(self):
        payload = await self.queue.get()
        if payload is None:
            raise ConnectionLostError("lost")
        return payload

    def notify(self, id_, rows):
        body = {"data": rows, "ok": True, "error": None, "errorCode": None}
        self.queue.put_nowait(
            orjson.dumps({"messageId": id_, "messageType": "INDICATION", "sessionKey": "k", "body": body})
        )

    def lose(self):
        self.is_lost = True
        self.queue.put_nowait(None)

    async def close(self):
        self.lose()


@pytest.fixture
def platform():
    return FakePlatform()


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr("sofia2.kp.connection.BACK_OFF_S", 0.001)


def kp_on(platform, **options):
    return KP(
        connector=platform, kp="K:i", token="the-secret-token", timeout_s=options.pop("timeout_s", 1.0), **options
    )


async def test_requests_are_pipelined_and_answered_in_order(platform):
    async with kp_on(platform) as kp:
        answers = await asyncio.gather(*(kp.query(str(number), "O") for number in range(50)))
        assert answers == [[str(number)] for number in range(50)]
    assert [request["messageType"] for request in platform.requests] == ["JOIN", *["QUERY"] * 50, "LEAVE"]
    assert all(request["version"] == "ONE" and "@type" in request["body"] for request in platform.requests)


async def test_a_refusal_keeps_the_sentence_and_the_others(platform):
    async with kp_on(platform) as kp:
        results = await asyncio.gather(
            kp.insert("O", {"a": 1}), kp.insert("O", {"bad": 1}), kp.insert("O", {"a": 1}), return_exceptions=True
        )
        assert isinstance(results[1], StoreError)
        assert results[1].message == "no: because"
        assert len(results[0]) == len(results[2]) == 24


async def test_an_answer_that_comes_too_late_is_not_given_to_the_next_request(platform):
    async with kp_on(platform, timeout_s=0.05) as kp:
        platform.is_silent = True
        with pytest.raises(RequestTimeoutError):
            await kp.query("late", "O")
        platform.is_silent = False
        transport = platform.connections[-1]
        second = asyncio.create_task(kp.query("next", "O"))
        await asyncio.sleep(0)
        late = platform.answer(next(request for request in platform.requests if request["body"].get("query") == "late"))
        waiting = []
        while not transport.queue.empty():
            waiting.append(transport.queue.get_nowait())
        for payload in [orjson.dumps(late), *waiting]:
            transport.queue.put_nowait(payload)
        assert await second == ["next"]


async def test_a_lost_session_is_opened_again_once_for_all_requests(platform):
    async with kp_on(platform) as kp:
        subscription = kp.subscribe("O")
        async with subscription:
            assert subscription.id == "sub1"
            platform.refused_keys.add("key1")
            await asyncio.gather(*(kp.insert("O", {"a": number}) for number in range(20)))
            assert (kp.session_key, platform.joins, subscription.id) == ("key2", 2, "sub2")
            platform.connections[-1].notify("sub2", [{"a": 1}, {"a": 2}])
            assert [await anext(subscription), await anext(subscription)] == [{"a": 1}, {"a": 2}]


async def test_a_session_that_is_refused_for_good(platform):
    async with kp_on(platform) as kp:
        platform.refused_keys.add("key1")
        platform.refuse_joins = True
        with pytest.raises(AuthenticationError):
            await kp.query("x", "O")


async def test_a_read_survives_a_lost_connection_and_a_write_does_not(platform):
    async with kp_on(platform, timeout_s=5) as kp:
        platform.is_silent = True
        read, write = asyncio.create_task(kp.query("x", "O")), asyncio.create_task(kp.insert("O", {"a": 1}))
        await asyncio.sleep(0.01)
        platform.is_silent = False
        platform.connections[-1].lose()
        assert await read == ["x"]
        with pytest.raises(ConnectionLostError):
            await write
        assert kp.session_key == "key1"
        assert len(platform.connections) == 2


async def test_it_keeps_trying_while_the_platform_is_down(platform):
    async with kp_on(platform, timeout_s=5) as kp, kp.subscribe("O") as subscription:
        platform.is_down = True
        platform.connections[-1].lose()
        query = asyncio.create_task(kp.query("x", "O"))
        await asyncio.sleep(0.05)
        assert not query.done()
        platform.refused_keys.add("key1")
        platform.is_down = False
        assert await query == ["x"]
        assert (kp.session_key, subscription.id) == ("key2", "sub2")


async def test_a_join_refused_while_connecting_again_ends_everything(platform):
    async with kp_on(platform) as kp:
        subscription = kp.subscribe("O")
        await subscription.__aenter__()
        platform.refuse_joins = True
        platform.connections[-1].lose()
        with pytest.raises(AuthenticationError):
            await anext(subscription)
        with pytest.raises(AuthenticationError):
            await kp.query("x", "O")


async def test_notifications_directly_behind_the_answer_are_not_lost(platform):
    async with kp_on(platform) as kp:
        subscription = kp.subscribe("O")
        task = asyncio.create_task(subscription.__aenter__())
        while not any(request["messageType"] == "SUBSCRIBE" for request in platform.requests):
            await asyncio.sleep(0)
        platform.connections[-1].notify("sub1", [1, 2, 3])
        await task
        assert [await anext(subscription) for _ in range(3)] == [1, 2, 3]


async def test_the_queue_of_a_subscription_is_bounded(platform):
    async with kp_on(platform) as kp, kp.subscribe("O", queue_max=3) as subscription:
        platform.connections[-1].notify("sub1", list(range(10)))
        await asyncio.sleep(0.01)
        assert subscription.dropped == 7
        assert [await anext(subscription) for _ in range(3)] == [7, 8, 9]


async def test_unsubscribe_and_leave_are_sent(platform):
    async with kp_on(platform) as kp, kp.subscribe("O"):
        pass
    kinds = [request["messageType"] for request in platform.requests]
    assert kinds == ["JOIN", "SUBSCRIBE", "UNSUBSCRIBE", "LEAVE"]
    assert platform.requests[2]["body"]["idSuscripcion"] == "sub1"


async def test_secrets_are_in_no_repr_and_no_log(platform, caplog):
    caplog.set_level(logging.DEBUG)
    async with kp_on(platform, cipher_key=None) as kp:
        assert repr(kp) == "KP(K:i)"
        platform.connections[-1].lose()
        await kp.query("x", "O")
    assert "the-secret-token" not in caplog.text


async def test_garbage_from_the_other_end_is_passed_over(platform):
    async with kp_on(platform) as kp:
        for payload in (b"", b"{", b"[]", b'{"messageType":"QUERY"}', b'{"messageType":"QUERY","body":{"ok":true}}'):
            platform.connections[-1].queue.put_nowait(payload)
        assert await kp.query("x", "O") == ["x"]


@pytest.mark.parametrize(("url", "kind"), [
    ("mqtt://h", MqttConnector), ("mqtt://h:1883", MqttConnector), ("mqtt://u:p@h:1", MqttConnector), ("mqtts://h", MqttConnector),
    ("ws://h/sib/api_websocket/", WebSocketConnector), ("http://h:8080", WebSocketConnector), ("https://h", WebSocketConnector),
])  # fmt: skip
def test_connectors(url, kind):
    assert isinstance(connector_of(url), kind)


def test_credentials_of_a_url_stay_out_of_messages():
    assert connector_of("ws://user:password@host:1/x")._url == "ws://host:1/x"


@pytest.mark.parametrize("url", ["", "ftp://h", "mqtt://", "host:1883", None])
def test_what_is_no_url_is_refused(url):
    with pytest.raises(ConfigurationError):
        KP(url, "K:i", token="t")


def test_a_kp_needs_a_name():
    with pytest.raises(ConfigurationError):
        KP("mqtt://h", token="t")


@pytest.mark.parametrize(("text", "given", "kind"), [
    ("select 1", None, "SQLLIKE"), ("  UPDATE x set", None, "SQLLIKE"), ("{a:1}", None, "NATIVE"), ("", None, "NATIVE"),
    ("db.X.find()", None, "NATIVE"), ("name", "SIB_DEFINED", "SIB_DEFINED"),
])  # fmt: skip
def test_the_type_of_a_query(text, given, kind):
    assert query_type(text, given) == kind


def test_replies_of_every_dialect_are_read():
    inner = '{"data":"x","ok":true,"error":null,"errorCode":null}'
    for body in (inner, '"' + inner.replace('"', '\\"') + '"'):
        reply = read_reply(f'{{"messageId":null,"messageType":"QUERY","sessionKey":"k","body":{body}}}')
        assert (reply.data, reply.error, reply.session_key) == ("x", None, "k")
