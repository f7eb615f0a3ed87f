"""One connection: order of answers and acknowledgements, requests that wait for others, held INDICATIONs, cipher, pressure."""

import asyncio
import json
from types import SimpleNamespace

import pytest

from actors.config import Limits
from actors.gateway import channel as module
from actors.gateway.channel import Channel
from actors.metrics import GatewayMetrics
from sib.errors import AuthenticationError, InvalidInstanceError, StoreUnavailableError
from sib.ssap.answers import Answer, InsertAnswerTemplate, Text
from sib.ssap.cipher import decipher, encipher
from sib.ssap.messages import MessageType

ID = b"53e2f6a3e4b0f8d4a6e1b2c3"


class FakeTransport:
    """Writes down what leaves, in order: ("ack", token), ("answer", text), ("ind", text)."""

    def __init__(self):
        self.out = []
        self.is_aborted = False
        self.is_paused = False
        self.slow = None

    def acknowledge(self, token):
        self.out.append(("ack", token))

    def forget(self, token):
        self.out.append(("forget", token))

    def answer(self, payload):
        self.out.append(("answer", payload.decode()))

    def indicate(self, payload):
        self.out.append(("ind", payload.decode()))
        return self.slow

    def abort(self):
        self.is_aborted = True

    def pause(self):
        self.is_paused = True

    def resume(self):
        self.is_paused = False

    @property
    def kinds(self):
        return [kind if kind not in ("ack", "forget") else f"{kind} {what}" for kind, what in self.out]


class FakeLease:
    def template(self, request):
        made = InsertAnswerTemplate.for_session(request.session_key, request.ontology, request.dialect)
        return made.head, made.tail


class FakeRouter:
    """INSERTs with the session key "live" go on their way and wait for the test; other requests wait for theirs."""

    def __init__(self):
        self.inserts = []
        self.running = []

    def start_insert(self, slot, request, channel):
        return request.operation.query is None and self.start_instance(slot, request.operation.data, channel)

    def start_instance(self, slot, data, channel):
        request = slot.request
        if request.session_key != "live":
            return False
        slot.data, slot.lease, slot.ontology, slot.session_key = data, FakeLease(), "O", "live"
        self.inserts.append(slot)
        return True

    async def execute_in_channel(self, request, channel, slot):
        done = asyncio.get_running_loop().create_future()
        self.running.append((request, slot, done))
        return await done


class FakeGateway:
    def __init__(self):
        self.limits = Limits()
        self.metrics = GatewayMetrics("mqtt")
        self.router = FakeRouter()
        self.paused = set()
        self.announced = []
        self.notifier = SimpleNamespace(announce=self.announced.append)
        self.withdrawn = []
        self.closed = []
        self.dirty = []
        self.tasks = []
        self.is_full = False

    def spawn(self, work):
        self.tasks.append(asyncio.ensure_future(work))
        return self.tasks[-1]

    def mark(self, channel):
        self.dirty.append(channel)

    def flush(self):
        dirty, self.dirty = self.dirty, []
        for channel in dirty:
            channel.drain()

    def is_congested(self):
        return self.is_full

    def channel_closed(self, channel):
        self.closed.append(channel)

    def withdraw(self, session_key, subscription_id):
        self.withdrawn.append((session_key, subscription_id))

    def cipher_key_of(self, kp):
        return {"Secret": "the key"}.get(kp)


def frame(kind="QUERY", number=None, *, key="live", body='{"query":"{}"}'):
    return json.dumps(
        {
            "messageType": kind,
            "messageId": number,
            "sessionKey": key,
            "ontology": "O",
            "direction": "REQUEST",
            "body": body,
        }
    ).encode()


def insert(number=None, **options):
    return frame("INSERT", number, body='{"data":"{}","query":null}', **options)


@pytest.fixture
async def gateway():
    return FakeGateway()


@pytest.fixture
async def transport():
    return FakeTransport()


@pytest.fixture
async def channel(gateway, transport):
    return Channel(gateway, transport, kind="mqtt", peer="1.2.3.4", client_id="c")


async def turns(gateway):
    for _ in range(5):
        await asyncio.sleep(0)
        gateway.flush()


async def finish(gateway, at=-1, answer=None):
    """The request at work is done."""
    done = gateway.router.running[at][2]
    if isinstance(answer, Exception):
        done.set_exception(answer)
    else:
        done.set_result(answer or Answer(Text("x")))
    await turns(gateway)


