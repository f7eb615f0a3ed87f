"""The channel: calls in both directions, and whatever a hostile program sends over it."""

from __future__ import annotations

import asyncio
import os
import struct
import time
from dataclasses import replace

import pytest
from conftest import LIMITS

from actors.sandbox.child import Child
from actors.sandbox.errors import ProgramEndedError, ProgramError, SandboxTimeoutError
from actors.sandbox.exits import Reason
from actors.sandbox.frames import FRAME_BYTES_MAX
from actors.sandbox.inside.frames import FrameError
from actors.sandbox.peer import CALLS_IN_FLIGHT_MAX
from actors.sandbox.program import Program
from sib.errors import OntologyNotFoundError

SERVER = b"""
import sandbox_channel as channel
def fail(payload):
    raise ValueError("wrong " + payload)
def ask(payload):
    return channel.call("ask", payload)
def loop(payload):
    while True:
        pass
channel.serve({"echo": lambda payload: payload, "fail": fail, "ask": ask, "loop": loop})
"""


async def start(sandbox, source=SERVER, *, limits=LIMITS, on_call=None):
    child = await Child.start(sandbox, limits)
    child.run(Program("program.py", source=source), **({"on_call": on_call} if on_call else {}))
    return child


async def test_the_supervisor_calls_the_program(sandbox):
    async with await start(sandbox) as child:
        for payload in (None, 1, "ñ\u2028", [1, {"a": None}], "x" * 500_000):
            assert await child.call("echo", payload, timeout_s=10) == payload
        with pytest.raises(ProgramError, match="ValueError: wrong thing"):
            await child.call("fail", "thing", timeout_s=10)
        with pytest.raises(ProgramError, match="no method 'other'"):
            await child.call("other", timeout_s=10)


async def test_the_program_calls_the_supervisor_meanwhile(sandbox):
    async def answer(method, payload):
        await asyncio.sleep(0)
        return [method, payload]

    async with await start(sandbox, on_call=answer) as child:
        assert await child.call("ask", 7, timeout_s=10) == ["ask", 7]


async def test_refusals_reach_the_program_and_faults_keep_their_text(sandbox, runner):
    source = """
import sandbox_channel as channel
for method in ("refused", "broken", "unprintable"):
    try:
        channel.call(method)
    except channel.CallError as error:
        print(error.code, error)
"""

    def answer(method, payload):
        if method == "refused":
            raise OntologyNotFoundError("there is no ontology X")
        if method == "broken":
            raise RuntimeError("password=secret")
        return object()

    result = await runner(sandbox, source, on_call=answer)
    lines = result.output.splitlines()
    assert lines[0] == "ontology.not_found there is no ontology X"
    assert lines[1].startswith("sib.internal")
    assert "secret" not in result.output
    assert "cannot be sent" in lines[2]


async def test_a_program_alone_has_no_platform(sandbox, runner):
    result = await runner(sandbox, "import sandbox_channel\nsandbox_channel.call('insert', {})")
    assert "there is no platform here" in result.errors
    assert result.end.status == 1


async def test_notices_in_both_directions(sandbox):
    source = b"""
import sandbox_channel
channel = sandbox_channel.current()
while True:
    message = channel.receive()
    channel.notify("told", [message.method, message.payload])
"""
    told: asyncio.Queue = asyncio.Queue()
    async with await start(
        sandbox, source, on_call=lambda method, payload: told.put_nowait((method, payload))
    ) as child:
        for number in range(100):
            await child.notify("tell", number)
        for number in range(100):
            assert await told.get() == ("told", ["tell", number])


async def test_what_was_told_before_the_end_counts(sandbox, runner):
    told = []
    source = "import sandbox_channel\nfor number in range(1000):\n    sandbox_channel.notify('tell', number)"
    result = await runner(sandbox, source, on_call=lambda method, payload: told.append(payload))
    assert result.end.is_success
    assert told == list(range(1000))


async def test_nothing_is_believed_after_the_kill(full):
    told = []
    source = b"import sandbox_channel\nwhile True:\n    sandbox_channel.notify('tell')"
    async with await start(full, source, on_call=lambda method, payload: told.append(payload)) as child:
        while not told:
            await asyncio.sleep(0.01)
        child.kill()
        count = len(told)
        await child.wait()
        assert len(told) == count


async def test_calls_from_threads(sandbox, runner):
    source = """
import sandbox_channel
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(4) as pool:
    print(sum(pool.map(lambda number: sandbox_channel.call("double", number), range(100))))
"""
    result = await runner(sandbox, source, on_call=lambda method, payload: payload * 2)
    assert result.output == "9900\n"


async def test_a_forked_process_has_no_channel(full, runner):
    if not full.can_fork(LIMITS):
        pytest.skip("no cgroup: programs cannot fork")
    source = """
import os, sandbox_channel
sandbox_channel.call("first")
if os.fork() == 0:
    try:
        sandbox_channel.call("second")
    except sandbox_channel.ChannelClosedError as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
"""
    methods = []
    result = await runner(full, source, on_call=lambda method, payload: methods.append(method))
    assert "forked process" in result.output
    assert methods == ["first"]


async def test_no_answer_in_time_ends_the_program(sandbox):
    async with await start(sandbox) as child:
        with pytest.raises(SandboxTimeoutError):
            await child.call("loop", timeout_s=0.3)
        assert (await child.wait()).reason is Reason.TIMEOUT
        with pytest.raises(ProgramEndedError):
            await child.call("echo", timeout_s=1)


