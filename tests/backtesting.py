"""What the tests of both back-tests (CEP rules, script rules) share: two hours of readings, and the command."""

import json
from datetime import datetime, timedelta

from bson import ObjectId

import sofia2.bdtr
from sofia2 import cli
from sofia2.console import output

BEGIN = datetime(2026, 3, 1, 23, 0)
BEGIN_MS = 1_772_406_000_000


def store_readings(folder, config, instance):
    """A reading a minute over midnight, ``instance(n)`` each, into the ontology Lectura of a stopped platform."""
    (folder / "bdtr").mkdir(exist_ok=True)
    with sofia2.bdtr.open(config.partition_url(config.topology.partition_of("Lectura"))) as database:
        database["Lectura"].insert_many(
            {
                "_id": ObjectId(),
                "contextData": {"timestamp": BEGIN + timedelta(minutes=n), "user": "sofia", "kp": "KP1"},
                **instance(n),
            }
            for n in range(120)
        )


def backtests(group, until, data, capsys, monkeypatch):
    """``sofia2 GROUP backtest RULE``: what it found, or (with another status than 0) what it said."""
    monkeypatch.setattr(output, "_consoles", {})

    def run(rule, *options, status=0):
        arguments = [group, "backtest", rule, "--since", "2026-03-01", "--until", until, *options]
        assert cli.run([*arguments, "--data", str(data), "--json"]) == status
        captured = capsys.readouterr()
        return json.loads(captured.out) if status == 0 else captured.err

    return run