def answered(transport):
    return [json.loads(text)["messageId"] for kind, text in transport.out if kind == "answer"]


async def test_inserts_are_under_way_together_and_leave_in_order(gateway, transport, channel):
    for number in range(3):
        channel.receive(insert(number), f"t{number}")
    first, second, third = gateway.router.inserts
    third.stored(ID)
    second.refused(InvalidInstanceError("no"))
    gateway.flush()
    assert transport.out == []
    first.stored(ID)
    gateway.flush()
    assert transport.kinds == ["ack t0", "answer", "ack t1", "answer", "ack t2", "answer"]
    assert answered(transport) == [0, 1, 2]
    assert [json.loads(json.loads(text)["body"])["ok"] for kind, text in transport.out if kind == "answer"] == [
        True,
        False,
        True,
    ]


def instance_frame(measure, *, key="live"):
    return frame("INSERT", key=key, body=json.dumps({"data": json.dumps({"S": measure}), "query": None}))


async def test_a_repeated_insert_is_recognised_and_carries_its_own_instance(gateway, transport, channel, monkeypatch):
    for measure in (1, 2):
        channel.receive(instance_frame(measure), f"t{measure}")
    monkeypatch.setattr(module, "parse_request", None)
    channel.receive(instance_frame(3), "t3")
    assert [slot.data for slot in gateway.router.inserts] == ['{"S": 1}', '{"S": 2}', '{"S": 3}']
    for slot in gateway.router.inserts:
        slot.stored(ID)
    gateway.flush()
    assert transport.kinds == ["ack t1", "answer", "ack t2", "answer", "ack t3", "answer"]


async def test_a_repeated_insert_waits_for_what_is_before_it_and_keeps_its_instance(gateway, channel):
    channel.receive(instance_frame(1))
    gateway.router.inserts[0].stored(ID)
    gateway.flush()
    channel.receive(frame(number=7))
    channel.receive(instance_frame(2))
    channel.receive(instance_frame(3))
    await turns(gateway)
    assert len(gateway.router.inserts) == 1
    await finish(gateway)
    assert [slot.data for slot in gateway.router.inserts] == ['{"S": 1}', '{"S": 2}', '{"S": 3}']


async def test_a_repeated_insert_without_a_lease_goes_the_long_way(gateway, channel):
    for measure in (1, 2):
        channel.receive(instance_frame(measure, key="dead"))
        await turns(gateway)
        await finish(gateway, answer=Answer(error=InvalidInstanceError("no")))
    assert [request.operation.data for request, _, _ in gateway.router.running] == ['{"S": 1}', '{"S": 2}']


async def test_a_connection_that_never_repeats_itself_is_not_looked_at_for_ever(gateway, channel, monkeypatch):
    looked = []
    monkeypatch.setattr(module, "repetition_of", lambda payload, request: looked.append(payload))
    for number in range(10):
        channel.receive(insert(number))
    assert len(looked) == module.REPETITIONS_MAX


async def test_a_repeated_insert_over_the_limit_is_refused_like_any_other(gateway, transport):
    channel = Channel(gateway, transport, kind="mqtt", peer="p", client_id="c", message_bytes_max=400)
    channel.receive(instance_frame(1))
    channel.receive(instance_frame(int("1" * 300)))
    gateway.router.inserts[0].stored(ID)
    gateway.flush()
    assert len(gateway.router.inserts) == 1
    assert "at most 400" in transport.out[-1][1]


async def test_the_fast_answer_is_the_usual_one(gateway, transport, channel):
    channel.receive(insert(), "t")
    gateway.router.inserts[0].stored(ID)
    gateway.flush()
    answer = json.loads(transport.out[-1][1])
    assert answer["messageId"] is None
    assert json.loads(answer["body"])["data"] == f'{{"_id":ObjectId("{ID.decode()}")}}'


async def test_an_answer_that_cannot_be_printed_does_not_hang_the_connection(gateway, transport, channel):
    gateway.failures = []
    gateway.log_failure = lambda request, error: gateway.failures.append(error)
    channel.receive(frame("QUERY", 1), "t1")
    channel.receive(frame("QUERY", 2), "t2")
    await turns(gateway)
    await finish(gateway, answer=Answer("no answer data"))
    await finish(gateway)
    bodies = [json.loads(json.loads(text)["body"]) for kind, text in transport.out if kind == "answer"]
    assert [(body["ok"], body["errorCode"]) for body in bodies] == [(False, "OTHER"), (True, None)]
    assert len(gateway.failures) == 1


