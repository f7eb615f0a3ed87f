"""Every request that the published clients were recorded with, replayed over their transport; answers have the recorded shape."""

import json
import re
from pathlib import Path

import pytest

FRAMES = [json.loads(line) for line in Path("tests/data/client-frames.jsonl").read_text().splitlines()]
TOKEN = "e5e8a005d0a248f1ad2cd60a821e6838"
ID = r'{"_id":ObjectId\("[0-9a-f]{24}"\)}'
DATA_SHAPES = (
    ("uuid", r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"),
    ("id", ID),
    ("ids", rf"\[({ID}(,{ID})*)?\]"),
    ("rows", r"\[ .*\]"),
    ("object", r"\{.*\}"),
    ("empty", ""),
)


def open_as(client, mqtt, websocket):
    """The transport that the client was recorded over, as its source opens it."""
    if client in ("python", "javascript"):
        return websocket(join=False, subprotocols=["http_only"] if client == "python" else None)
    if client == "c":
        return mqtt(join=False, version=4, topic="CLIENT_TOPIC", answer_qos=2)
    return mqtt(join=False, version=3, topic="", clean=client == "android")


def shape_of_data(data):
    if isinstance(data, list):
        return ["array", *({json.dumps(sorted(row)) for row in data[:1]})]
    if isinstance(data, dict):
        return ["dict", sorted(data)]
    if isinstance(data, str):
        return next((name for name, pattern in DATA_SHAPES if re.fullmatch(pattern, data, re.DOTALL)), "text")
    return type(data).__name__


def shape(answer, *, with_data=True):
    """What a client's parser depends on: keys, types, the kind of the body and of its data."""
    body = answer["body"]
    kind = type(body).__name__
    body = json.loads(body) if isinstance(body, str) else body
    return {
        "envelope": sorted(answer),
        "types": {key: type(answer[key]).__name__ for key in ("messageId", "messageType", "direction")},
        "version": answer.get("version"),
        "body": [kind, sorted(set(body) - {"contentType"})],
        "@type": body.get("@type"),
        "ok": body["ok"],
        "data": shape_of_data(body["data"]) if with_data else None,
        "error": [type(body["error"]).__name__, type(body["errorCode"]).__name__],
    }


def recorded_shapes(client, message_type, ok, *, with_data):
    answers = [json.loads(f["payload"]) for f in FRAMES if (f["client"], f["direction"]) == (client, "answer")]
    shapes = [shape(answer, with_data=with_data) for answer in answers if answer["messageType"] == message_type]
    return [each for each in shapes if each["ok"] is ok]


def fits(found, recorded):
    """The same shape; an empty array says nothing of its elements."""
    if ["array"] in (found["data"], recorded["data"]) and isinstance(found["data"], list):
        return {**found, "data": None} == {**recorded, "data": None}
    return found == recorded


def is_meant_to_fail(sent):
    text = json.dumps(sent)
    is_config_with_query = sent["messageType"] == "CONFIG" and "gt:10" in text
    return "bad-token" in text or "token-invalido" in text or "NoSuch" in text or is_config_with_query


class Replay:
    """Sends a client's recorded requests in their order, with the keys of now."""

    def __init__(self, device):
        self.device, self.key, self.subscription = device, None, None

    async def join_if_needed(self, frames):
        if self.key is None:
            joins = [frame for frame in frames if '"JOIN"' in frame]
            payload = re.sub(r"bad-token|token-invalido|e5e8a005d0a248f1ad2cd60a821e6838", TOKEN, joins[0])
            answer = await self.device.ask_raw(payload.encode())
            assert answer.ok, answer
            self.key = answer["sessionKey"]

    async def send(self, payload):
        sent = json.loads(payload)
        if sent["sessionKey"] is not None:
            payload = payload.replace(sent["sessionKey"], self.key)
        if sent["messageType"] == "UNSUBSCRIBE":
            payload = re.sub(r'(idSuscripcion\\?"\s*:\s*\\?")[0-9a-f-]+', rf"\g<1>{self.subscription}", payload)
        answer = await self.device.ask_raw(payload.encode())
        if sent["messageType"] == "SUBSCRIBE":
            self.subscription = answer.data
        if sent["messageType"] == "LEAVE":
            self.key = None
        return sent, answer


@pytest.mark.parametrize("client", ["python", "javascript", "c", "android", "java-2018"])
async def test_recorded_requests_get_answers_of_the_recorded_shape(client, mqtt, websocket):
    requests = [f["payload"] for f in FRAMES if (f["client"], f["direction"]) == (client, "request")]
    replay = Replay(await open_as(client, mqtt, websocket))
    compared = 0
    for payload in requests:
        await replay.join_if_needed(requests)
        sent, answer = await replay.send(payload)
        kind = sent["messageType"]
        assert answer.ok is not is_meant_to_fail(sent), (payload, answer)
        assert answer["messageType"] == kind
        assert answer["ontology"] == sent.get("ontology")
        assert answer["direction"] == ("RESPONSE" if answer.ok else "ERROR")
        if not answer.ok:
            assert answer.error
        with_data = kind != "CONFIG" and '"BDC"' not in payload
        recorded = recorded_shapes(client, kind, answer.ok, with_data=with_data)
        if recorded:
            found = shape(answer, with_data=with_data)
            assert any(fits(found, each) for each in recorded), (payload, found, recorded)
            compared += 1
    assert compared >= 10
