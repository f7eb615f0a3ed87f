"""The grammar: what parses to what, and where and how the parser complains."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sib.cep import CepSyntaxError, check, parse_rules
from sib.cep.language import ast, parser
from sib.cep.language.durations import parse_duration_ms
from sib.cep.language.parser import parse_expression


def one(text):
    (rule,) = parse_rules(text)
    return rule


def problems(text):
    with pytest.raises(CepSyntaxError) as caught:
        parse_rules(text)
    return [(p.position.line, p.position.column, p.message, p.snippet) for p in caught.value.problems]


def test_the_sixteen_example_rules_parse_and_are_right(example_rules):
    rules = parse_rules(example_rules)
    assert [rule.number for rule in rules] == list(range(1, 17))
    assert check(rules) == []
    assert rules[15].target == "FormaV"


def test_keywords_are_case_insensitive_and_equality_has_two_spellings():
    small = one("from S[a == 1 and b != 2] select a as x insert into T")
    large = one("FROM S[a = 1 AND b <> 2] SELECT a AS x INSERT INTO T")
    assert small.input == large.input
    assert small.select == large.select


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("5 ms", 5),
        ("30 sec", 30_000),
        ("30 segundos", 30_000),
        ("1 minuto", 60_000),
        ("2 horas", 7_200_000),
        ("1 día", 86_400_000),
        ("3 dias", 259_200_000),
        ("1 semana", 604_800_000),
        ("1 week", 604_800_000),
        ("1 hour 30 min", 5_400_000),
        ("1.5 sec", 1_500),
        ("2 milliseconds", 2),
    ],
)
def test_durations_in_english_and_spanish(text, milliseconds):
    assert parse_duration_ms(text) == milliseconds
    assert one(f"from S#time({text}) select count() as n insert into T").input.chain.steps[0].atoms[
        0
    ].source.window.arguments == (ast.Const(milliseconds),)


@pytest.mark.parametrize("text", ["", "5", "min", "5 lustros", "5 min x"])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match=r"duration|unit"):
        parse_duration_ms(text)


def test_names_may_be_words_of_the_language_where_only_a_name_can_stand():
    rule = one("from S[last > 1 and a.first = 2] select min, max(last) as m, first(x) as first, b.all insert into T")
    assert [column.name for column in rule.select.columns] == ["min", "m", "first", "all"]
    assert one("from Bomba[on == true] select on insert into T").select.columns[0].name == "on"


def test_names_with_accents():
    assert one("from Medición[año > 3] select año insert into Señal").target == "Señal"


def test_precedence_of_operators():
    assert parse_expression("a + b * 2 > 3 or not c and d") == ast.Binary(
        "or",
        ast.Binary(
            ">",
            ast.Binary("+", path("a"), ast.Binary("*", path("b"), ast.Const(2))),
            ast.Const(3),
        ),
        ast.Binary("and", ast.Unary("not", path("c")), path("d")),
    )


def path(name):
    return ast.Path(((name, None),))


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("a is null", ast.IsNull(path("a"))),
        ("a is not null", ast.Unary("not", ast.IsNull(path("a")))),
        ("a in (1, -2, 'x', null)", ast.InList(path("a"), (1, -2, "x", None))),
        ("a not in (1)", ast.Unary("not", ast.InList(path("a"), (1,)))),
        ("a in Tabla", ast.InTable(path("a"), "Tabla", None)),
        ("a in Tabla.id", ast.InTable(path("a"), "Tabla", "id")),
        ("a between 1 and 2", ast.Between(path("a"), ast.Const(1), ast.Const(2))),
        ("a like 'x%'", ast.Like(path("a"), "x%")),
        ("-3", ast.Const(-3)),
        ("1.5e2", ast.Const(150.0)),
        ("40f", ast.Const(40)),
        ("5 min", ast.Const(300_000)),
        ("a[last-1].b", ast.Path((("a", -2), ("b", None)))),
        ("a[0].b.c", ast.Path((("a", 0), ("b", None), ("c", None)))),
        (r'"say \"hi\""', ast.Const('say "hi"')),
    ],
)
def test_expressions(text, expression):
    assert parse_expression(text) == expression


def test_a_syntax_error_has_its_place_what_was_expected_and_a_caret():
    [(line, column, message, snippet)] = problems("from Lectura[temp > ]\nselect temp insert into X")
    assert (line, column) == (1, 21)
    assert "']' is not expected here: expected" in message
    assert "a number" in message
    assert "a name" in message
    assert snippet == "from Lectura[temp > ]\n" + " " * 20 + "^"


def test_each_rule_of_a_file_has_its_own_error():
    text = "from A select x insert into B;\nfrom C selec y insert into D;\n\nfrom E select z insert E"
    assert [(line, column) for line, column, _, _ in problems(text)] == [(2, 8), (4, 24)]


def test_a_rule_that_ends_early_is_told_so_at_its_end():
    [(line, column, message, _)] = problems("from A\nselect b")
    assert (line, column) == (2, 9)
    assert message.startswith("the rule ends: expected")


def test_semicolons_in_texts_and_comments_do_not_separate():
    text = "from A[x = ';' /* ; */] -- ;\nselect x insert into B; ; \n -- nothing ;\n"
    assert len(parse_rules(text)) == 1


@pytest.mark.parametrize("text", ["", "  \n", "-- only a comment", ";;"])
def test_no_rule_is_an_error(text):
    assert problems(text)[0][:2] == (1, 1)


def test_bounds_of_texts():
    deep = "from A[" + "(" * 100 + "x" + ")" * 100 + " > 1] select x insert into B"
    assert "brackets" in problems(deep)[0][2]
    assert "not" in "not " * 2_000
    assert "brackets" in problems(f"from A[{'not ' * 2_000} x] select x insert into B")[0][2]
    assert str(parser.RULE_CHARACTERS_MAX) in problems(f"from A[x = '{'y' * 30_000}'] select x insert into B")[0][2]
    assert str(parser.RULES_TEXT_CHARACTERS_MAX) in problems(" " * (parser.RULES_TEXT_CHARACTERS_MAX + 1))[0][2]


def test_annotations():
    rule = one("@info(name='mía') @watermark(delay='5 sec') @dedupe(k, '1 min') from A select k insert into B")
    assert rule.name == rule.label == "mía"
    assert rule.annotations[1].named == (("delay", "5 sec"),)
    assert rule.annotations[2].plain == (path("k"), "1 min")
    assert one("from A select k insert into B").label == 1


def test_clauses_of_output():
    rule = one(
        "from A#time(1 min) select k, count() as n group by k having n > 1 order by n desc, k limit 3 "
        "output last every 5 events insert all events into B update on B.k == k"
    )
    assert rule.rate == ast.Rate("last", None, 5)
    assert rule.out_kind == "all"
    assert rule.update_on is not None
    assert rule.select.order_by == ((path("n"), True), (path("k"), False))
    assert rule.select.limit == 3
    assert one("from A select k output every 1 min insert into B").rate == ast.Rate("all", 60_000)
    assert one("from A select k output snapshot every 1 min insert into B").rate == ast.Rate("snapshot", 60_000)


@given(st.text(alphabet=" \n;()[]<>=-+*/'\"#@,.:abfromselectinsertinto015", max_size=120))
def test_any_text_parses_or_raises_only_its_own_error(text):
    for problem in problems_of(text):
        assert 1 <= problem.position.line <= text.count("\n") + 1


def problems_of(text):
    """What is wrong with a text; any other exception than the parser's own goes through."""
    try:
        return check(parse_rules(text))
    except CepSyntaxError as error:
        return error.problems


# fmt: off
WORDS = [
    "from", "select", "insert", "into", "every", "not", "for", "within", "partition", "by", "group", "having", "order",
    "limit", "output", "on", "change", "as", "and", "or", "->", ",", "a", "b", "S", "T", "=", "==", ">", "(", ")", "[", "]",
    "#", "time", "5", "min", "3", "'x'", "+", "*", "?", "<", ":", ".", "@", "count", ";", "in", "is", "null", "join",
]
# fmt: on


@given(st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join))
def test_any_words_of_the_language_parse_or_raise_only_its_own_error(text):
    assert all(problem.message for problem in problems_of(text))
