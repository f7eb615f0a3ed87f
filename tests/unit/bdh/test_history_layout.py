"""Names of folders and files, and the form of answers."""

from datetime import date, datetime
from decimal import Decimal

import pytest
from bson import ObjectId

from sib.errors import ConfigurationError
from storage.bdh import layout
from storage.bdh.answers import QueryResult, ResultColumn, to_answer
from storage.bdh.files import open_files


def test_paths():
    path = layout.path_of("SensorTemperatura", date(2026, 1, 2), layout.part_name(1, 50))
    assert path == "SensorTemperatura/fecha=2026-01-02/part-000000000001-000000000050.parquet"
    assert layout.is_part_name(path.rpartition("/")[2])


@pytest.mark.parametrize("name", ["../x", "a/b", "a\\b", "..", ".hidden", "_tmp", "ñ", "a*b?", "x" * 60])
def test_no_name_of_an_ontology_leaves_its_folder(name):
    folder = layout.folder_of(name)
    assert "/" not in folder
    assert "\\" not in folder
    assert not folder.startswith((".", "_"))
    assert layout.folder_of(folder) != folder or folder == name


def test_the_day_of_an_instance():
    id_ = ObjectId.from_datetime(datetime(2025, 5, 5))
    assert layout.day_of({"_id": id_, "contextData": {"timestamp": datetime(2026, 1, 1, 23, 59)}}) == date(2026, 1, 1)
    assert layout.day_of({"_id": id_}) == date(2025, 5, 5)
    assert layout.day_of({"_id": id_, "contextData": {"timestamp": "yesterday"}}) == date(2025, 5, 5)
    assert layout.day_of({"_id": "own"}) == layout.NO_DAY


def test_an_answer_as_clients_expect_it():
    result = QueryResult(
        [
            ResultColumn("_id", "VARCHAR"),
            ResultColumn("contextdata.timestamp", "TIMESTAMP"),
            ResultColumn("n", "DOUBLE"),
        ],
        [("a", datetime(2016, 11, 19, 1, 1, 50, 390000), 1.5), (None, datetime(2016, 1, 1), Decimal("3"))],
    )
    assert to_answer(result) == {
        "columns": [
            {"name": "_id", "type": "VARCHAR", "index": 1},
            {"name": "contextdata.timestamp", "type": "TIMESTAMP", "index": 2},
            {"name": "n", "type": "DOUBLE", "index": 3},
        ],
        "values": [["a", "2016-11-19 01:01:50.39", 1.5], [None, "2016-01-01 00:00:00.0", 3]],
    }


@pytest.mark.parametrize(
    "url",
    [
        "",
        "file:",
        "file://host/x",
        "ftp://x/y",
        "hdfs:///x",
        "hdfs://u:secret@h/x",
        "hdfs://h:port/x",
        "hdfs://h/x?y=1",
    ],
)
def test_wrong_urls(url):
    with pytest.raises(ConfigurationError) as caught:
        open_files(url)
    assert "secret" not in str(caught.value)
