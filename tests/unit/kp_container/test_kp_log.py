"""The log of a KP: lines, rotation, and following it."""

from itertools import islice

import pytest

from actors.kp import log
from actors.kp.log import KpLog, LogReader


@pytest.fixture
def path(tmp_path):
    return log.log_path(tmp_path, "kp-one")


def write(path, *parts):
    written = KpLog(path, clock=lambda: 1_700_000_000.5)
    for source, data in parts:
        written.take(source, data)
    written.close()


def test_lines_have_their_moment_and_source(path):
    write(path, (1, b"one\ntw"), (2, b"bad\r\n"), (1, b"o\n"), (1, b"rest"))
    assert LogReader(path).tail() == [
        "2023-11-14T22:13:20.500Z out one",
        "2023-11-14T22:13:20.500Z err bad",
        "2023-11-14T22:13:20.500Z out two",
        "2023-11-14T22:13:20.500Z out rest",
    ]
    assert LogReader(path).tail(1) == ["2023-11-14T22:13:20.500Z out rest"]
    assert LogReader(path).tail(0) == []


def test_it_is_bounded_and_the_newest_is_kept(path, monkeypatch):
    monkeypatch.setattr(log, "FILE_BYTES_MAX", 1000)
    write(path, *((1, b"line %d\n" % number) for number in range(1000)))
    files = sorted(path.parent.iterdir())
    assert len(files) == log.FILES_KEPT
    assert all(file.stat().st_size <= 1000 for file in files)
    lines = LogReader(path).tail()
    numbers = [int(line.split()[-1]) for line in lines]
    assert numbers == list(range(numbers[0], 1000))
    assert len(lines) > 50


def test_a_line_without_end_is_cut(path, monkeypatch):
    monkeypatch.setattr(log, "LINE_BYTES_MAX", 10)
    write(path, (1, b"x" * 95))
    assert [len(line.split()[-1]) for line in LogReader(path).tail()] == [10] * 9 + [5]


def test_one_who_follows_misses_nothing_over_a_rotation(path, monkeypatch):
    monkeypatch.setattr(log, "FILE_BYTES_MAX", 400)
    written = KpLog(path)
    written.take(1, b"0\n")
    todo = iter(range(1, 30))

    def write_more(_):
        written.take(1, b"%d\n" % next(todo))

    reader = LogReader(path, sleep=write_more)
    assert [line[-1] for line in reader.tail()] == ["0"]
    assert [int(line.split()[-1]) for line in islice(reader.follow(), 25)] == list(range(1, 26))


def test_one_who_follows_waits_for_the_file(path):
    reader = LogReader(path, sleep=lambda _: write(path, (1, b"first\n")))
    assert reader.tail() == []
    assert next(reader.follow()).endswith("out first")


def test_bytes_that_are_no_text_do_not_break_it(path):
    write(path, (1, b"\xff\xfe\n"), (2, b"\n"))
    assert len(LogReader(path).tail()) == 2
