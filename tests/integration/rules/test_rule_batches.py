"""Many runs at once: what is made ahead of what, what a script sees then, and that the order stays."""

import asyncio
from collections import defaultdict

import bson

from actors.feed import Event
from actors.rules import lane as lane_module
from actors.rules.script import Script
from tests.integration.rules.rule_platform import a_rule

COPY = 'sofia.insert("Out", {"n": ontology["n"]})'


async def put(runner, numbers, instances=1):
    """Instances of several KP instances, as one announcement."""
    events = [
        Event(n, "In", {"_id": bson.ObjectId(), "contextData": {"kp": "K", "kp_instancia": str(n % instances)}, "n": n})
        for n in numbers
    ]
    handled = await runner._feed._take("partition-0", events)
    if handled is not None:
        await handled


def note_runs(monkeypatch):
    """The numbers of the events of each batch that a sandbox gets, and of the results that it gives."""
    noted, ask = [], Script._ask

    async def noting(self, events, may_read=True):
        results = await ask(self, events, may_read)
        noted.append((len(events), len(results), may_read))
        return results

    monkeypatch.setattr(Script, "_ask", noting)
    return noted


async def test_while_effects_are_stored_the_next_runs_are_made_already(platform, monkeypatch):
    await platform.rules(a_rule(then=COPY))
    runner = await platform.start()
    noted, begin, may_go_on, begun = note_runs(monkeypatch), runner._inside.begin_insert, asyncio.Event(), []

    async def held_back(who, ontology, instance, *, once):
        begun.append(instance)
        await may_go_on.wait()
        return await begin(who, ontology, instance, once=once)

    runner._inside.begin_insert = held_back
    putting = asyncio.ensure_future(put(runner, range(3)))
    await platform.until(lambda: noted == [(1, 1, True), (2, 2, False)])
    assert begun == ['{"n": 0}'], "its effects wait for those before them"
    may_go_on.set()
    await putting
    assert await platform.rows("Out") == [{"n": n} for n in range(3)]


async def test_a_script_that_reads_sees_what_the_runs_before_it_have_inserted(platform):
    then = "sofia.insert('Out', {'n': sofia.query('select count(*) from Out')}) if ontology['n'] % 3 else " + COPY
    await platform.rules(a_rule(then=then))
    runner = await platform.start()
    await put(runner, range(40), instances=4)
    assert await platform.rows("Out") == [{"n": n} for n in range(40)]


async def test_runs_that_read_are_not_sent_in_vain_again_and_again(platform, monkeypatch):
    await platform.rules(a_rule(then="sofia.kv.put('n', sofia.kv.get('n', 0) + 1)"))
    runner = await platform.start()
    noted = note_runs(monkeypatch)
    await put(runner, range(100))
    assert platform.bdc.rules.values("rule") == {"n": "100"}
    assert sum(events for events, _, _ in noted) < 400


async def test_runs_of_an_instance_stay_in_order_when_some_of_them_fail_at_first(platform, monkeypatch):
    monkeypatch.setattr(lane_module, "RETRY_S", (0.01, 0.01))
    then = f"""
global seen
seen = globals().get("seen", set())
if ontology["n"] % 7 == 0 and ontology["n"] not in seen:
    seen.add(ontology["n"])
    raise ValueError
{COPY}"""
    await platform.rules(a_rule(then=then))
    runner = await platform.start()
    await put(runner, range(300), instances=5)
    rows = [row["n"] for row in await platform.rows("Out")]
    assert sorted(rows) == list(range(300))
    of_instance = defaultdict(list)
    for n in rows:
        of_instance[n % 5].append(n)
    assert all(numbers == sorted(numbers) for numbers in of_instance.values())


async def test_a_run_that_takes_too_long_ahead_of_its_turn_fails_in_its_turn(platform, monkeypatch):
    monkeypatch.setattr(lane_module, "RETRY_S", (0.01, 0.01))
    then = f"while ontology['n'] == 2: pass\n{COPY}"
    await platform.rules(a_rule(then=then, error="sofia.kv.put('why', error['type'])", timeout_s=0.3))
    runner = await platform.start()
    await put(runner, range(6))
    assert [row["n"] for row in await platform.rows("Out")] == [0, 1, 3, 4, 5]
    assert platform.bdc.rules.values("rule") == {"why": '"TimeoutError"'}