async def test_another_request_waits_for_all_before_it_and_all_behind_it_wait(gateway, transport, channel):
    channel.receive(insert(0), "t0")
    channel.receive(frame("QUERY", 1), "t1")
    channel.receive(insert(2), "t2")
    await turns(gateway)
    assert gateway.router.running == []
    assert len(gateway.router.inserts) == 1
    gateway.router.inserts[0].stored(ID)
    await turns(gateway)
    assert [request.message_id for request, _, _ in gateway.router.running] == [1]
    assert len(gateway.router.inserts) == 1
    await finish(gateway)
    assert len(gateway.router.inserts) == 2
    gateway.router.inserts[1].stored(ID)
    await turns(gateway)
    assert transport.kinds == ["ack t0", "answer", "ack t1", "answer", "ack t2", "answer"]
    assert answered(transport) == [0, 1, 2]


async def slow_read(gateway, channel, monkeypatch):
    """A QUERY that reads and takes longer than writes wait."""
    monkeypatch.setattr(module, "READ_ALONE_S", 0)
    channel.receive(frame("QUERY", 0), "t0")
    await turns(gateway)
    channel.reads(gateway.router.running[0][1])
    await turns(gateway)


async def test_a_write_does_not_wait_for_a_slow_read_but_its_answer_does(gateway, transport, channel, monkeypatch):
    channel.receive(frame("QUERY", 0), "t0")
    await turns(gateway)
    channel.receive(insert(1), "t1")
    assert gateway.router.inserts == []
    monkeypatch.setattr(module, "READ_ALONE_S", 0)
    channel.reads(gateway.router.running[0][1])
    await turns(gateway)
    gateway.router.inserts[0].stored(ID)
    channel.receive(frame("UPDATE", 2, body='{"query":"x","data":null}'), "t2")
    await turns(gateway)
    assert transport.kinds == ["ack t0", "ack t1"]
    await finish(gateway)
    assert transport.kinds == ["ack t0", "ack t1", "ack t2"]
    await finish(gateway, at=0)
    assert answered(transport) == [0, 1, 2]


async def test_what_is_no_write_waits_for_a_slow_read_and_so_does_all_behind_it(
    gateway, transport, channel, monkeypatch
):
    await slow_read(gateway, channel, monkeypatch)
    channel.receive(frame("LEAVE", 1), "t1")
    channel.receive(insert(2), "t2")
    await turns(gateway)
    assert (len(gateway.router.running), gateway.router.inserts) == (1, [])
    await finish(gateway)
    assert len(gateway.router.running) == 2
    await finish(gateway)
    gateway.router.inserts[0].stored(ID)
    await turns(gateway)
    assert answered(transport) == [0, 1, 2]


async def test_an_update_beside_a_slow_read_is_alone_though_the_read_ends(gateway, transport, channel, monkeypatch):
    await slow_read(gateway, channel, monkeypatch)
    channel.receive(frame("UPDATE", 1, body='{"query":"x","data":null}'), "t1")
    await turns(gateway)
    channel.hold_indications()
    caused = channel.indicate(b"caused by the update")
    channel.receive(insert(2), "t2")
    await finish(gateway, at=0)
    assert (transport.kinds, gateway.router.inserts) == (["ack t0", "answer"], [])
    await finish(gateway, at=1)
    assert transport.kinds == ["ack t0", "answer", "ack t1", "answer", "ind"]
    assert caused.done()
    assert len(gateway.router.inserts) == 1


async def test_indications_wait_for_an_answer_that_waits_for_a_slow_read(gateway, transport, channel, monkeypatch):
    await slow_read(gateway, channel, monkeypatch)
    channel.receive(frame("UPDATE", 1, body='{"query":"x","data":null}'), "t1")
    await turns(gateway)
    channel.hold_indications()
    channel.indicate(b"caused by the update")
    await finish(gateway, at=1)
    assert transport.kinds == ["ack t0", "ack t1"]
    await finish(gateway, at=0)
    assert transport.kinds == ["ack t0", "ack t1", "answer", "answer", "ind"]


