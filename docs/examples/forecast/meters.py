"""Three meters report four weeks of energy, hour by hour, over the platform's MQTT: ``python meters.py mqtt://HOST:PORT``."""

# ruff: noqa: D103, S105, S311

import asyncio
import math
import random
import sys
from datetime import datetime, timedelta

from sofia2.kp import KP, Insert

TOKEN = "meters00000000000000000000000001"
METERS = {"bakery": 4.0, "school": 9.0, "workshop": 14.0}
FIRST, HOURS = datetime(2026, 9, 7), 24 * 28  # from a Monday on
BATCH = 500


def readings():
    chance = random.Random(7)
    for hour in range(HOURS):
        at = FIRST + timedelta(hours=hour)
        day = 1 + 0.5 * math.sin(math.tau * (at.hour - 8) / 24) + 0.2 * math.sin(2 * math.tau * at.hour / 24)
        for meter, mean in METERS.items():
            share = 0.4 if at.weekday() >= 5 else 1.0
            kwh = mean * day * share + chance.gauss(0, 0.05 * mean)
            yield {"Reading": {"meter": meter, "at": at, "kWh": round(max(kwh, 0), 3)}}


async def main(url):
    instances = list(readings())
    async with KP(url, "KPMeters:gateway", token=TOKEN) as kp:
        for start in range(0, len(instances), BATCH):
            result = await kp.bulk([Insert("EnergyReading", each) for each in instances[start : start + BATCH]])
            assert not result.errors, result.errors[0]
    print(f"{len(instances)} readings")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
