"""The send window: batches, their order, retries with the same number, giving up."""

import asyncio
import pickle
import uuid

import pytest

from actors import window as module
from actors.clients import FutureWrite
from actors.runtime import ActorGoneError
from actors.window import SendWindow
from actors.writes import INSERT, WriteBatch
from sib.errors import OntologyNotFoundError, StoreUnavailableError


class Item:
    def __init__(self, number, size_bytes=10):
        self.number, self.size_bytes = number, size_bytes


class Target:
    """What the window sends to: records, and fails or waits as a test wants."""

    def __init__(self):
        self.tries = []
        self.settled = []
        self.failed = []
        self.gates = {}
        self.errors = {}

    async def send(self, number, items):
        numbers = [item.number for item in items]
        self.tries.append((number, numbers))
        gate = self.gates.get(number)
        if gate is not None:
            await gate
        errors = self.errors.get(number)
        if errors:
            raise errors.pop(0)
        self.settled += numbers

    def fail(self, items, error):
        self.failed.append(([item.number for item in items], error))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "RETRY_PAUSE_S", 0)


@pytest.fixture
def target():
    return Target()


def window_to(target, **options):
    return SendWindow(target.send, target.fail, **{"give_up_s": 10.0, "messages_max": 3, **options})


async def turns(count=20):
    for _ in range(count):
        await asyncio.sleep(0)


def gate():
    return asyncio.get_running_loop().create_future()


async def test_what_is_added_in_one_turn_goes_as_one_batch(target):
    window = window_to(target)
    for number in range(3):
        window.add(Item(number))
    assert target.tries == []
    await turns()
    assert target.tries == [(0, [0, 1, 2])]
    assert (window.calls, window.messages, window.depth) == (1, 3, 0)


async def test_while_a_call_is_at_work_items_are_collected_and_a_full_batch_is_queued_behind_it(target):
    window = window_to(target)
    target.gates[0] = gate()
    window.add(Item(0))
    await turns()
    window.add(Item(1))
    await turns()
    assert target.tries == [(0, [0])]
    window.add(Item(2))
    window.add(Item(3))
    window.add(Item(4))
    await turns()
    assert target.tries == [(0, [0]), (1, [1, 2, 3])]
    assert window.depth == 1
    target.gates[0].set_result(None)
    await turns()
    assert sorted(target.settled) == [0, 1, 2, 3, 4]
    assert [number for number, _ in target.tries] == [0, 1, 2]


async def test_batches_are_bounded_in_bytes_but_one_item_always_goes(target, monkeypatch):
    monkeypatch.setattr(module, "BATCH_BYTES_MAX", 100)
    window = window_to(target, messages_max=100)
    for number, size in enumerate((60, 60, 30, 500, 10)):
        window.add(Item(number, size))
    await turns(50)
    assert [numbers for _, numbers in target.tries] == [[0], [1, 2], [3], [4]]


async def test_a_failed_batch_is_tried_again_with_its_number_before_anything_behind_it(target):
    window = window_to(target)
    target.errors[0] = [ActorGoneError("gone"), StoreUnavailableError("busy"), ConnectionError("odd")]
    window.add(Item(0))
    await turns(1)
    for number in range(1, 6):
        window.add(Item(number))
    await turns(100)
    assert [number for number, _ in target.tries[:4]] == [0, 0, 0, 0]
    assert target.settled == list(range(6))
    assert window.retries == 3


async def test_a_batch_that_failed_behind_another_waits_for_that_one(target):
    window = window_to(target)
    target.gates[0] = gate()
    target.errors[0] = [ActorGoneError("gone")]
    target.errors[1] = [ActorGoneError("gone")]
    window.add(Item(0))
    await turns()
    for number in (1, 2, 3):
        window.add(Item(number))
    await turns()
    assert [number for number, _ in target.tries] == [0, 1]
    target.gates[0].set_result(None)
    await turns(100)
    assert target.settled == [0, 1, 2, 3]
    assert [number for number, _ in target.tries] == [0, 1, 0, 1]


async def test_after_the_time_nobody_may_call_it_decided(target):
    window = window_to(target, give_up_s=0.0)
    target.errors[0] = [ActorGoneError("gone")] * 1000
    window.add(Item(0))
    window.add(Item(1))
    await asyncio.sleep(0.05)
    await turns(50)
    [(numbers, error)] = target.failed
    assert numbers == [0, 1]
    assert isinstance(error, StoreUnavailableError)
    window.add(Item(2))
    await turns()
    assert target.settled == [2]


async def test_who_gives_up_says_why_without_what_the_driver_said(target):
    window = window_to(target, give_up_s=0.0)
    target.errors[0] = [
        StoreUnavailableError("The disk is full (/secret/path).", "the disk of the BDTR is full")
    ] * 1000
    window.add(Item(0))
    await asyncio.sleep(0.05)
    await turns(50)
    [(_, error)] = target.failed
    assert error.message == "the request could not be decided (database: the disk of the BDTR is full); send it again"
    assert pickle.loads(pickle.dumps(error)).reason == "the disk of the BDTR is full"


async def test_a_refusal_of_the_whole_batch_is_final(target):
    window = window_to(target)
    target.errors[0] = [OntologyNotFoundError("no")]
    window.add(Item(0))
    await turns()
    [(numbers, error)] = target.failed
    assert (numbers, type(error)) == ([0], OntologyNotFoundError)
    assert window.retries == 1


async def test_whoever_waits_for_room_is_told(target):
    told = []
    window = window_to(target, drained=lambda: told.append(window.depth))
    window.add(Item(0))
    await turns()
    assert told == [0]


async def test_a_target_that_never_answers_is_given_up(target, monkeypatch):
    monkeypatch.setattr(module, "PATIENCE_S_MIN", 0.01)
    target.gates[0] = gate()
    failed = asyncio.Event()
    monkeypatch.setattr(target, "fail", lambda items, error: (Target.fail(target, items, error), failed.set()))
    window = window_to(target, give_up_s=0.0)
    window.add(Item(0))
    await asyncio.wait_for(failed.wait(), 10)
    [(numbers, error)] = target.failed
    assert (numbers, type(error)) == ([0], StoreUnavailableError)
    window.add(Item(1))
    await turns()
    assert target.settled == [1]


@pytest.mark.parametrize("data_bytes", [2, 100, 190, 1000, 30_000])
async def test_a_batch_of_writes_fits_into_a_message_of_ray(target, data_bytes):
    """Above 100 KiB Ray puts an argument into its object store, which costs both sides a call of the raylet."""
    sizes = []

    async def send(number, writes):
        keys, ontologies = [str(uuid.uuid4()) for _ in writes], ["SensorTemperatura" for _ in writes]
        batch = WriteBatch(bytes(len(writes)), keys, ontologies, [write.data for write in writes])
        sizes.append(len(pickle.dumps(batch, protocol=5)))

    window = SendWindow(send, target.fail, give_up_s=10.0)
    for number in range(2 * module.BATCH_MESSAGES_MAX):
        window.add(FutureWrite(INSERT, "s", "SensorTemperatura", b"%0*d" % (data_bytes, number), {}))
    await turns(2000)
    assert len(sizes) > 1
    assert max(sizes) < 100 * 1024