async def test_a_read_that_is_answered_soon_lets_nothing_overtake(gateway, transport, channel, monkeypatch):
    monkeypatch.setattr(module, "READ_ALONE_S", 0)
    channel.receive(frame("QUERY", 0), "t0")
    await turns(gateway)
    gateway.router.running[0][2].set_result(Answer(Text("x")))
    await turns(gateway)
    channel.reads(gateway.router.running[0][1])
    channel.receive(frame("UPDATE", 1, body='{"query":"x","data":null}'), "t1")
    channel.receive(insert(2), "t2")
    await turns(gateway)
    assert gateway.router.inserts == []


@pytest.mark.parametrize(
    ("kind", "is_write"), [("QUERY", False), ("JOIN", False), ("SUBSCRIBE", False), ("UPDATE", True), ("BULK", True)]
)
async def test_a_write_is_acknowledged_when_it_is_decided_and_a_read_at_once(
    gateway, transport, channel, kind, is_write
):
    body = "[]" if kind == "BULK" else '{"query":"x","data":null,"instance":"K:i","token":"t","msRefresh":0}'
    channel.receive(frame(kind, 1, body=body), "t")
    await turns(gateway)
    assert transport.kinds == ([] if is_write else ["ack t"])
    await finish(gateway)
    assert transport.kinds == ["ack t", "answer"]


async def test_requests_of_qos_0_have_no_acknowledgement(gateway, transport, channel):
    channel.receive(insert(0))
    gateway.router.inserts[0].stored(ID)
    gateway.flush()
    assert transport.kinds == ["answer"]


@pytest.mark.parametrize("payload", [b"", b"  ", b'{"commandMessage":{}}'])
async def test_what_is_no_request_is_acknowledged_in_order_and_not_answered(gateway, transport, channel, payload):
    channel.receive(insert(0), "t0")
    channel.receive(payload, "t1")
    channel.receive(insert(2), "t2")
    gateway.flush()
    assert transport.out == []
    for slot in gateway.router.inserts:
        slot.stored(ID)
    gateway.flush()
    assert transport.kinds == ["ack t0", "answer", "ack t1", "ack t2", "answer"]
    assert gateway.metrics.ignored == 1


async def test_what_cannot_be_read_is_answered_in_its_place(gateway, transport, channel):
    channel.receive(insert(0), "t0")
    channel.receive(b"{broken", "t1")
    channel.oversized("t2", 5_000_000, b'{"messageType":"UPDATE","messageId":"M7","body":"')
    gateway.flush()
    assert transport.out == []
    gateway.router.inserts[0].stored(ID)
    gateway.flush()
    assert transport.kinds == ["ack t0", "answer", "ack t1", "answer", "ack t2", "answer"]
    assert "5000000" in transport.out[-1][1]
    assert '"messageType":"UPDATE"' in transport.out[-1][1]


async def test_undecided_means_no_acknowledgement_and_the_end_of_the_connection(gateway, transport, channel):
    channel.receive(insert(0), "t0")
    channel.receive(insert(1), "t1")
    gateway.router.inserts[0].stored(ID)
    gateway.router.inserts[1].refused(StoreUnavailableError("down"))
    gateway.flush()
    assert transport.is_aborted
    assert "ack t1" not in transport.kinds
    assert "forget t1" in transport.kinds
    assert gateway.closed == [channel]
    channel.receive(insert(2), "t2")
    assert len(gateway.router.inserts) == 2


async def test_an_undecided_update_too_but_an_undecided_read_is_answered(gateway, transport, channel):
    channel.receive(frame("QUERY", 0), "t0")
    await turns(gateway)
    await finish(gateway, answer=StoreUnavailableError("down"))
    assert transport.kinds == ["ack t0", "answer"]
    channel.receive(frame("UPDATE", 1, body='{"query":"x","data":null}'), "t1")
    await turns(gateway)
    await finish(gateway, answer=StoreUnavailableError("down"))
    assert transport.is_aborted


async def test_without_acknowledgements_the_undecided_is_answered(gateway, transport):
    channel = Channel(gateway, transport, kind="websocket", peer="p", client_id=None)
    channel.receive(insert(0))
    gateway.router.inserts[0].refused(StoreUnavailableError("down"))
    gateway.flush()
    assert (transport.is_aborted, transport.kinds) == (False, ["answer"])
    assert channel.address == "p"


