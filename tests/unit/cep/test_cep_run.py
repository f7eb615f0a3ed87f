"""``sofia2 cep check`` and ``sofia2 cep run``, row by row of what they promise."""

import io
import json
import subprocess
import sys

import pytest

from sofia2 import cep


@pytest.fixture
def write(tmp_path):
    def write_file(name, content):
        file = tmp_path / name
        if not isinstance(content, str):
            content = "".join(json.dumps(value) + "\n" for value in content)
        file.write_text(content, encoding="utf-8")
        return str(file)

    return write_file


@pytest.fixture
def run_files(write):
    """Exit status, printed values (or text), messages."""

    def run(rules, events, *, tables=None, as_json=True, until=None):
        out, errors = io.BytesIO(), io.StringIO()
        files = {name: write(f"{name}.jsonl", rows) for name, rows in (tables or {}).items()}
        status = cep.run_files(
            write("rules.cep", rules),
            write("events.jsonl", events),
            tables=files,
            until_ms=until,
            as_json=as_json,
            out=out,
            errors=errors,
        )
        text = out.getvalue().decode()
        return status, [json.loads(line) for line in text.splitlines()] if as_json else text, errors.getvalue()

    return run


def event(ts, stream="S", **attributes):
    return {"stream": stream, "ts": ts, **attributes}


def test_one_json_object_a_line_with_rule_stream_ts_and_data(run_files):
    rules = "from S[v > 1] select v insert into Big;\n@name('second') from S select v as w insert into Any"
    assert run_files(rules, [event(1, v=2)]) == (
        0,
        [
            {"rule": 1, "stream": "Big", "ts": 1, "data": {"v": 2}},
            {"rule": "second", "stream": "Any", "ts": 1, "data": {"w": 2}},
        ],
        "",
    )


def test_without_json_a_readable_line(run_files):
    status, text, _ = run_files("from S select v insert into T", [event(1, v="ñ")], as_json=False)
    assert (status, text) == (0, '1  T (rule 1)  {"v": "ñ"}\n')


def test_time_ends_at_the_last_event_and_with_until_goes_on(run_files):
    rules = "from S#timeBatch(1 sec) select count() as n insert into T; from not S for 3 sec select eventTime() as t insert into U"
    events = [event(0), event(1_500)]
    assert [value["ts"] for value in run_files(rules, events)[1]] == [1_000]
    _, values, _ = run_files(rules, events, until=5_000)
    assert [(value["stream"], value["ts"]) for value in values] == [("T", 1_000), ("T", 2_000), ("U", 4_500)]
    assert len(run_files(rules, events, until=10)[1]) == 1


def test_waiting_events_are_let_out_at_the_end(run_files):
    rules = "@watermark(delay='1 min') from S select n insert into T"
    assert [v["data"]["n"] for v in run_files(rules, [event(5, n=2), event(3, n=1), event(5, n=3)])[1]] == [1, 2, 3]


def test_tables_are_repeatable_and_their_keys_are_armed_at_the_first_event(run_files):
    rules = """from not S for 1 sec partition by k in Known.id select k insert into T;
        from S as s join Limits as l on s.k == l.k select l.most insert into U"""
    tables = {"Known": [{"id": "never"}], "Limits": [{"k": "a", "most": 3}]}
    _, values, _ = run_files(rules, [event(10, "Other"), event(20, k="a")], tables=tables, until=1_015)
    assert [(v["stream"], v["ts"], v["data"]) for v in values] == [("U", 20, {"most": 3}), ("T", 1_010, {"k": "never"})]


def test_a_selected_path_without_as_is_named_by_its_end_and_star_gives_all_attributes(run_files):
    rules = "from S as s select s.a.b, s.c insert into T; from S select * insert into U"
    _, values, _ = run_files(rules, [event(1, a={"b": 1}, c=2)])
    assert [value["data"] for value in values] == [{"b": 1, "c": 2}, {"a": {"b": 1}, "c": 2}]


def test_outputs_of_one_time_come_in_the_order_in_which_their_groups_began(run_files):
    rules = "from S#timeBatch(1 sec) select k, count() as n group by k insert into T"
    _, values, _ = run_files(rules, [event(1, k="z"), event(2, k="a"), event(3, k="z")], until=1_000)
    assert [value["data"] for value in values] == [{"k": "z", "n": 2}, {"k": "a", "n": 1}]


def test_count_of_an_attribute_skips_null(run_files):
    rules = "from S#lengthBatch(3) select count(v) as c, count() as n insert into T"
    assert run_files(rules, [event(1, v=1), event(2, v=None), event(3)])[1][0]["data"] == {"c": 1, "n": 3}


