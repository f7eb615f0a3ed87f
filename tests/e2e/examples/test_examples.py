"""The examples of the documentation, run as its reader would run them."""

import math
import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "docs" / "examples"


@pytest.mark.timeout(300)
def test_a_forecast_from_history(platform):
    folder = EXAMPLES / "forecast"

    def python(script):
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SOFIA2_", "RAY_"))}
        reader = {"SOFIA2_DATA": str(platform.data), "SOFIA2_USER": "grid", "SOFIA2_PASSWORD": "grid-password"}
        environment = kept | reader | {"PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0"}
        command = [sys.executable, str(folder / script), platform.endpoints["mqtt"]]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/", env=environment, timeout=200)
        assert done.returncode == 0, done.stderr
        return done.stdout

    applied = platform.command("apply", folder / "platform.yaml")
    assert applied.returncode == 0, applied.stderr
    assert python("meters.py") == "2016 readings\n"
    moved = 0
    while moved < 2016:  # the window of the ontology is a second
        counts = platform.answer("process", "run", "transfer", "--ontology", "EnergyReading")["counts"]
        moved += counts["moved"]
    said = python("forecast.py")
    assert said.endswith("72 forecasts from 2026-10-05 00:00 on\n"), said

    rows = platform.answer(
        "query", "select Forecast.meter as m, Forecast.at as t, Forecast.kWh as k from EnergyForecast"
    )
    assert len(rows) == 72
    for row in rows:
        at = datetime.fromisoformat(row["t"]["$date"])
        mean = {"bakery": 4.0, "school": 9.0, "workshop": 14.0}[row["m"]]
        true = mean * (1 + 0.5 * math.sin(math.tau * (at.hour - 8) / 24) + 0.2 * math.sin(2 * math.tau * at.hour / 24))
        assert row["k"] == pytest.approx(true, abs=0.06 * mean)
