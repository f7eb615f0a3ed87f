"""Declarations of an applied file: every key by itself, every problem with its line."""

import pytest

from sib.access import Permission, Role
from sofia2.applyfile import DeclaredToken, read_apply_file
from sofia2.yamlnodes import FileProblems
from storage.bdc.passwords import hash_password
from storage.bdc.records import IndexDeclaration


def problems_of(text):
    try:
        return [(problem.line, problem.message) for problem in read_apply_file(text).problems]
    except FileProblems as error:
        return [(problem.line, problem.message) for problem in error.problems]


def one_object(section, text):
    content = read_apply_file(f"sofia2: 1\n{section}:\n  - {text}\n")
    assert content.problems == ()
    return content.objects[0]


def one_problem(section, text):
    (problem,) = problems_of(f"sofia2: 1\n{section}:\n  - {text}\n")
    return problem


def test_every_problem_is_reported_with_its_line():
    text = """\
sofia2: 2
user:
  - name: a
users:
  - nam: sofia
    role: BOSS
  - name: ana
    active: perhaps
    password: x
    password_env: Y
kps: {}
ontologies:
  - name: 1abc
    permissions: {ana: READ, root: ALL, sofia: WRITE}
  - just text
queries:
  - name: q
    params: {"a b": string, c: text}
settings:
  - a
"""
    found = problems_of(text)
    assert sorted(line for line, _ in found) == [1, 2, 5, 5, 6, 8, 10, 11, 13, 14, 14, 15, 18, 18, 20]
    by_line = {line: message for line, message in found if line not in (5, 14, 18)}
    assert "format 1" in by_line[1]
    assert "did you mean 'users'" in by_line[2]
    assert "ADMINISTRADOR, COLABORADOR, USUARIO" in by_line[6]
    assert "true or false" in by_line[8]
    assert "only one of password and password_env" in by_line[10]
    assert {message for line, message in found if line == 5} == {
        "unknown key 'nam': did you mean 'name'?",
        "the key 'name' is missing.",
    }


@pytest.mark.parametrize("text", ["", "text", "- a", "[]", "sofia2", "{"])
def test_a_file_that_is_no_map_is_refused(text):
    ((line, message),) = problems_of(text)
    assert line == 1
    assert "sofia2: 1" in message or "not YAML" in message


def test_the_version_is_required():
    ((line, message),) = problems_of("users: []\n")
    assert "sofia2: 1" in message
    assert line == 1


@pytest.mark.parametrize("version", ["1.0", "'2'", "one", "[1]", ""])
def test_only_format_1_is_read(version):
    assert "only format 1" in problems_of(f"sofia2: {version}\n")[0][1]


def test_empty_sections_are_nothing():
    content = read_apply_file("sofia2: 1\nusers:\nontologies: []\nkps: null\nsettings: {}\n")
    assert (content.objects, content.settings, content.problems) == ((), (), ())


def test_a_user():
    password_hash = hash_password("x")
    text = f"{{name: sofia, role: colaborador, email: null, active: false, api_key: {'0' * 32}, password_hash: '{password_hash}'}}"
    assert one_object("users", text).given == {
        "name": "sofia",
        "role": Role.COLABORADOR,
        "email": "",
        "active": False,
        "api_key": "0" * 32,
        "password_hash": password_hash,
    }


@pytest.mark.parametrize("password", ["12345678", "1e5", "true", "0x10", "' '", "ñ", "007"])
def test_a_password_is_the_text_as_it_stands(password):
    assert one_object("users", f"{{name: a, password: {password}}}").given["password"] == password.strip("'")


def test_an_ontology():
    text = (
        "{name: Temperature_1, owner: sofia, description: null, schema: {type: object, x: [1, 1.5, yes]}, active: true, "
        "public: TRUE, parent: null, permissions: {ana: query, root: ALL}, window: 30d, indexes: [Sensor.assetId, "
        "{fields: [a, b.c], unique: true, sparse: true}, {fields: [g], type: 2dsphere}, {fields: [t], expire_after: 1h}]}"
    )
    assert one_object("ontologies", text).given == {
        "name": "Temperature_1",
        "owner": "sofia",
        "description": "",
        "schema": {"type": "object", "x": [1, 1.5, "yes"]},
        "active": True,
        "public": True,
        "parent": None,
        "permissions": {"ana": Permission.QUERY, "root": Permission.ALL},
        "window": 2_592_000,
        "indexes": (
            IndexDeclaration(("Sensor.assetId",)),
            IndexDeclaration(("a", "b.c"), unique=True, sparse=True),
            IndexDeclaration(("g",), type="2dsphere"),
            IndexDeclaration(("t",), expire_after_s=3600),
        ),
    }


@pytest.mark.parametrize(
    ("window", "seconds"),
    [("1s", 1), ("90m", 5400), ("12h", 43_200), ("30d", 2_592_000), ("2w", 1_209_600), ("null", None)],
)
def test_windows(window, seconds):
    assert one_object("ontologies", f"{{name: Onto, window: {window}}}").given["window"] == seconds


@pytest.mark.parametrize("window", ["0s", "30", "d", "-1d", "1y", "1.5d", "1d 2h", "[1d]", "99999999999d"])
def test_bad_windows(window):
    assert one_problem("ontologies", f"{{name: Onto, window: {window}}}")[0] == 3


