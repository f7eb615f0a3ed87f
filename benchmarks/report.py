"""What all benchmarks have in common: their arguments, the table they print and the JSON they write."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def arguments(text: str) -> argparse.Namespace:
    """``--json FILE`` and ``--quick``."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there, too")
    parser.add_argument("--quick", action="store_true", help="a short run: does it work, roughly how fast")
    return parser.parse_args()


@dataclass(frozen=True)
class Row:
    """One measured value and, where the project has set itself one, the figure to reach."""

    what: str
    value: float
    unit: str
    wanted: str = ""


class Report:
    """The results of one benchmark."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows: list[Row] = []
        self.ratio: float | None = None

    def add(self, what: str, value: float, unit: str, wanted: str = "") -> None:
        """Note a value; ``wanted`` is the figure to reach, in words such as ``>= 35000``. Shown at once on standard error."""
        self.rows.append(Row(what, round(value, 3), unit, wanted))
        say(f"{what}: {value:,.6g} {unit}")

    def finish(self, file: Path | None) -> None:
        """Print the table, and write the JSON if a file is named."""
        width = max(len(row.what) for row in self.rows)
        print(f"{self.name}  ({commit()}; {machine()})")
        for row in self.rows:
            print(f"  {row.what:<{width}}  {row.value:>14,.6g} {row.unit:<9} {row.wanted}".rstrip())
        if file is not None:
            file.write_text(json.dumps(self.to_json(), indent=1) + "\n")

    def to_json(self) -> dict[str, Any]:
        results = [
            {"what": r.what, "value": r.value, "unit": r.unit, **({"wanted": r.wanted} if r.wanted else {})}
            for r in self.rows
        ]
        value: dict[str, Any] = {"name": self.name, "commit": commit(), "machine": machine(), "results": results}
        if self.ratio is not None:
            value["ratio"] = round(self.ratio, 2)
        return value


def say(text: str) -> None:
    """Progress, on standard error."""
    print(text, file=sys.stderr, flush=True)


def commit() -> str:
    """The checkout's commit, with a mark if files differ from it."""
    git = ["git", "-C", str(ROOT)]
    done = subprocess.run([*git, "rev-parse", "--short=10", "HEAD"], capture_output=True, text=True)
    if done.returncode:
        return "unknown"
    changed = subprocess.run([*git, "status", "--porcelain", "-uno"], capture_output=True, text=True).stdout
    return done.stdout.strip() + ("+changes" if changed.strip() else "")


def machine() -> str:
    """Processor, cores, memory and versions in one line."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0))
    return f"{cores} x {model}, {memory_gib:.0f} GiB, {platform.system()} {platform.release()}, Python {platform.python_version()}"


def load_of_others() -> float:
    """The machine's load average of the last minute: a figure measured beside other work is not one."""
    return os.getloadavg()[0]


def percentile(values: Sequence[float] | array[float], part: float) -> float:
    """The value below which ``part`` of the values lie; 0 if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else 0.0
