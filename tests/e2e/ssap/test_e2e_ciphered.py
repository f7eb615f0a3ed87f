"""KPs that cipher: XXTEA as the clients do it, over MQTT and WebSocket."""

import base64
import json

import pytest

from sib.ssap.cipher import encipher

KP = "KPTestTemperatura"
TOKEN = "e5e8a005d0a248f1ad2cd60a821e6838"
KEY = "key0key1key2key3"


@pytest.fixture
def ciphered(mqtt, websocket, sib):
    """A device that ciphers everything."""

    async def opened(transport="mqtt", kp=KP, token=TOKEN, key=KEY, **options):
        device = await (
            mqtt(join=False, **options) if transport == "mqtt" else websocket(join=False, dialect="string", **options)
        )
        device.cipher_key = key
        device.sib = type(sib)(sib.data, sib.endpoints, kp, token)
        await device.join()
        return device

    return opened


@pytest.mark.parametrize("transport", ["mqtt", "websocket"])
async def test_ciphered_in_ciphered_out(ciphered, tools, transport):
    device = await ciphered(transport)
    await device.subscribe("{Sensor.assetId:'áéí ñ €'}", ms_refresh=0)
    assert (await device.insert(tools.sensor(asset="áéí ñ €"))).ok
    assert (await device.indication()).rows[0]["Sensor"]["assetId"] == "áéí ñ €"
    assert len((await device.query("{Sensor.assetId:'áéí ñ €'}")).rows) >= 1
    assert (await device.leave()).ok
    for event in device.events:
        if event.kind in ("answer", "indication"):
            assert len(base64.b64decode(event.payload, validate=True)) % 4 == 0


async def test_each_answer_follows_its_request_and_indications_their_subscribe(ciphered, tools):
    device = await ciphered()
    clear = tools.frame("SUBSCRIBE", {"query": "{Sensor.assetId:'mix'}", "msRefresh": 0}, session_key=device.key,
                        ontology=tools.ontology)  # fmt: skip
    await device.ask_raw(clear)
    assert device.events[-1].payload.startswith(b"{")
    await device.insert(tools.sensor(asset="mix"))
    await device.indication()
    assert [e.payload[:1] == b"{" for e in device.events if e.kind in ("answer", "indication")] == [
        False,
        True,
        False,
        True,
    ]


async def test_the_node_client_is_answered_in_clear(ciphered, tools):
    device = await ciphered(topic="SSAP-REQUEST", version=3)
    await device.subscribe("{Sensor.assetId:'nd'}", ms_refresh="0")
    await device.insert(tools.sensor(asset="nd"))
    await device.indication()
    assert all(event.payload.startswith(b"{") for event in device.events if event.kind in ("answer", "indication"))


@pytest.mark.parametrize("payload", [
    b"17#KPTestTemperaturaAAAA", b"9#NoSuchKPxAAAAAAAAAAAAAAAA", b"AAAAAAAAAAAAAAAAAAAAAAAA",
    ("17#KPTestTemperatura" + encipher(json.dumps({"messageType": "JOIN"}), "another key")).encode(),
    ("17#KPTestTemperatura" + encipher("no json at all", KEY)).encode(),
])  # fmt: skip
async def test_what_does_not_decipher_is_refused_in_clear(mqtt, tools, payload):
    device = await mqtt()
    answer = await device.ask_raw(payload)
    assert (answer.ok, answer.code) == (False, "AUTENTICATION")
    assert (await device.insert(tools.sensor())).ok


async def test_clear_frames_stay_allowed(mqtt, sib):
    device = await mqtt(join=False)
    assert await device.join(KP, "clear", TOKEN)


async def test_a_kp_that_only_ciphers(ciphered, mqtt, rest, tools):
    device = await ciphered(kp="KPSecret", token="secret00000000000000000000000001", key="only-with-cipher")
    assert (await device.insert({"n": 1}, "Anything")).ok
    clear = tools.frame("INSERT", {"data": '{"n":2}', "query": None}, session_key=device.key, ontology="Anything")
    answer = await device.ask_raw(clear)
    assert (answer.ok, answer.code) == (False, "AUTENTICATION")
    assert "cipher" in answer.error
    assert (await device.insert({"n": 3}, "Anything")).ok
    for kind, body in (("QUERY", {"query": "{}"}), ("LEAVE", None)):
        assert (
            await device.ask_raw(tools.frame(kind, body, session_key=device.key, ontology="Anything"))
        ).code == "AUTENTICATION"
    other = await mqtt(join=False)
    join = {"instance": "KPSecret:x", "token": "secret00000000000000000000000001"}
    assert (await other.ask("JOIN", join, key=None)).code == "AUTENTICATION"
    assert (await rest.post({"join": True, "instanceKP": "KPSecret:x", "token": join["token"]})).status_code == 401


async def test_the_node_client_of_a_kp_that_only_ciphers(ciphered, tools):
    device = await ciphered(
        kp="KPSecret", token="secret00000000000000000000000001", key="only-with-cipher", topic="SSAP-REQUEST"
    )
    assert (await device.insert({"n": 4}, "Anything")).ok


async def test_commands_follow_their_subscribecommand(ciphered, mqtt):
    device, sender = await ciphered(), await mqtt(join=False)
    await sender.join(kp=KP, token=TOKEN, instance="sender")
    listen = {"thinkp": KP, "thinkpInstance": f"{KP}:i1", "token": TOKEN, "type": "STATUS"}
    assert (await device.ask("SUBSCRIBECOMMAND", listen, key=None)).ok
    assert (await sender.ask("SUBSCRIBECOMMAND", listen, key=None)).ok
    command = {"thinkp": KP, "thinkpInstance": f"{KP}:i1", "type": "STATUS", "args": {"a": "ñ"}}
    assert (await sender.ask("COMMAND", command)).ok
    for each, is_clear in ((device, False), (sender, True)):
        told = await each.command()
        assert json.loads(told.data)["args"] == {"a": "ñ"}
        assert [e.payload.startswith(b"{") for e in each.events if e.kind == "command"] == [is_clear]


async def test_a_kp_that_takes_cipher_only_does_so_without_a_session_too(ciphered, mqtt):
    token = "secret00000000000000000000000001"
    listen = {"thinkp": "KPSecret", "thinkpInstance": "KPSecret:i1", "token": token, "type": "STATUS"}
    config = {"kp": "KPSecret", "instanciaKp": "KPSecret:i1", "token": token}
    status = {**listen, "instanciathinkp": "KPSecret:i1", "status": {}}
    clear = await mqtt(join=False)
    device = await ciphered(kp="KPSecret", token=token, key="only-with-cipher")
    for message_type, body in (("SUBSCRIBECOMMAND", listen), ("CONFIG", config), ("STATUS", status)):
        assert (await clear.ask(message_type, body, key=None)).code == "AUTENTICATION"
        assert (await device.ask(message_type, body, key=None)).ok