def test_a_schema_text_is_kept_character_for_character():
    schema_text = '{ "a":1,\n   "b" : "é"  \n}\n'
    indented = schema_text.replace("\n", "\n      ")
    content = read_apply_file(f"sofia2: 1\nontologies:\n  - name: Onto\n    schema_text: |\n      {indented}\n")
    assert content.objects[0].given["schema_text"] == schema_text


def test_a_kp():
    text = (
        "{name: KP 1, owner: sofia, ontologies: [Onto], cipher_key: 0123, cipher_only: true, meta: {Autor: x, n: 1}, "
        "tokens: [00000000, {token: 1e8000001, active: false}], instances: [i1, 'i 2']}"
    )
    declared = one_object("kps", text)
    assert declared.given == {
        "name": "KP 1",
        "owner": "sofia",
        "ontologies": ("Onto",),
        "cipher_key": "0123",
        "cipher_only": True,
        "meta": {"Autor": "x", "n": 1},
        "tokens": (DeclaredToken("00000000", True, 3), DeclaredToken("1e8000001", False, 3)),
        "instances": ("i1", "i 2"),
    }
    assert "00000000" not in repr(declared)


@pytest.mark.parametrize(
    "token", ["short", "x" * 65, "with blank", "a_b_c_d_e", "ñandu-ñandu", "null", "''", "{token: x}"]
)
def test_bad_tokens_are_refused_and_not_repeated(token):
    line, message = one_problem("kps", f"{{name: KP, tokens: [{token}]}}")
    assert line == 3
    assert "token" in message or "text" in message
    assert token not in message


@pytest.mark.parametrize(
    ("section", "text"),
    [
        ("users", "{name: 'a:b'}"),
        ("users", "{name: ''}"),
        ("users", "{name: ' a'}"),
        ("users", '{name: "a\\nb"}'),
        ("users", f"{{name: {'x' * 192}}}"),
        ("users", "{name: null}"),
        ("users", "{name: [a]}"),
        ("users", "{name: a, password: ''}"),
        ("users", "{name: a, password: null}"),
        ("users", "{name: a, api_key: xyz}"),
        ("users", "{name: a, password_hash: plain}"),
        ("users", "{name: a, active: yes}"),
        ("users", f"{{name: a, email: {'x' * 255}}}"),
        ("kps", "{name: 'a:b'}"),
        ("kps", "{name: a, cipher_key: ''}"),
        ("kps", f"{{name: a, cipher_key: {'x' * 192}}}"),
        ("kps", "{name: a, meta: [1]}"),
        ("kps", "{name: a, ontologies: Onto}"),
        ("ontologies", "{name: a b}"),
        ("ontologies", "{name: a.b}"),
        ("ontologies", "{name: a/b}"),
        ("ontologies", f"{{name: {'x' * 101}}}"),
        ("ontologies", "{name: Onto, schema: text}"),
        ("ontologies", "{name: Onto, template: X, schema_text: Y}"),
        ("ontologies", "{name: Onto, indexes: [{fields: []}]}"),
        ("ontologies", "{name: Onto, indexes: [{fields: [a, a]}]}"),
        ("ontologies", "{name: Onto, indexes: [{type: 2dsphere}]}"),
        ("ontologies", "{name: Onto, indexes: [{fields: [a], type: hash}]}"),
        ("ontologies", "{name: Onto, indexes: [{fields: [a], kind: x}]}"),
        ("ontologies", "{name: Onto, indexes: [{fields: [a], type: 2dsphere, unique: true}]}"),
        ("ontologies", "{name: Onto, indexes: [{fields: [a, b], type: 2dsphere}]}"),
        ("ontologies", "{name: Onto, indexes: [{fields: [a, b], expire_after: 1d}]}"),
        ("queries", "{name: q, type: CEP}"),
        ("queries", "{name: q, params: {a: color}}"),
        ("assets", "{identificacion: a, properties: x}"),
        ("assets", "{name: a}"),
    ],
)
def test_bad_values_are_refused_at_their_line(section, text):
    found = problems_of(f"sofia2: 1\n{section}:\n  - {text}\n")
    assert {line for line, _ in found} == {3}


def test_secrets_never_get_into_messages():
    text = """\
sofia2: 1
users:
  - {name: a, api_key: secret-api-key, password_hash: secret-hash}
kps:
  - {name: k, tokens: ["secret token"], cipher_key: [secret-key]}
"""
    assert problems_of(text)
    assert "secret" not in str(problems_of(text))


def test_settings_are_values_of_json():
    content = read_apply_file("sofia2: 1\nsettings:\n  a.b: 1\n  c: [x, 1.5]\n  d: null\n")
    assert {item.name: (item.given["value"], item.line) for item in content.settings} == {
        "a.b": (1, 3),
        "c": (["x", 1.5], 4),
        "d": (None, 5),
    }


def test_a_faulty_object_keeps_its_good_keys():
    content = read_apply_file("sofia2: 1\nkps:\n  - {name: KP, owner: 'a:b', ontologies: [Onto]}\n")
    assert content.objects[0].is_faulty
    assert content.objects[0].given == {"name": "KP", "ontologies": ("Onto",)}