async def test_indications_wait_for_the_answer_of_the_write_that_caused_them(gateway, transport, channel):
    channel.receive(frame("UPDATE", 0, body='{"query":"x","data":null}'), "t0")
    await turns(gateway)
    assert channel.indicate(b"early") is None
    channel.hold_indications()
    waiting = [channel.indicate(b"one"), channel.indicate(b"two")]
    assert transport.kinds == ["ind"]
    await finish(gateway)
    assert [what if kind == "ind" else kind for kind, what in transport.out] == ["early", "ack", "answer", "one", "two"]
    assert all(future.done() for future in waiting)
    assert channel.indicate(b"later") is None


async def test_an_indication_of_another_partition_does_not_overtake_a_waiting_answer(gateway, transport, channel):
    channel.receive(insert(0), "t0")
    channel.receive(insert(1), "t1")
    gateway.router.inserts[1].stored(ID)
    gateway.flush()
    waiting = channel.indicate(b"caused by the second")
    assert transport.out == []
    gateway.router.inserts[0].stored(ID)
    gateway.flush()
    assert transport.kinds == ["ack t0", "answer", "ack t1", "answer", "ind"]
    assert waiting.done()


async def test_held_indications_count_when_the_transport_has_them(gateway, transport, channel):
    channel.receive(frame("UPDATE", 0, body='{"query":"x","data":null}'), "t0")
    await turns(gateway)
    channel.hold_indications()
    kept, lost = channel.indicate(b"kept"), channel.indicate(b"lost")
    transport.slow = asyncio.get_running_loop().create_future()
    await finish(gateway)
    assert not kept.done()
    transport.slow.set_exception(StoreUnavailableError("full"))
    await turns(gateway)
    for future in (kept, lost):
        with pytest.raises(StoreUnavailableError):
            await future


async def test_held_indications_are_bounded(gateway, transport, channel, monkeypatch):
    monkeypatch.setattr(module, "HELD_MAX", 2)
    channel.receive(frame("UPDATE", 0, body='{"query":"x","data":null}'), "t0")
    await turns(gateway)
    channel.hold_indications()
    for number in range(5):
        channel.indicate(b"%d" % number)
    await finish(gateway)
    assert transport.kinds == ["ack t0", "answer", "ind", "ind"]
    assert gateway.metrics.dropped == 3


async def test_a_closed_connection_lets_its_held_indications_go(gateway, transport, channel):
    channel.receive(frame("UPDATE", 0, body='{"query":"x","data":null}'), "t0")
    await turns(gateway)
    channel.hold_indications()
    waiting = channel.indicate(b"one")
    channel.closed()
    channel.closed()
    assert waiting.done()
    await finish(gateway)
    assert transport.kinds == ["ind", "ack t0"]
    assert gateway.closed == [channel]


async def test_what_is_under_way_is_acknowledged_although_its_connection_has_ended(gateway, transport, channel):
    """A PUBREC goes to the client's next connection: the same PUBLISH that comes again must not wait for ever."""
    channel.receive(insert(0), "t0")
    channel.receive(insert(1), "t1")
    channel.receive(insert(2), "t2")
    channel.closed()
    for decide in (lambda slot: slot.stored(ID), lambda slot: slot.refused(StoreUnavailableError("down")),
                   lambda slot: slot.refused(InvalidInstanceError("bad"))):  # fmt: skip
        decide(gateway.router.inserts.pop(0))
    gateway.flush()
    assert transport.kinds == ["forget t1", "ack t0", "ack t2"]
    assert not transport.is_aborted
    assert not channel.pending


async def test_of_what_waits_when_a_connection_ends_only_what_nobody_sends_again_is_carried_out(
    gateway, transport, channel
):
    update = {"body": '{"query":"x","data":null}'}
    channel.receive(frame("UPDATE", 0, **update))
    for number, kind in enumerate(("UPDATE", "QUERY", "INSERT", "LEAVE"), 1):
        channel.receive(insert(number) if kind == "INSERT" else frame(kind, number, **update))
    channel.receive(frame("UPDATE", 5, **update), "t5")
    await turns(gateway)
    channel.closed()
    channel.receive(frame("UPDATE", 6, **update))
    assert transport.kinds == ["forget t5"]
    await finish(gateway)
    await finish(gateway)
    gateway.router.inserts[0].stored(ID)
    await turns(gateway)
    await finish(gateway)
    assert [request.message_id for request, _, _ in gateway.router.running] == [0, 1, 4]
    assert transport.kinds == ["forget t5"]
    assert not channel.pending


