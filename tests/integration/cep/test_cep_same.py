"""Live and in a back-test the same instances are the same rows, events and alarms."""

from datetime import timedelta

from sofia2.backtest import backtest
from sofia2.bdh import open_history
from storage.bdc.bdc import utc_now
from tests.integration.cep.cep_platform import cep_rule

JOINED = cep_rule(
    "joined", "EIN as i join Other as o on i.IN__K == o.k", "i.IN__K as k, o._id as other, o.n as n", "Joined"
)


async def test_alarms_of_a_back_test_have_the_ids_of_those_of_the_platform(platform, tmp_path):
    await platform.send("Other", {"k": "a", "n": 41}, {"k": "b", "n": 42})
    await platform.start(JOINED)
    await platform.send("In", {"k": "a"}, {"k": "b"}, {"k": "a"})
    await platform.until(lambda: len(platform.gateway.heard) == 3)
    with open_history(tmp_path, None) as history:
        hour = timedelta(hours=1)
        now = utc_now()
        report = backtest(history, [JOINED], now - 24 * hour, now + 24 * hour)
    live = [(output["id"], output["data"]) for output in platform.gateway.heard]
    assert [(alarm.alarm_id, alarm.data) for alarm in report.alarms] == live
    assert all(len(data["other"]) == 24 for _, data in live)
