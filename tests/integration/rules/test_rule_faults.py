"""What goes wrong around a run costs nobody else anything: not those behind it, not those before it, not those beside it."""

from sib.rules.guards import FAILURES_MAX
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
