"""Warns when the average of a room's last readings is above 25 degrees, once until it has been below again.

Deploy it: sofia2 kp deploy docs/examples/kp-thermostat
"""

import asyncio
from collections import defaultdict, deque

import sofia2

LIMIT = 25.0
READINGS = 5


async def main() -> None:
    """Watch the readings until the platform ends this program."""
    rooms = defaultdict(lambda: deque(maxlen=READINGS))
    warned = set()
    async with sofia2.KP() as kp, kp.subscribe("Termostato") as readings:
        print("watching")
        async for reading in readings:
            room = reading.get("room", "")
            rooms[room].append(reading["celsius"])
            average = sum(rooms[room]) / len(rooms[room])
            if average <= LIMIT:
                warned.discard(room)
            elif room not in warned:
                warned.add(room)
                warning = {"room": room, "average": round(average, 2), "readings": len(rooms[room])}
                await kp.insert("AvisoTermostato", warning)
                print("warned", warning)


asyncio.run(main())
