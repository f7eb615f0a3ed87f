"""At least once, in order, and no effect twice: retries, dead letters, crashes, quotas, loops."""

import asyncio
import random

import bson

from actors.feed import Event
from actors.rules import lane as lane_module
from sib.errors import MalformedMessageError, StoreUnavailableError
from sib.rules.guards import FAILURES_MAX
from sib.rules.rule import RuleType
from storage.bdc.records import OntologyRecord
from tests.integration.rules.rule_platform import LocalRef, a_rule

COPY = 'sofia.insert("Out", {"n": ontology["n"]})'


async def test_what_fails_is_tried_three_times_and_then_kept(platform, monkeypatch):
    monkeypatch.setattr(lane_module, "RETRY_S", (0.02, 0.05))
    await platform.rules(a_rule(then="if ontology['n'] == 1: raise ValueError('no')\n" + COPY))
    runner = await platform.start()
    await platform.send("In", {"n": 1}, {"n": 2})
    (letter,) = await platform.until(lambda: platform.bdc.rules.dead_letters("rule"))
    assert (letter.attempts, letter.reason) == (3, "ValueError in THEN, line 1: no")
    await platform.until_idle()
    attempts = [record.details["attempt"] for record in platform.log("rule") if record.details["result"] == "error"]
    assert attempts == [3, 2, 1]
    assert await platform.until_rows("Out", 1) == [{"n": 2}]
    assert await runner.redrive("rule") == {"redriven": 0, "failed": 1}
    await platform.rules(a_rule(then=COPY))
    assert await runner.redrive("rule") == {"redriven": 1, "failed": 0}
    assert await platform.rows("Out") == [{"n": 2}, {"n": 1}]
    assert platform.bdc.rules.dead_letters() == []


async def test_runs_of_one_instance_stay_in_order_behind_one_that_is_tried_again(platform, monkeypatch):
    monkeypatch.setattr(lane_module, "RETRY_S", (0.1, 0.1))
    then = "global tries\ntries = globals().get('tries', 0) + 1\nif tries == 1: raise ValueError\n" + COPY
    await platform.rules(a_rule(then=then))
    await platform.start()
    await platform.send("In", {"n": 1}, {"n": 2}, {"n": 3})
    assert await platform.until_rows("Out", 3) == [{"n": 1}, {"n": 2}, {"n": 3}]


async def test_a_store_that_does_not_answer_costs_no_try(platform):
    await platform.rules(a_rule(then=COPY))
    runner = await platform.start()
    insert, left = runner._inside.begin_insert, [4]

    async def sometimes(*arguments, **keywords):
        left[0] -= 1
        if left[0] >= 2:
            raise StoreUnavailableError("not now")
        sent = await insert(*arguments, **keywords)
        return asyncio.ensure_future(undecided(sent)) if left[0] >= 0 else sent

    async def undecided(sent):
        await sent
        raise StoreUnavailableError("stored, but nobody heard of it")

    runner._inside.begin_insert = sometimes
    await platform.send("In", {"n": 1})
    await platform.until_idle()
    assert left[0] < 0
    assert await platform.rows("Out") == [{"n": 1}]
    assert platform.bdc.rules.dead_letters() == []


async def test_of_several_refusals_the_first_counts(platform):
    """The schema of the first insert is the partition's affair, the right to the second one's is seen before it is sent."""
    with platform.bdc.change() as configuration:
        configuration.ontologies.put(OntologyRecord("Foreign", "ana", "{}"))
    then = 'sofia.insert("Out", {"n": "text"})\nsofia.insert("Foreign", {})\nsofia.insert("Out", {"n": 1})'
    await platform.rules(a_rule(then=then, error="sofia.kv.put('why', error['type'])"))
    await platform.start()
    await platform.send("In", {"n": 1})
    await platform.until_idle()
    assert platform.bdc.rules.values("rule") == {"why": '"ontology.invalid_instance"'}
    assert await platform.rows("Out") == []


async def test_refused_inserts_of_a_batch_fail_alone(platform):
    then = "sofia.insert('Out', {'n': ontology['n'] if ontology['n'] % 3 else 'text'})"
    await platform.rules(a_rule(then=then, error="sofia.insert('Out', {'n': -ontology['n']})"))
    await platform.start()
    await platform.send("In", *[{"n": n} for n in range(1, 31)])
    await platform.until_idle()
    assert sorted(row["n"] for row in await platform.rows("Out")) == sorted(n if n % 3 else -n for n in range(1, 31))


