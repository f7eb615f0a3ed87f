"""Definitions of processes: what is refused, and what their options mean."""

import pytest

from actors.processes.definitions import (
    PREDEFINED,
    Action,
    LoadFormat,
    all_processes,
    check,
    clean_options,
    format_of,
    load_options,
    transfer_of,
    transfer_options,
)
from sib.errors import ConfigurationError
from storage.bdc.processes import ProcessKind, ProcessRecord
from storage.bdh.groups import GroupBy

HOURLY = {"every_s": 3600, "by": ["Sensor.assetId"], "values": {"Sensor.measure": "avg"}}


def transfer(**options):
    return ProcessRecord("t", ProcessKind.TRANSFER, "Measure", options=options)


def test_the_predefined_ones_are_good_and_can_be_changed():
    for record in PREDEFINED:
        check(record)
    changed = ProcessRecord("transfer", ProcessKind.TRANSFER, schedule="@hourly")
    check(changed)
    assert all_processes([changed])["transfer"] == changed
    assert set(all_processes([])) == {"transfer", "clean", "compact"}


def test_the_own_transfer_of_an_ontology_says_how():
    record = transfer(action="delete")
    processes = all_processes([record])
    assert transfer_of(processes, "Measure") == record
    assert transfer_of(processes, "Other") is None
    assert transfer_options(None).action is Action.MOVE
    assert transfer_options(record).action is Action.DELETE


def test_a_group_and_a_preparation():
    record = transfer(group=HOURLY, prepare=[{"$set": {"Sensor.unit": "C"}}])
    check(record)
    options = transfer_options(record)
    assert options.group == GroupBy(3600, ("Sensor.assetId",), {"Sensor.measure": "avg"})
    assert options.prepare == ({"$set": {"Sensor.unit": "C"}},)


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (ProcessRecord("a:b", ProcessKind.CLEAN), "colon"),
        (ProcessRecord("transfer", ProcessKind.CLEAN), "predefined"),
        (ProcessRecord("transfer", ProcessKind.TRANSFER, "Measure"), "predefined"),
        (ProcessRecord("c", ProcessKind.CLEAN, schedule="61 * * * *"), "minute"),
        (ProcessRecord("c", ProcessKind.CLEAN, options={"file": "/a"}), "no 'file'"),
        (ProcessRecord("c", ProcessKind.CLEAN, options={"keep_log_s": 0}), "above 0"),
        (ProcessRecord("t", ProcessKind.TRANSFER, options={"action": "delete"}), "of one ontology"),
        (transfer(action="burn"), "move, delete"),
        (transfer(action="delete", group=HOURLY), "neither grouped"),
        (transfer(group={"by": []}), "periods"),
        (transfer(group={**HOURLY, "every_s": 7 * 3600}), "divide a day"),
        (transfer(group={**HOURLY, "values": {"Sensor.measure": "median"}}), "median"),
        (transfer(group={**HOURLY, "values": {"contextData.kp": "last"}}), "platform's"),
        (transfer(prepare=[{"$match": {}}]), "prepare"),
        (transfer(prepare=[{"$lookup": {"from": "Other"}}]), "prepare"),
        (transfer(prepare=[{"$set": {"a": {"$function": {}}}}]), "prepare"),
        (transfer(prepare="delete everything"), "list"),
        (ProcessRecord("l", ProcessKind.LOAD, "Measure"), "needs an ontology and a file"),
        (ProcessRecord("l", ProcessKind.LOAD, "Measure", options={"file": "a.csv"}), "whole path"),
        (ProcessRecord("l", ProcessKind.LOAD, "Measure", options={"file": "/a.pdf"}), "csv, json, xlsx"),
    ],
)
def test_what_cannot_work_is_refused(record, why):
    with pytest.raises(ConfigurationError, match=why):
        check(record)


def test_how_long_lines_are_kept():
    assert clean_options(ProcessRecord("clean", ProcessKind.CLEAN, options={"keep_log_s": 60})).lines_kept_s == 60


def test_the_format_of_a_file():
    assert [format_of(name, None) for name in ("a.csv", "a.JSONL", "a.xlsx", "a.tsv")] == [
        LoadFormat.CSV,
        LoadFormat.JSON,
        LoadFormat.EXCEL,
        LoadFormat.CSV,
    ]
    assert format_of("data", "json") is LoadFormat.JSON
    record = ProcessRecord("l", ProcessKind.LOAD, "Measure", options={"file": "/a.csv", "user": "ana"})
    assert (load_options(record).format, load_options(record).user) == (LoadFormat.CSV, "ana")
