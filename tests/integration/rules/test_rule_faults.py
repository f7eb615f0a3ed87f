"""What goes wrong around a run costs nobody else anything: not those behind it, not those before it, not those beside it."""

import asyncio

from actors.rules.script import FRAME_BYTES_MAX, Script
from sib.rules.guards import FAILURES_MAX
from sib.rules.trigger import Trigger
from tests.integration.rules.rule_platform import a_rule
from tests.integration.rules.test_rule_batches import COPY, put


async def test_while_the_run_that_tries_a_broken_rule_is_under_way_nothing_is_refused(platform):
    await platform.rules(a_rule(then=COPY))
    runner = await platform.start()
    (lane,) = runner._lanes.values()
    lane._breaker._failures, lane._at_once = FAILURES_MAX, 20  # its pause is over
    await put(runner, range(50))
    assert await platform.rows("Out") == [{"n": n} for n in range(50)]
    assert platform.bdc.rules.dead_letters() == []


async def test_what_is_sent_is_recorded_though_the_runs_ahead_of_it_fail(platform, monkeypatch):
    await platform.rules(a_rule(then=COPY))
    runner = await platform.start()
    (lane,) = runner._lanes.values()
    begin, ask, has_failed, begun = runner._inside.begin_insert, Script._ask, asyncio.Event(), []

    async def held_back(who, ontology, instance, *, once):
        begun.append(instance)
        await has_failed.wait()
        return await begin(who, ontology, instance, once=once)

    async def failing_once(self, events, may_read=True):
        if not may_read and not has_failed.is_set():
            await platform.until(lambda: begun)
            has_failed.set()
            raise ZeroDivisionError
        return await ask(self, events, may_read)

    runner._inside.begin_insert = held_back
    monkeypatch.setattr(Script, "_ask", failing_once)
    await put(runner, range(3))
    assert [row["n"] for row in await platform.rows("Out")] == [0, 1, 2]
    assert begun.count('{"n": 0}') == 1
    assert lane.counts["dead"] == 0


async def test_a_fault_where_runs_are_taken_does_not_end_the_work(platform, monkeypatch):
    await platform.rules(a_rule(then=COPY))
    runner = await platform.start()
    (lane,) = runner._lanes.values()
    refused, failed = lane._refused, []

    async def failing_once(item):
        if not failed:
            failed.append(item)
            raise ZeroDivisionError
        return await refused(item)

    lane._refused = failing_once
    await asyncio.wait_for(put(runner, range(3)), 10)
    assert [row["n"] for row in await platform.rows("Out")] == [0, 1, 2]


async def test_a_batch_fits_into_a_frame_whatever_its_letters_take(platform):
    await platform.rules(a_rule(then="pass"))
    runner = await platform.start()
    (lane,) = runner._lanes.values()
    for letter in ("\u6f22", '"', "\x01"):
        triggers = [Trigger("rule", str(n), 0, {"ontology": f'{{"n": {n}}}', "data": letter * 880}) for n in range(400)]
        results = await lane._script.run(triggers)
        assert len(results) > 1
        assert all(result.is_ok for result in results)
    (result,) = await lane._script.run([Trigger("rule", "x", 0, {"data": "\u6f22" * (FRAME_BYTES_MAX // 3)})])
    assert result.failure is not None
    assert result.failure.type == "LimitError"