async def test_lines_of_a_batch_are_logged_together_and_one_that_is_refused_fails_alone(platform, monkeypatch):
    monkeypatch.setattr(lane_module, "RETRY_S", (0.001, 0.001))
    await platform.rules(a_rule(then="sofia.log('bad' if ontology['n'] == 7 else 'good')\n" + COPY))
    runner = await platform.start()
    log, calls = runner._bdc.log, []

    def refusing(records):
        if any(record.kind == "LOG" for record in records):
            calls.append(len(records))
        if any(record.summary == "bad" for record in records):
            raise MalformedMessageError("not this line")
        log(records)

    monkeypatch.setattr(runner._bdc, "log", refusing)
    await runner._feed._take("partition-0", [Event(at, "In", {"_id": bson.ObjectId(), "n": at}) for at in range(40)])
    (letter,) = await platform.until(lambda: platform.bdc.rules.dead_letters("rule"))
    assert letter.reason == "ssap.malformed in EFFECTS: not this line"
    await platform.until(lambda: runner._waiting == 0)
    assert len([record for record in platform.bdc.read_log(100, kind="LOG") if record.summary == "good"]) == 39
    assert max(calls) > 1


async def test_a_rule_has_the_rights_of_its_owner(platform, monkeypatch):
    monkeypatch.setattr(lane_module, "RETRY_S", (0.01, 0.01))
    error = "sofia.kv.put('why', error['type'])"
    await platform.rules(
        a_rule("hers", owner="ana", then=COPY),
        a_rule("handled", owner="ana", then=COPY, error=error),
        a_rule("reads", owner="ana", then="sofia.query('select * from Out')"),
        a_rule("calls", owner="ana", then="sofia.runScript('hers2')"),
        a_rule("hers2", type=RuleType.TIMED, schedule="@yearly", then="pass"),
    )
    await platform.start()
    await platform.send("In", {"n": 1})
    letters = await platform.until(lambda: len(found := platform.bdc.rules.dead_letters()) == 3 and found)
    assert {letter.rule for letter in letters} == {"hers", "reads", "calls"}
    await platform.until_idle()
    assert platform.bdc.rules.values("handled") == {"why": '"access.denied"'}
    assert await platform.rows("Out") == []


async def test_a_rule_that_fails_too_often_is_not_run_for_a_while(platform, monkeypatch):
    monkeypatch.setattr(lane_module, "RETRY_S", (0.001, 0.001))
    await platform.rules(a_rule(then="1/0"))
    runner = await platform.start()
    await platform.send("In", *[{"n": n} for n in range(FAILURES_MAX + 5)])
    await platform.until(lambda: len(platform.bdc.rules.dead_letters()) == FAILURES_MAX + 5)
    assert runner.rules()["rules"]["rule"]["state"] == "broken"
    assert runner.rules()["rules"]["rule"]["failures"] == 3 * FAILURES_MAX
    await platform.rules(a_rule(then=COPY))
    assert await runner.redrive("rule") == {"redriven": FAILURES_MAX + 5, "failed": 0}
    assert sorted(row["n"] for row in await platform.rows("Out")) == list(range(FAILURES_MAX + 5))


async def test_rules_that_trigger_one_another_stop_after_eight(platform):
    await platform.rules(
        a_rule("there", then=COPY), a_rule("back", ontologies=("Out",), then='sofia.insert("In", ontology)')
    )
    runner = await platform.start()
    await platform.send("In", {"n": 1})
    await platform.until(lambda: runner.rules()["rules"]["there"]["refused"])
    await platform.until_idle()
    assert (len(await platform.rows("In")), len(await platform.rows("Out"))) == (5, 4)
    assert platform.log("there")[0].details["result"] == "loop"


async def test_a_rule_that_modifies_what_triggers_it_stops_after_eight(platform):
    await platform.rules(a_rule(then='sofia.update(\'db.In.update({}, {"$inc": {"n": 1}})\')'))
    runner = await platform.start()
    await platform.send("In", {"n": 0})
    await platform.until(lambda: runner.rules()["rules"]["rule"]["refused"])
    await platform.until_idle()
    assert await platform.rows("In") == [{"n": 8}]


