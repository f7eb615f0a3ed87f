"""Cron lines and periods."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sib.cron import Cron, parse_cron, parse_period, parse_schedule
from sib.errors import ConfigurationError


@pytest.mark.parametrize(
    ("text", "after", "expected"),
    [
        ("* * * * *", "2026-11-24T12:00:59", "2026-11-24T12:01:00"),
        ("*/15 * * * *", "2026-11-24T12:00:00", "2026-11-24T12:15:00"),
        ("5,10-12 3 * * *", "2026-11-24T03:10:00", "2026-11-24T03:11:00"),
        ("0 0 1 1 *", "2026-11-24T12:00:00", "2027-01-01T00:00:00"),
        ("@hourly", "2026-12-31T23:30:00", "2027-01-01T00:00:00"),
        ("0 6 * * mon-fri", "2026-11-27T06:00:00", "2026-11-30T06:00:00"),
        ("0 6 * * 7", "2026-11-24T00:00:00", "2026-11-29T06:00:00"),
        ("0 0 29 feb *", "2026-01-01T00:00:00", "2028-02-29T00:00:00"),
        ("0 0 13 * fri", "2026-11-24T00:00:00", "2026-11-27T00:00:00"),  # either day
        ("10/20 * * * *", "2026-11-24T12:00:00", "2026-11-24T12:10:00"),
        ("0 0 */10 * *", "2026-11-24T12:00:00", "2026-12-01T00:00:00"),
    ],
)
def test_the_next_time_of_a_line(text, after, expected):
    assert parse_cron(text).next_after(datetime.fromisoformat(after)) == datetime.fromisoformat(expected)


@pytest.mark.parametrize(
    "text",
    ["", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 8", "a * * * *",
     "5-1 * * * *", "*/0 * * * *", "1,,2 * * * *", "0 0 30 feb *", "-1 * * * *", "² * * * *", "@never"],
)  # fmt: skip
def test_what_is_no_cron_line_is_refused(text):
    with pytest.raises(ConfigurationError):
        parse_cron(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("10s", 10), ("every 5 min", 300), ("1.5h", 5400), ("1d", 86400), ("500ms", 0.5), ("2m", 120)]
)
def test_periods(text, seconds):
    assert parse_schedule(text).seconds == seconds


@pytest.mark.parametrize("text", ["10", "s", "-1s", "0s", "1y", "1ms", "9999d", "every"])
def test_what_is_no_period_is_refused(text):
    with pytest.raises(ConfigurationError):
        parse_period(text)


def test_a_text_is_a_period_or_a_cron_line():
    assert isinstance(parse_schedule("*/5 * * * *"), Cron)
    assert parse_schedule("10s").next_after(datetime(2026, 1, 1)) == datetime(2026, 1, 1, 0, 0, 10)


@given(
    st.datetimes(datetime(2000, 1, 1), datetime(2090, 1, 1)), st.integers(0, 59), st.integers(0, 23), st.integers(1, 28)
)
def test_the_next_time_matches_and_none_is_left_out(moment, minute, hour, day):
    found = parse_cron(f"{minute} {hour} {day} * *").next_after(moment)
    assert moment < found <= moment + timedelta(days=32)
    assert (found.minute, found.hour, found.day) == (minute, hour, day)


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text):
    try:
        parse_schedule(text).next_after(datetime(2026, 1, 1))
    except ConfigurationError:
        pass
