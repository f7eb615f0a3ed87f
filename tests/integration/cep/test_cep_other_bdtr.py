"""A CEP shard whose kept position is of another BDTR than the one that the platform has now."""

from storage.bdc.bdc import utc_now
from tests.integration.cep.cep_platform import SHARD, cep_rule

RULE = cep_rule("r", "eIn", "IN__N as n", "Out")


async def test_what_comes_first_in_a_new_bdtr_is_heard(platform):
    await platform.start(RULE)
    await platform.send("In", {"n": 1})
    await platform.until(lambda: platform.gateway.numbers("Out") == [1])
    await platform.until(lambda: platform.bdc.cep.load(SHARD) is not None)
    _, state = platform.bdc.cep.load(SHARD)
    platform.die()
    platform.bdc.cep.save(SHARD, {"partition-0": 1_000_000, "partition-gone": 5}, state, utc_now())

    await platform.start()
    await platform.send("In", {"n": 2})
    await platform.until(lambda: platform.gateway.numbers("Out")[-1:] == [2])