async def test_a_rule_that_modifies_what_triggers_it_stops_after_eight_also_when_its_runner_dies(platform):
    """The changes come from the log then, and nothing in the runner's memory says who made them."""
    await platform.rules(a_rule(then='sofia.update(\'db.In.update({}, {"$inc": {"n": 1}})\')'))
    await platform.start()
    await platform.send("In", {"n": 0})
    for least in (2, 5):
        await platform.until(lambda least=least: has_reached(platform, least))
        await platform.die()
        await platform.start()
    await platform.until_idle()
    (row,) = await platform.rows("In")
    assert 8 <= row["n"] <= 3 * 8, "a run under way in a crash may be made again, and what follows from it ends as well"


async def has_reached(platform, least):
    return (await platform.rows("In"))[0]["n"] >= least


async def test_quotas(platform, monkeypatch):
    monkeypatch.setattr(lane_module, "RETRY_S", (0.01, 0.01))
    with platform.bdc.change() as configuration:
        configuration.settings.put("rules.writes_per_minute", 5)
    await platform.rules(
        a_rule(then=COPY),
        a_rule("many", then="for n in range(1001): sofia.log('x')"),
        a_rule("large", then="sofia.log('x' * 60000)\n" * 40),
    )
    await platform.start()
    await platform.send("In", *[{"n": n} for n in range(6)])
    await platform.until(
        lambda: {letter.rule for letter in platform.bdc.rules.dead_letters()} == {"rule", "many", "large"}
    )
    assert sorted(row["n"] for row in await platform.rows("Out")) == list(range(5))
    reasons = {letter.rule: letter.reason for letter in platform.bdc.rules.dead_letters()}
    assert "5 times a minute" in reasons["rule"]
    assert "at most 1000 effects" in reasons["many"]


async def test_crashes_lose_nothing_and_double_nothing(platform):
    """The runner dies again and again in the middle; each instance has its effect once, each count is right."""
    then = COPY + '\nsofia.insert("Out", {"n": -ontology["n"] - 1})'
    await platform.rules(
        a_rule("copy", then=then),
        a_rule("count", then="sofia.kv.put('n', sofia.kv.get('n', 0) + 1)"),
    )
    chance = random.Random(7)
    sent = 0
    for _ in range(12):
        await platform.start()
        for _ in range(5):
            await platform.send("In", *[{"n": sent + n} for n in range(8)])
            sent += 8
            await asyncio.sleep(chance.random() * 0.02)
        await platform.die()
    await platform.start()
    await platform.until_rows("Out", 2 * sent)
    await platform.until_idle()
    rows = sorted(row["n"] for row in await platform.rows("Out"))
    assert rows == sorted([*range(sent), *(-n - 1 for n in range(sent))])
    assert platform.bdc.rules.values("count") == {"n": str(sent)}
    assert platform.bdc.rules.dead_letters() == []


async def test_without_a_sandbox_no_rule_runs(platform, monkeypatch):
    from actors.rules import runner as runner_module
    from actors.sandbox.sandbox import Level
    from actors.sandbox.selftest import Report

    async def none(*_):
        return Report(Level.NONE, None, {})

    monkeypatch.setattr(runner_module.selftest, "check", none)
    await platform.rules(a_rule(then=COPY))
    runner = await platform.start()
    assert "programs cannot be isolated here" in runner.rules()["refusal"]
    assert runner.rules()["rules"] == {}
    assert LocalRef.actors["rule-runner-0"] is runner


async def test_a_rule_that_is_turned_off_at_work_ends_its_run_and_holds_nothing_back(platform):
    then = "import time\nsofia.insert('Out', {'n': ontology['n']})\ntime.sleep(0.3)"
    await platform.rules(a_rule(then=then))
    await platform.start()
    await platform.send("In", {"n": 1}, {"n": 2}, {"n": 3})
    await asyncio.sleep(0.1)
    await platform.rules(a_rule(then=then, active=False))
    await platform.until(lambda: platform.runner._waiting == 0)
    assert (await platform.rows("Out"))[0] == {"n": 1}
    await platform.rules(a_rule("other", then=COPY))
    await platform.send("In", {"n": 9})
    await platform.until_idle()
    assert (await platform.rows("Out"))[-1] == {"n": 9}
