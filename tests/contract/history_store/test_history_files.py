"""The file systems of the history behave alike."""

import io
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sib.errors import StoreError
from storage.bdh.adapter import HistoryFileSystem, RangeFile
from storage.bdh.files import PartExistsError, PartMissingError, open_files
from storage.copying import check_history

PATH, TMP = "S/fecha=2026-01-01/part-1-2.parquet", "S/_tmp/2026-01-01-part-1-2.parquet"


def test_a_file_is_written_whole_and_read_by_ranges(files):
    data = os.urandom(2_500_000)
    files.put(PATH, TMP, memoryview(data))
    assert files.read(PATH) == data
    assert files.read(PATH, 1_000_000, 10) == data[1_000_000:1_000_010]
    assert files.read(PATH, len(data) - 3, 10) == data[-3:]
    assert files.size_bytes(PATH) == len(data)
    assert [(entry.name, entry.is_folder) for entry in files.entries("S")] == [
        ("_tmp", True),
        ("fecha=2026-01-01", True),
    ]
    assert [(entry.name, entry.size_bytes) for entry in files.entries("S/fecha=2026-01-01")] == [
        ("part-1-2.parquet", len(data))
    ]
    assert files.entries("S/_tmp") == []


def test_a_file_that_is_there_is_never_replaced(files):
    files.put(PATH, TMP, memoryview(b"first"))
    with pytest.raises(PartExistsError):
        files.put(PATH, TMP, memoryview(b"second"))
    assert files.read(PATH) == b"first"
    assert files.entries("S/_tmp") == []


def test_what_an_interrupted_attempt_left_is_written_over(files):
    files.put(TMP, "S/_tmp/x", memoryview(b"half of an older and longer file"))
    files.put(PATH, TMP, memoryview(b"whole"))
    assert files.read(PATH) == b"whole"


@pytest.mark.server
@pytest.mark.parametrize("bdh_url", ["hdfs", "webhdfs"], indirect=True)
def test_no_attempt_writes_where_another_does(files, monkeypatch):
    """What a frozen server carries out late of an attempt that was given up does not reach the file of the next one."""
    written = []
    write = type(files)._write
    monkeypatch.setattr(type(files), "_write", lambda self, *given: (written.append(given[:-1]), write(self, *given)))
    files.put(f"{TMP}.of-an-attempt-before", "S/_tmp/x", memoryview(b"half"))
    files.put(PATH, TMP, memoryview(b"one"))
    files.delete(PATH)
    files.put(PATH, TMP, memoryview(b"two"))
    assert len(written) == len(set(map(str, written))) == 3
    assert files.read(PATH) == b"two"
    assert files.entries("S/_tmp") == []


def test_missing_files_and_folders(files):
    assert not files.exists(PATH)
    assert files.entries("nothing") == []
    with pytest.raises(PartMissingError):
        files.size_bytes(PATH)
    with pytest.raises(PartMissingError):
        files.read(PATH)
    files.delete(PATH)
    files.put(PATH, TMP, memoryview(b"x"))
    files.delete(PATH)
    assert not files.exists(PATH)


def test_pyarrow_reads_through_the_adapter(files, bdh_url):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"n": list(range(1000))}), sink, row_group_size=100)
    files.put(PATH, TMP, memoryview(sink.getvalue()))
    assert pq.read_table(RangeFile(files, PATH))["n"].to_pylist() == list(range(1000))
    system = HistoryFileSystem(bdh_url)
    assert system.info(PATH)["type"] == "file"
    assert [each.rpartition("/")[2] for each in system.ls("S", detail=False)] == ["_tmp", "fecha=2026-01-01"]
    with system.open(PATH) as file:
        file.seek(-4, io.SEEK_END)
        assert file.read() == b"PAR1"
    with pytest.raises(FileNotFoundError):
        system.info("S/nothing")


def test_a_second_root_sees_the_same_files(files, bdh_url):
    files.put(PATH, TMP, memoryview(b"x"))
    other = open_files(bdh_url)
    assert other.read(PATH) == b"x"
    other.close()


def test_a_check_writes_and_leaves_nothing(files, monkeypatch):
    files.put(PATH, TMP, memoryview(b"one"))
    health = check_history(files.url)
    assert (health.is_good, health.sentence) == (True, "it answers, 1 folders")
    assert [entry.name for entry in files.entries("")] == ["S"]

    def refuse(*_):
        raise StoreError("it is read-only")

    monkeypatch.setattr(type(files), "put", refuse)
    assert check_history(files.url).is_good is False
