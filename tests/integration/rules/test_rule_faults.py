"""What goes wrong around a run costs nobody else anything: not those behind it, not those before it, not those beside it."""

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
