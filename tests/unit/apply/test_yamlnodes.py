"""YAML and JSON with lines: what is read, what is refused, and that nothing crashes."""

import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sofia2.yamlnodes import DEPTH_MAX, FileProblems, is_null, parse_yaml, plain_value, value_of

NO_SURROGATES = st.characters(exclude_categories=["Cs"])
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(NO_SURROGATES),
    lambda children: st.lists(children) | st.dictionaries(st.text(NO_SURROGATES, max_size=20), children),
    max_leaves=20,
)


def read(text):
    return value_of(parse_yaml(text))


def problem_of(text):
    with pytest.raises(FileProblems) as error:
        read(text)
    (problem,) = error.value.problems
    return problem


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1", {"a": 1}),
        ("a: [1, -2.5, 1e3, 0x1F, 0o17, .5]", {"a": [1, -2.5, 1000.0, 31, 15, 0.5]}),
        ("a: {b: null, c: ~, d: }", {"a": {"b": None, "c": None, "d": None}}),
        ("a: [yes, no, on, off, y]", {"a": ["yes", "no", "on", "off", "y"]}),
        ("a: [true, False, TRUE]", {"a": [True, False, True]}),
        ("a: ['1', \"true\", '']", {"a": ["1", "true", ""]}),
        ("a: !!str 1", {"a": "1"}),
        ("a: 2026-01-01", {"a": "2026-01-01"}),
        ("a: 12:30:45", {"a": "12:30:45"}),
        ("a: 1_000", {"a": "1_000"}),
        ("a: |\n  x\n   y\n", {"a": "x\n y\n"}),
        ("é: 😀", {"é": "😀"}),
    ],
)
def test_plain_scalars_mean_what_yaml_1_2_says(text, value):
    assert read(text) == value


@given(text=st.from_regex(r"[0-9a-zA-Z-]{8,64}", fullmatch=True))
def test_a_token_keeps_its_text_even_if_it_looks_like_a_number(text):
    node = parse_yaml(f"token: {text}").entries["token"].value
    assert node.text == text
    assert node.is_plain


@given(value=st.dictionaries(st.text(NO_SURROGATES, max_size=20), JSON_VALUES))
def test_json_is_read_as_json(value):
    # YAML takes no control characters and noncharacters unless escaped, so all is escaped here.
    for text in (json.dumps(value), json.dumps(value, indent="\t")):
        assert read(text) == value if value else parse_yaml(text) is not None


@given(text=st.text(max_size=200) | st.text("[]{}:-,&*!|>'\"#%@` \n\tab1", max_size=60))
def test_any_text_is_read_or_refused_with_a_line(text):
    lines = []
    try:
        node = parse_yaml(text)
        if node is not None:
            value_of(node)
    except FileProblems as error:
        lines = [problem.line for problem in error.problems]
    # YAML counts more characters as line breaks than str.count("\n") does; splitlines knows them all.
    assert all(0 <= line <= len(text.splitlines()) + 1 for line in lines)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: [1\nc: 2\n", 3, "not YAML"),
        ("a: 1\n\na: 2\n", 3, "twice"),
        ("a: &x [1]\nb: *x\n", 1, "anchors"),
        ("a: 1\nb: *x\n", 2, "aliases"),
        ("a: 1\nb: !!python/object:os.system x\n", 2, "tag"),
        ("a: !mine x\n", 1, "tag"),
        ("a: 1\n---\nb: 2\n", 2, "second document"),
        ("? [1, 2]\n: x\n", 1, "key must be a text"),
        ("a: 1\nb: .inf\n", 2, "no value of JSON"),
        ("a: .NaN\n", 1, "no value of JSON"),
        ("a: 1e999\n", 1, "too large"),
        ("a: " + "9" * 401, 1, "digits"),
        ("a: \x07\n", 1, "character"),
        ('{"a": 1,\n"b": "\\ud800"}', 2, "invalid Unicode"),
        ("[" * (DEPTH_MAX + 1), 1, "deep"),
        ("[" * 200_000, 1, "deep"),
        ("a: " + "{b: " * 100_000, 1, "deep"),
    ],
)
def test_what_is_refused_names_its_line(text, line, message):
    problem = problem_of(text)
    assert problem.line == line
    assert message in problem.message


def test_nesting_up_to_the_bound_is_read():
    assert read("[" * DEPTH_MAX + "]" * DEPTH_MAX) is not None


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "null", "~", "---\n"])
def test_a_blank_file_is_nothing(text):
    assert parse_yaml(text) is None


def test_a_file_above_the_bound_is_refused(monkeypatch):
    monkeypatch.setattr("sofia2.yamlnodes.FILE_BYTES_MAX", 10)
    assert "larger" in problem_of("a: 12345678").message


def test_null_is_only_null_without_quotes():
    entries = parse_yaml("a: null\nb: 'null'\nc:\nd: ''\n").entries
    assert [is_null(entry.value) for entry in entries.values()] == [True, False, True, False]


@given(value=st.text(max_size=30))
def test_plain_value_agrees_with_pyyaml_about_texts_or_refuses(value):
    try:
        meant = plain_value(value)
    except ValueError:
        return
    if isinstance(meant, str):
        assert meant == value
    elif meant is not None:
        assert isinstance(meant, int | float)


def test_the_c_parser_is_there():
    # Without it a large file takes minutes.
    assert yaml.__with_libyaml__