async def test_a_subscription_whose_client_went_before_its_answer_is_none(gateway, transport, channel):
    """Nobody knows its id, and what it is about would wait for its answer for ever."""
    channel.receive(frame("SUBSCRIBE", 0, body='{"query":"","msRefresh":0}'), "t0")
    await turns(gateway)
    gateway.router.running[0][1].then = "sub"
    channel.closed()
    await finish(gateway)
    assert (gateway.announced, gateway.withdrawn, transport.kinds) == ([], [("live", "sub")], ["ack t0"])


async def test_a_subscription_is_announced_right_behind_its_answer(gateway, transport, channel):
    channel.receive(frame("SUBSCRIBE", 0, body='{"query":"","msRefresh":0}'), "t0")
    await turns(gateway)
    gateway.router.running[0][1].then = "sub"
    assert gateway.announced == []
    await finish(gateway)
    assert gateway.announced == ["sub"]
    assert transport.kinds == ["ack t0", "answer"]


async def test_a_request_that_does_not_tell_follows_the_last_that_did(gateway, transport):
    channel = Channel(gateway, transport, kind="websocket", peer="p", client_id=None)
    for number, (body, kind) in enumerate([(None, dict), ('{"query":"{}"}', str), (None, str)]):
        channel.receive(frame("LEAVE" if body is None else "QUERY", number, body=body))
        await turns(gateway)
        await finish(gateway)
        assert type(json.loads(transport.out[-1][1])["body"]) is kind


async def test_too_many_requests_stop_the_reading_until_half_are_answered(gateway, transport, channel):
    gateway.limits = Limits(requests_per_connection_max=4)
    for number in range(5):
        channel.receive(insert(number), f"t{number}")
    assert transport.is_paused
    for slot in gateway.router.inserts[:3]:
        slot.stored(ID)
    gateway.flush()
    assert transport.is_paused
    gateway.router.inserts[3].stored(ID)
    gateway.flush()
    assert not transport.is_paused
    assert gateway.paused == set()


async def test_a_congested_gateway_stops_the_reading_of_who_sends(gateway, transport, channel):
    gateway.is_full = True
    channel.receive(insert(0), "t0")
    assert transport.is_paused
    gateway.router.inserts[0].stored(ID)
    gateway.flush()
    assert transport.is_paused
    gateway.is_full = False
    channel.ease()
    assert not transport.is_paused


def ciphered(payload, kp=None):
    text = encipher(payload.decode(), "the key")
    return (f"{len(kp)}#{kp}{text}" if kp else text).encode()


async def test_cipher_follows_the_request(gateway, transport, channel):
    join = frame("JOIN", 0, key=None, body='{"instance":"Secret:i","token":"t"}')
    channel.receive(ciphered(join, "Secret"))
    await turns(gateway)
    assert gateway.router.running[0][1].is_ciphered
    await finish(gateway)
    assert json.loads(decipher(transport.out[-1][1], "the key"))["messageType"] == MessageType.JOIN
    channel.receive(ciphered(insert(1)))
    channel.receive(insert(2))
    channel.receive(ciphered(insert(3)), clear=True)
    for slot in gateway.router.inserts:
        slot.stored(ID)
    gateway.flush()
    assert [text.startswith("{") for kind, text in transport.out[1:]] == [False, True, True]
    assert [slot.is_ciphered for slot in gateway.router.inserts] == [True, False, True]


@pytest.mark.parametrize(
    "payload",
    [ciphered(b"{}", "Nobody"), b"AAAAAAAAAAAAAAAA", b"6#SecretAAAAAAAAAAAAAAAA", ciphered(b"text", "Secret")],
)
async def test_what_does_not_decipher_is_refused_in_clear(gateway, transport, channel, payload):
    channel.receive(payload, "t0")
    gateway.flush()
    assert transport.kinds == ["ack t0", "answer"]
    answer = json.loads(transport.out[-1][1])
    assert json.loads(answer["body"])["errorCode"] == AuthenticationError.ssap_code
