"""Published clients against our listeners: paho-mqtt and gmqtt, in the clear, over TLS, with a password."""

from __future__ import annotations

import asyncio
import queue
import ssl

import paho.mqtt.client as paho
import pytest
import trustme
from gmqtt import Client as GmqttClient
from gmqtt.mqtt.constants import MQTTv50, MQTTv311

from sib.mqtt.kp_topics import ANSWER, own_topic

WAIT_S = 5


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def server_tls(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def client_tls(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(context)
    return context


def paho_round(port, version, *, tls=None, transport="tcp"):
    """Connect, subscribe, send at each QoS, disconnect; returns the answers. Runs in a thread."""
    events = queue.Queue()
    client = paho.Client(
        paho.CallbackAPIVersion.VERSION2, client_id=f"paho{version}", protocol=version, transport=transport
    )
    client.on_connect = lambda *_: events.put("connected")
    client.on_subscribe = lambda *_: events.put("subscribed")
    client.on_message = lambda _client, _data, message: events.put(message.payload)
    if tls is not None:
        client.tls_set_context(tls)
    client.connect("localhost", port)
    client.loop_start()
    try:
        assert events.get(timeout=WAIT_S) == "connected"
        client.subscribe(own_topic(ANSWER, f"paho{version}"), 2)
        assert events.get(timeout=WAIT_S) == "subscribed"
        answers = []
        for qos in (0, 1, 2):
            sent = client.publish("CLIENT_TOPIC", b"%d" % qos, qos=qos)
            answers.append(events.get(timeout=WAIT_S))
            sent.wait_for_publish(WAIT_S)
            assert sent.is_published()
        return answers
    finally:
        client.disconnect()
        client.loop_stop()


@pytest.mark.parametrize("version", [paho.MQTTv31, paho.MQTTv311, paho.MQTTv5])
@pytest.mark.parametrize("is_tls", [False, True], ids=["tcp", "tls"])
async def test_paho(serve, server_tls, client_tls, version, is_tls):
    server = await serve(ssl_context=server_tls if is_tls else None)
    answers = await asyncio.to_thread(paho_round, server.port, version, tls=client_tls if is_tls else None)
    assert answers == [b"answer to 0", b"answer to 1", b"answer to 2"]
    await server.until(lambda: not server.endpoint.connections)
    assert server.endpoint.stats.protocol_errors == 0


@pytest.mark.parametrize("version", [MQTTv311, MQTTv50])
async def test_gmqtt(serve, version):
    server = await serve()
    client = GmqttClient("gm", clean_session=True)
    answers: asyncio.Queue[bytes] = asyncio.Queue()
    subscribed = asyncio.Event()
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = lambda _client, _topic, payload, _qos, _properties: answers.put_nowait(payload)
    await client.connect("127.0.0.1", server.port, version=version)
    client.subscribe(own_topic(ANSWER, "gm"), qos=1)
    async with asyncio.timeout(WAIT_S):
        await subscribed.wait()
        for qos in (0, 1, 2):
            client.publish("SSAP-REQUEST", b"%d" % qos, qos=qos)
            assert await answers.get() == b"answer to %d" % qos
    await client.disconnect()


async def test_two_gmqtt_clients_talk_where_pubsub_is_on(serve):
    server = await serve(ssap=False, pubsub=True)
    one, other = GmqttClient("one"), GmqttClient("other")
    came: asyncio.Queue[tuple] = asyncio.Queue()
    subscribed = asyncio.Event()
    other.on_subscribe = lambda *_: subscribed.set()
    other.on_message = lambda _client, topic, payload, qos, _properties: came.put_nowait((topic, payload, qos))
    await one.connect("127.0.0.1", server.port, version=MQTTv50)
    await other.connect("127.0.0.1", server.port, version=MQTTv311)
    other.subscribe("house/+/temperature", qos=2)
    async with asyncio.timeout(WAIT_S):
        await subscribed.wait()
        for qos in (0, 1, 2):
            one.publish("house/kitchen/temperature", b"%d" % qos, qos=qos)
            assert await came.get() == ("house/kitchen/temperature", b"%d" % qos, qos)
    await one.disconnect()
    await other.disconnect()


async def test_a_client_that_speaks_no_tls_is_closed(serve, server_tls):
    server = await serve(ssl_context=server_tls)
    client = await server.open()
    client.send(b"\x10\x0d\0\4MQTT\4\2\0\0\0\1d")
    assert await client.is_closed()
    assert not server.endpoint.sessions


async def test_closing_with_a_reason_works_over_tls(serve, server_tls, client_tls):
    server = await serve(ssl_context=server_tls)
    client = await server.open(ssl=client_tls)
    await client.connect("t", version=5)
    client.send(b"\x36\x00")
    assert await client.goodbye() == 0x81
    assert await client.is_closed()