async def test_a_call_that_the_caller_gave_up_harms_nobody(sandbox):
    """Its answer still comes, and is no forged one."""
    source = b"""
import sandbox_channel, time
sandbox_channel.serve({"slow": lambda payload: time.sleep(0.3), "echo": lambda payload: payload})
"""
    async with await start(sandbox, source) as child:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await child.call("slow", timeout_s=10)
        assert await child.call("echo", 1, timeout_s=10) == 1


async def test_a_program_that_ends_answers_no_more(sandbox):
    source = b"import sandbox_channel, os\nsandbox_channel.serve({'end': lambda payload: os._exit(5)})"
    async with await start(sandbox, source) as child:
        with pytest.raises(ProgramEndedError, match="status 5"):
            await child.call("end", timeout_s=10)


async def test_a_payload_beyond_a_frame_is_refused_on_both_sides(sandbox):
    source = b"import sandbox_channel\nsandbox_channel.serve({'long': lambda payload: 'x' * (1 << 20)})"
    async with await start(sandbox, source) as child:
        with pytest.raises(FrameError):
            await child.call("long", "x" * FRAME_BYTES_MAX, timeout_s=1)
        assert child.is_alive


HEAD = struct.Struct(">I")
BODIES = {
    "not JSON": b"{a}",
    "empty": b"",
    "not an object": b"[]",
    "not UTF-8": b'{"a":"\xff"}',
    "deep": b"[" * 200_000,
    "NaN": b'{"id":1,"call":"a","with":NaN}',
    "unasked answer": b'{"id":99,"result":"x"}',
    "answer without id": b'{"result":"x"}',
    "answer with a list as id": b'{"id":[],"result":1}',
    "call without name": b'{"id":1,"call":[1]}',
    "call with a text as id": b'{"id":"1","call":"a"}',
    "second ready": b'{"ready":true}',
    "long name": b'{"call":"' + b"x" * 500 + b'"}',
}
FORGED = {
    "noise": b"\xff" * 100,
    "huge length": HEAD.pack(FRAME_BYTES_MAX + 1),
    **{name: HEAD.pack(len(body)) + body for name, body in BODIES.items()},
}


@pytest.mark.parametrize("name", FORGED)
async def test_forged_frame_ends_the_program(full, runner, name):
    source = f"import os, time\nos.write(3, {FORGED[name]!r})\ntime.sleep(60)"
    result = await runner(full, source)
    assert result.end.reason is Reason.PROTOCOL, result.end


async def test_an_answer_cannot_be_forged_for_a_later_call(full):
    """Numbers that were not yet given are not believed."""
    source = b"""
import os, struct, time
body = b'{"id":1,"result":"forged"}'
os.write(3, struct.pack(">I", len(body)) + body)
time.sleep(60)
"""
    async with await start(full, source) as child:
        assert (await child.wait()).reason is Reason.PROTOCOL


async def test_half_a_frame_holds_up_nobody(full, runner):
    result = await runner(full, "import os\nos.write(3, b'\\x00\\x0f')\nprint('on')")
    assert result.output == "on\n"
    assert result.end.is_success


async def test_descriptors_that_are_sent_are_dropped(full, runner):
    source = """
import socket, os
channel = socket.socket(fileno=3)
body = b'{"call":"x"}'
for _ in range(25):
    socket.send_fds(channel, [len(body).to_bytes(4, "big") + body], [1, 2])
channel.detach()
"""
    before = len(os.listdir("/proc/self/fd"))
    calls = []
    result = await runner(full, source, on_call=lambda method, payload: calls.append(method))
    assert result.end.is_success
    assert len(calls) == 25
    assert len(os.listdir("/proc/self/fd")) <= before


async def test_calls_are_slowed_down_to_their_rate(full):
    source = b"""
import sandbox_channel
while True:
    sandbox_channel.notify("flood", "x" * 1000)
"""
    count = 0

    def counted(method, payload):
        nonlocal count
        count += 1

    limits = replace(LIMITS, calls_per_s=200.0, timeout_s=1.5)
    async with await start(full, source, limits=limits, on_call=counted) as child:
        assert (await child.wait()).reason is Reason.TIMEOUT
    assert 200 < count < 200 * (1 + 1.5) + 50


async def test_only_so_many_calls_are_carried_out_at_once(full):
    source = b"""
import os, json
for number in range(500):
    body = json.dumps({"id": number, "call": "wait"}).encode()
    os.write(3, len(body).to_bytes(4, "big") + body)
os.write(1, b"sent")
import time
time.sleep(60)
"""
    running = most = 0
    release = asyncio.Event()

    async def wait(method, payload):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await release.wait()
        running -= 1

    async with await start(full, source, on_call=wait) as child:
        deadline = time.monotonic() + 5
        while most < CALLS_IN_FLIGHT_MAX and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)
        assert most == CALLS_IN_FLIGHT_MAX
        release.set()
        assert child.is_alive


async def test_answers_that_are_not_read_are_bounded(full):
    """A program that asks and never reads: the supervisor stops reading its questions, and ends it after a while."""
    source = b"""
import os, json
for number in range(100000):
    body = json.dumps({"id": number, "call": "big"}).encode()
    os.write(3, len(body).to_bytes(4, "big") + body)
"""
    calls = 0

    def big(method, payload):
        nonlocal calls
        calls += 1
        return "x" * 500_000

    limits = replace(LIMITS, timeout_s=1.5)
    async with await start(full, source, limits=limits, on_call=big) as child:
        assert (await child.wait()).reason is Reason.TIMEOUT
    assert calls < 30


async def test_a_stalled_program_is_ended(full, monkeypatch):
    monkeypatch.setattr("actors.sandbox.peer.STALLED_S", 0.3)
    async with await start(full, b"import time\ntime.sleep(60)") as child:
        for _ in range(4):
            await child.notify("tell", "x" * 900_000)
        assert (await child.wait()).reason is Reason.STALLED
