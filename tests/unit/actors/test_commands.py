"""Who is told a COMMAND, and that the listeners of a gateway are bounded."""

import json

import pytest

from actors.gateway import commands as module
from actors.gateway.commands import Commands
from sib.ssap.cipher import decipher
from sib.ssap.messages import Dialect
from sib.ssap.operations import SubscribeCommand

SOFIA = ("KP", "sofia", "token:1")


class FakeChannel:
    def __init__(self):
        self.told = []
        self.transport = self

    def command(self, payload):
        self.told.append(json.loads(payload)["messageId"])


@pytest.fixture
def posted():
    return []


@pytest.fixture
def ended():
    return []


@pytest.fixture
def commands(posted, ended):
    return Commands(lambda id_, endpoint, payload: posted.append((id_, endpoint)), ended.append)


def wish(instance="KP:one", kind="STATUS"):
    return SubscribeCommand("KP", instance, "token", kind)


def listen(commands, id_, *, channel=None, holder=SOFIA, **options):
    endpoint = None if channel is not None else f"http://127.0.0.1/{id_}"
    commands.add(id_, wish(**options), Dialect.STRING, channel, endpoint, holder=holder)


def test_the_same_instance_and_type_are_told(commands, posted):
    channel = FakeChannel()
    listen(commands, "a", channel=channel)
    listen(commands, "b")
    listen(commands, "other instance", instance="KP:two")
    assert commands.send("KP", "one", "STATUS", {}) == 2
    assert (channel.told, posted) == (["a"], [("b", "http://127.0.0.1/b")])
    assert commands.send("KP", "one", None, {}) == 0
    assert commands.send("Other", "one", "STATUS", {}) == 0


def test_who_asked_in_cipher_is_told_in_cipher(commands):
    told = []
    channel = FakeChannel()
    channel.command = told.append
    commands.add("a", wish(), Dialect.STRING, channel, None, holder=SOFIA, cipher_key="key")
    assert commands.send("KP", "one", "STATUS", {"text": "ñ"}) == 1
    assert json.loads(decipher(told[0].decode(), "key"))["messageId"] == "a"


def test_a_connection_that_closes_takes_its_listeners_along(commands):
    one, two = FakeChannel(), FakeChannel()
    for channel, ids in ((one, "ab"), (two, "c")):
        for id_ in ids:
            listen(commands, id_, channel=channel)
    listen(commands, "d")
    assert (commands.count(one), commands.count(two)) == (2, 1)
    commands.remove_channel(one)
    commands.remove_channel(one)
    assert commands.count(one) == 0
    assert commands.send("KP", "one", "STATUS", {}) == 2


def test_who_must_not_listen_any_more_is_told_nothing(commands, posted, ended):
    channel = FakeChannel()
    other = ("KP", "sofia", "token:2")
    for id_, holder in (("1", SOFIA), ("2", other), ("3", SOFIA)):
        listen(commands, id_, channel=channel, holder=holder)
        listen(commands, f"e{id_}", holder=holder)
    assert commands.holders() == {SOFIA, other}
    commands.remove_holder(SOFIA)
    assert (commands.holders(), commands.count(channel), ended) == ({other}, 1, ["e1", "e3"])
    assert commands.send("KP", "one", "STATUS", {}) == 2
    assert (channel.told, [id_ for id_, _ in posted]) == (["2"], ["e2"])


def test_listeners_with_endpoints_are_bounded_the_oldest_goes(commands, posted, ended, monkeypatch):
    monkeypatch.setattr(module, "ENDPOINTS_MAX", 3)
    channel = FakeChannel()
    listen(commands, "kept", channel=channel)
    for number in range(5):
        listen(commands, str(number))
    commands.remove("3")
    commands.remove("never")
    commands.send("KP", "one", "STATUS", {})
    assert [id_ for id_, _ in posted] == ["2", "4"]
    assert ended == ["0", "1", "3"]
    assert channel.told == ["kept"]