def test_hop_windows_are_aligned_to_the_epoch(run_files):
    rules = "from S#hop(2 sec, 1 sec) select count() as n insert into T"
    _, values, _ = run_files(rules, [event(1_700)], until=9_000)
    assert [(value["ts"], value["data"]["n"]) for value in values] == [(2_000, 1), (3_000, 1)]


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        "[1]",
        "5",
        '{"ts": 1}',
        '{"stream": "S"}',
        '{"stream": 3, "ts": 1}',
        '{"stream": "S", "ts": "x"}',
        '{"stream": "S", "ts": 1.5}',
        '{"stream": "S", "ts": true}',
        '{"stream": "S", "ts": 1}, {"stream": "S", "ts": 1}',
    ],
)
def test_a_line_that_is_no_event_is_exit_2_with_its_place(run_files, line):
    status, _, message = run_files("from S select v insert into T", '{"stream": "S", "ts": 1}\n\n' + line + "\n")
    assert status == 2
    assert "events.jsonl:3: " in message


def test_rules_with_problems_are_exit_2(run_files):
    status, values, message = run_files("from S[v > ] select v insert into T;\nfrom not X select k insert into Y", [])
    assert (status, values) == (2, [])
    assert "rules.cep:1:12: " in message
    assert message.splitlines()[2] == " " * 11 + "^"


def test_missing_files_are_exit_2(write):
    rules = write("rules.cep", "from S select v insert into T")
    for arguments in ((rules, "/missing.jsonl"), ("/missing.cep", rules)):
        errors = io.StringIO()
        assert cep.run_files(*arguments, out=io.BytesIO(), errors=errors) == 2
        assert "/missing" in errors.getvalue()


def test_blank_lines_and_an_empty_file_are_fine(run_files):
    assert run_files("from S select v insert into T", "\n\n")[:2] == (0, [])
    assert run_files("from S select v insert into T", "", until=99)[:2] == (0, [])


def test_large_numbers_and_odd_values_can_be_printed(run_files):
    rules = "from S select v * v as w, v + v as s, t insert into T"
    data = run_files(rules, [event(1, v=2**63, t=[1])])[1][0]["data"]
    assert data == {"w": 2.0**126, "s": 2**64, "t": [1]}


def test_a_whole_float_is_a_time(run_files):
    assert run_files("from S select v insert into T", '{"stream":"S","ts":5.0,"v":1}\n')[1][0]["ts"] == 5


def test_batches_do_not_show(run_files, monkeypatch):
    rules = "from every a=S[v = 1] -> b=S[v = 2] partition by k select k, a.n as n insert into T"
    events = [event(n // 3, v=1 + n % 2, k=n % 5, n=n) for n in range(100)]
    whole = run_files(rules, events)
    for size in (1, 2, 7):
        monkeypatch.setattr(cep, "LINES_PER_BATCH", size)
        assert run_files(rules, events) == whole


def check(write, text):
    errors = io.StringIO()
    return cep.check_file(write("r.cep", text), errors=errors), errors.getvalue()


def test_check_is_silent_about_what_is_right(write, example_rules):
    assert check(write, example_rules) == (0, "")


def test_check_names_file_line_column_and_shows_syntax_errors(write):
    status, message = check(write, "from S\nselect v inssert into T;\nfrom S[foo(v) > 1] select v insert into T")
    assert status == 2
    first, line, caret = message.splitlines()
    assert first.endswith("r.cep:2:10: 'inssert' is not expected here: expected " + first.split("expected ")[2])
    assert (line, caret) == ("select v inssert into T;", " " * 9 + "^")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("from S[foo(v) > 1] select v insert into T", "1:8"),
        ("from S#sliding(3) select v insert into T", "1:7"),
        ("from\nnot S select k insert into T", "2:1"),
    ],
)
def test_check_refuses_unknown_functions_unknown_windows_and_not_without_for(write, text, place):
    status, message = check(write, text)
    assert status == 2
    assert f"r.cep:{place}: " in message
    assert len(message.splitlines()) == 1


def test_the_command_line(write):
    rules, events = (
        write("r.cep", "from S[k in T.k] select k insert into O"),
        write("e.jsonl", [event(1, k=1), event(2, k=2)]),
    )
    table = write("t.jsonl", [{"k": 2}])
    arguments = ["run", rules, "--events", events, "--table", f"T={table}", "--until", "5", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "sofia2.cep", *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == '{"rule":1,"stream":"O","ts":2,"data":{"k":2}}\n'
    assert cep.main(["check", rules]) == 0
    with pytest.raises(ValueError, match="NAME=FILE"):
        cep.table_option("nothing")


def test_what_was_dropped_is_told_on_standard_error(run_files):
    status, values, message = run_files("from S select v insert into T", [event(5), event(3), event(6)])
    assert (status, len(values), message) == (0, 2, "rule 1 dropped: late 1\n")
