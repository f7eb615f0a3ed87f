"""The attempts with a supervisor that is an ordinary user: ``python attempts_as_user.py LEVEL FOLDER`` prints their results."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import orjson  # noqa: F401 - bait: a package that must not be importable inside
from bait import laid

from actors.sandbox.child import Child
from actors.sandbox.limits import Limits
from actors.sandbox.program import Program
from actors.sandbox.sandbox import Level, find_sandbox

SOURCE = (Path(__file__).parent / "attempts.py").read_bytes()


async def main(level: int, folder: Path) -> None:
    output = bytearray()
    with laid(folder) as bait:
        inside = {**bait, "outside": False, "own": "/work" if level == 3 else str(folder)}
        async with await Child.start(find_sandbox(Level(level)), Limits(timeout_s=30.0)) as child:
            program = Program("attempts.py", (json.dumps(inside),), source=SOURCE)
            child.run(program, on_output=lambda stream, data: output.extend(data) if stream == 1 else None)
            end = await child.wait()
    if not end.is_success:
        sys.exit(end.describe())
    os.write(1, output)


asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
