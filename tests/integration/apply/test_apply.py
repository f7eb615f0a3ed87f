"""``apply``: declarative, idempotent, everything checked first, one transaction."""

import io
import json

import pytest

from sib.access import Permission, Role
from sib.errors import AuthenticationError, ConfigurationError
from sofia2.apply import apply_files
from storage.bdc.passwords import hash_password, verify_password
from storage.bdc.records import IndexDeclaration, Outcome, UserRecord

EXAMPLE = """\
sofia2: 1
users:
  - name: sofia
    password: sofia
    role: COLABORADOR
    email: sofia@example.org
    active: true
    api_key: 0123456789abcdef0123456789abcdef
  - {name: ana, password: long enough}
ontologies:
  - name: TestSensorTemperatura
    owner: sofia
    description: optional text
    template: SensorPoint
    active: true
    public: false
    parent: null
    indexes: [Sensor.assetId, {fields: [Sensor.geometry], type: 2dsphere}]
    permissions: {ana: QUERY}
    window: null
kps:
  - name: KPTestTemperatura
    owner: sofia
    ontologies: [TestSensorTemperatura]
    cipher_key: key0key1key2key3
    cipher_only: false
    meta: {Autor: example}
    tokens:
      - e5e8a005d0a248f1ad2cd60a821e6838
      - {token: 3f8d3638215a4d59ad5cffad19c81379, active: false}
    instances: [KPTestTemperatura01]
queries:
  - {name: porAsset, ontology: TestSensorTemperatura, type: SQLLIKE,
     text: "select * from TestSensorTemperatura where Sensor.assetId={$PARAM1}", params: {PARAM1: string}}
assets:
  - {identificacion: tweets_sofia, owner: sofia, tipo: virtual, kp: KPTestTemperatura, properties: {}}
settings:
  query.row_cap: 100
  rest.callback_allow: [127.0.0.0/8]
"""
SOFIA = "sofia2: 1\nusers:\n  - {name: sofia, role: COLABORADOR, password: long enough}\n"
SCHEMA = '{"type":"object","properties":{"a":{"type":"number"}},"additionalProperties":false}'


def outcomes(report):
    return {item.outcome for item in report.objects}


def details(report):
    return {item.name: item.details for item in report.objects if item.outcome is not Outcome.UNCHANGED}


def lines(report):
    return [problem.line for problem in report.problems]


def test_the_example_gives_fixed_tokens_passwords_and_keys(apply, bdc):
    report = apply(EXAMPLE)
    assert report.problems == ()
    assert report.exit_status == 0
    assert report.lines()[0] == "user sofia: created"
    assert len(report.lines()) == 8
    assert outcomes(report) == {Outcome.CREATED}
    identity = bdc.identify("KPTestTemperatura", "e5e8a005d0a248f1ad2cd60a821e6838")
    assert (identity.user, identity.cipher_key) == ("sofia", "key0key1key2key3")
    assert bdc.identify_user("KPTestTemperatura", "sofia", "sofia").role is Role.COLABORADOR
    with pytest.raises(AuthenticationError):
        bdc.identify("KPTestTemperatura", "3f8d3638215a4d59ad5cffad19c81379")
    catalog = bdc.catalog()
    ontology = catalog.ontologies["TestSensorTemperatura"]
    assert ontology.template == "SensorPoint@1"
    assert ontology.permissions == {"ana": Permission.QUERY}
    assert ontology.indexes[1] == IndexDeclaration(("Sensor.geometry",), type="2dsphere")
    assert catalog.queries["porAsset"].params == {"PARAM1": "string"}
    assert catalog.settings == {"query.row_cap": 100, "rest.callback_allow": ["127.0.0.0/8"]}
    assert bdc.assets("sofia")[0]["tipo"] == "virtual"


def test_a_second_time_changes_nothing(apply, bdc):
    version = apply(EXAMPLE).version
    report = apply(EXAMPLE)
    assert outcomes(report) == {Outcome.UNCHANGED}
    assert report.version == version == bdc.config_version() == 1


def test_what_changed_is_kept_for_the_audit(apply, bdc):
    apply(EXAMPLE)
    apply(EXAMPLE)
    apply("sofia2: 1\nusers:\n  - {name: sofia, email: new@example.org}\n")
    summaries = [record.summary for record in bdc.read_log(100, kind="AUDIT")]
    assert len(summaries) == 9
    assert summaries[0] == "apply: user sofia: changed (email)"


def test_a_dry_run_reports_and_writes_nothing(apply, bdc):
    report = apply(EXAMPLE, dry_run=True)
    assert outcomes(report) == {Outcome.CREATED}
    assert bdc.config_version() == 0
    assert bdc.read_log(10) == []
    assert bdc.catalog().ontologies == {}


def test_the_same_as_json_and_from_standard_input(bdc):
    text = json.dumps(
        {"sofia2": 1, "users": [{"name": "sofía 😀", "password": "long enough"}], "settings": {"a": [1, True]}},
        indent="\t",
    )
    report = apply_files(bdc, ["-"], standard_input=io.StringIO(text))
    assert report.problems == ()
    assert bdc.log_in("sofía 😀", "long enough") is Role.USUARIO
    assert bdc.catalog().settings == {"a": [1, True]}


def test_absent_keys_are_left_as_they_are(apply, bdc):
    apply(EXAMPLE)
    report = apply(
        "sofia2: 1\nusers:\n  - {name: sofia, email: new@example.org}\nkps:\n  - {name: KPTestTemperatura}\n"
    )
    assert details(report) == {"sofia": ("email",)}
    assert bdc.identify_user("KPTestTemperatura", "sofia", "sofia").role is Role.COLABORADOR
    assert len(bdc.tokens("KPTestTemperatura")) == 2


def test_a_list_or_map_is_the_whole_of_it_but_tokens_are_not(apply, bdc):
    apply(EXAMPLE)
    report = apply("""\
sofia2: 1
ontologies:
  - {name: TestSensorTemperatura, permissions: {}, indexes: [Sensor.measure]}
kps:
  - {name: KPTestTemperatura, ontologies: [], meta: {}, instances: [], tokens: [newtoken-1]}
""")
    assert details(report) == {
        "TestSensorTemperatura": ("indexes", "permissions"),
        "KPTestTemperatura": ("ontologies", "meta", "tokens", "instances"),
    }
    assert bdc.rights("KPTestTemperatura", "sofia") == {}
    assert [active for _, active in bdc.tokens("KPTestTemperatura")] == [True, False, True]


def test_a_token_is_turned_off_by_active_false(apply, bdc):
    apply(EXAMPLE)
    token = "e5e8a005d0a248f1ad2cd60a821e6838"
    report = apply(f"sofia2: 1\nkps:\n  - {{name: KPTestTemperatura, tokens: [{{token: {token}, active: false}}]}}\n")
    assert details(report) == {"KPTestTemperatura": ("tokens",)}
    with pytest.raises(AuthenticationError):
        bdc.identify("KPTestTemperatura", token)


def test_a_password_is_hashed_again_only_if_it_does_not_verify(apply, bdc):
    def stored():
        with bdc.read() as configuration:
            return configuration.users.get("sofia").password_hash

    apply(SOFIA)
    before = stored()
    apply(SOFIA)
    assert stored() == before
    report = apply(SOFIA.replace("long enough", "another one"))
    assert details(report) == {"sofia": ("password",)}
    assert verify_password(stored(), "another one")


def test_passwords_from_hash_file_and_environment(apply, bdc, tmp_path):
    (tmp_path / "secret").write_text("from the file\n")
    report = apply(
        f"""\
sofia2: 1
users:
  - {{name: a, password_file: secret}}
  - {{name: b, password_env: PASSWORD_OF_B}}
  - {{name: c, password_hash: "{hash_password("hashed")}"}}
""",
        environment={"PASSWORD_OF_B": "from the environment"},
    )
    assert report.warnings == ()
    for user, password in (("a", "from the file"), ("b", "from the environment"), ("c", "hashed")):
        assert bdc.log_in(user, password) is Role.USUARIO


def test_passwords_that_are_not_there(apply):
    report = apply(
        "sofia2: 1\nusers:\n  - {name: a, password_file: nothing}\n  - {name: b, password_env: NO}\n  - {name: c}\n",
        environment={},
    )
    assert lines(report) == [3, 4, 5]
    assert report.exit_status == 2


def test_a_short_password_and_a_file_that_others_can_read_give_warnings(bdc, tmp_path):
    path = tmp_path / "open.yaml"
    path.write_text("sofia2: 1\nusers:\n  - name: a\n    password: 1234567\n")
    path.chmod(0o644)
    report = apply_files(bdc, [path])
    assert report.is_ok
    assert [warning.line for warning in report.warnings] == [0, 4]
    assert "others can read" in report.warnings[0].message
    assert "1234567" not in str(report.warnings)


def test_every_problem_of_the_whole_is_listed_and_nothing_is_written(apply, bdc):
    text = """\
sofia2: 1
users:
  - {name: sofia, password: long enough}
  - {name: sofia, password: long enough}
  - {name: new}
ontologies:
  - {name: Onto1, owner: nobody, template: SensorPoint, permissions: {nobody: ALL}}
  - {name: Onto2, owner: sofia}
  - {name: Onto3, owner: sofia, template: NoTemplate}
  - {name: Onto4, owner: sofia, schema_text: "not json"}
  - {name: Onto5, owner: sofia, schema_file: nothing.json}
  - {name: Onto6, owner: sofia, template: SensorPoint, parent: Onto9, indexes: [Sensor.color]}
  - {name: Onto7, owner: sofia, template: SensorPoint@9, publico: true}
kps:
  - {name: KP1, owner: sofia, ontologies: [Onto1, Onto8], tokens: [aaaaaaaa]}
  - {name: KP2, owner: sofia, tokens: [aaaaaaaa]}
  - {name: KP3}
queries:
  - {name: q1, ontology: Onto8, type: SQLLIKE, text: x}
  - {name: q2}
assets:
  - {identificacion: a1, owner: nobody, kp: KP9}
settings:
  bad: 1
"""

    def check_setting(name, value):
        raise ConfigurationError(f"There is no setting {name}.")

    report = apply(text, check_setting=check_setting)
    assert sorted(lines(report)) == [4, 5, 7, 7, 8, 9, 10, 11, 12, 12, 13, 13, 15, 16, 17, 19, 20, 20, 20, 22, 22, 24]
    assert {problem.file for problem in report.problems} == {report.problems[0].file}
    assert str(report.problems[0]).startswith(f"{report.problems[0].file}:4: ")
    assert "aaaaaaaa" not in str(report.problems)
    assert report.objects == ()
    assert bdc.config_version() == 0


def test_references_may_point_to_the_file_or_to_the_bdc(apply, bdc):
    apply(EXAMPLE)
    report = apply(
        "sofia2: 1\nkps:\n  - {name: KP2, owner: bea, ontologies: [TestSensorTemperatura, New], tokens: []}\n",
        "sofia2: 1\nontologies:\n  - {name: New, owner: sofia, template: Feed, permissions: {bea: ALL}}\n",
        "sofia2: 1\nusers:\n  - {name: bea, password: long enough}\n",
    )
    assert report.problems == ()
    assert set(bdc.rights("KP2", "bea")) == {"TestSensorTemperatura", "New"}


def test_a_file_that_cannot_be_read_spares_complaints_about_what_it_may_hold(apply):
    report = apply("sofia2: 1\nusers: [", "sofia2: 1\nkps:\n  - {name: KP, owner: sofia}\n")
    assert len(report.problems) == 1
    assert report.problems[0].file.endswith("a.yaml")


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_unreadable_files(bdc, tmp_path, content):
    path = tmp_path / "x.yaml"
    if content is not None:
        path.write_bytes(content)
    report = apply_files(bdc, [path])
    assert report.exit_status == 2
    assert len(report.problems) == 1


def test_a_token_of_another_kp_is_refused(apply):
    apply(EXAMPLE)
    report = apply("""\
sofia2: 1
kps:
  - name: Second
    owner: sofia
    tokens:
      - e5e8a005d0a248f1ad2cd60a821e6838
""")
    assert lines(report) == [6]
    assert "'KPTestTemperatura'" in report.problems[0].message
    assert "e5e8a005" not in str(report.problems)


def test_an_api_key_of_another_user_is_refused(apply):
    apply(EXAMPLE)
    key = "0123456789abcdef0123456789abcdef"
    report = apply(f"sofia2: 1\nusers:\n  - {{name: ana, api_key: {key}}}\n")
    assert lines(report) == [3]
    assert key not in str(report.problems)


def test_a_new_kp_without_tokens_gets_one_and_only_once(apply, bdc):
    text = SOFIA + "kps:\n  - {name: KP, owner: sofia}\n  - {name: None, owner: sofia, tokens: []}\n"
    assert details(apply(text))["KP"] == ("one token generated",)
    tokens = bdc.tokens("KP")
    assert len(tokens) == 1
    assert bdc.tokens("None") == []
    assert outcomes(apply(text)) == {Outcome.UNCHANGED}
    assert bdc.tokens("KP") == tokens


def ontology(**keys):
    return SOFIA + "ontologies:\n  - " + json.dumps({"name": "Onto", "owner": "sofia"} | keys) + "\n"


def test_a_changed_schema_is_a_new_version(apply, bdc):
    apply(ontology(schema_text=SCHEMA))
    report = apply(ontology(schema_text=SCHEMA.replace("number", "string")))
    assert details(report) == {"Onto": ("schema: version 2",)}
    assert apply(ontology(schema_text=SCHEMA.replace("number", "string"))).objects[-1].outcome is Outcome.UNCHANGED
    with bdc.read() as configuration:
        assert configuration.ontologies.versions("Onto")[1] == SCHEMA


def test_schemas_as_yaml_text_and_file_byte_for_byte(apply, bdc, tmp_path):
    texts = {"text": SCHEMA + " \r\n", "file": "\t" + SCHEMA + "\r\n\n"}
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "schema.json").write_bytes(texts["file"].encode())
    apply(ontology(schema_text=texts["text"]))
    assert bdc.catalog().ontologies["Onto"].schema_text == texts["text"]
    apply(ontology(schema_file="sub/schema.json"))
    assert bdc.catalog().ontologies["Onto"].schema_text == texts["file"]
    apply(ontology(schema=json.loads(SCHEMA)))
    assert json.loads(bdc.catalog().ontologies["Onto"].schema_text) == json.loads(SCHEMA)
    assert outcomes(apply(ontology(schema=json.loads(SCHEMA)))) == {Outcome.UNCHANGED}


def test_index_paths_are_written_out(apply, bdc):
    apply(ontology(template="SensorPoint", indexes=["assetId", "contextData.user"]))
    assert bdc.catalog().ontologies["Onto"].indexes == (
        IndexDeclaration(("Sensor.assetId",)),
        IndexDeclaration(("contextData.user",)),
    )


def test_a_new_schema_that_lacks_an_indexed_field_is_refused(apply):
    apply(ontology(template="SensorPoint", indexes=["Sensor.assetId"]))
    assert lines(apply(ontology(schema_text=SCHEMA))) == [5]
    assert apply(ontology(schema_text=SCHEMA, indexes=["a"])).problems == ()


def test_parents_may_stand_behind_their_children_but_not_in_a_circle(apply, bdc):
    text = SOFIA + "ontologies:\n"
    for name, parent in (("Child", "Middle"), ("Middle", "Top"), ("Top", "null")):
        text += f"  - {{name: {name}, owner: sofia, template: Feed, parent: {parent}}}\n"
    assert apply(text).problems == ()
    assert bdc.catalog().ontologies["Child"].parent == "Middle"
    report = apply("sofia2: 1\nontologies:\n  - {name: Top, parent: Child}\n")
    assert "own parents" in report.problems[0].message
    assert bdc.catalog().ontologies["Top"].parent is None


def test_a_usuario_as_owner_of_an_ontology_is_a_warning(apply):
    report = apply(ontology(template="Feed").replace("COLABORADOR", "USUARIO"))
    assert report.is_ok
    assert "USUARIO" in report.warnings[0].message


@pytest.mark.parametrize(
    ("kind", "text", "params", "message"),
    [
        ("SQLLIKE", "select * from Onto where a={$P}", "{P: number}", None),
        ("SQL", "select * from Onto where a={$P}", "{}", None),
        ("NATIVE", "db.Onto.find({a: {$gt: {$P}}})", "{P: date}", None),
        ("NATIVE", "{a: {$P}}", "{P: objectid}", None),
        ("SQLLIKE", "selec * from Onto", "{}", "refused"),
        ("SQLLIKE", "select * from Onto where b=1", "{}", "refused"),
        ("SQLLIKE", "select * from Other", "{}", "refused"),
        ("NATIVE", "db.Onto.find({", "{}", "refused"),
        ("NATIVE", "{a: 1}", "{P: string}", "does not use {$P}"),
    ],
)
def test_a_query_that_cannot_be_read_gives_a_warning(apply, kind, text, params, message):
    query = (
        f"queries:\n  - {{name: q, ontology: Onto, type: {kind}, params: {params},\n     text: {json.dumps(text)}}}\n"
    )
    report = apply(ontology(schema_text=SCHEMA) + query)
    assert report.problems == ()
    assert [message in warning.message for warning in report.warnings] == [True] * (message is not None)


def test_cold_settings_wait_for_a_restart_and_hot_ones_do_not(apply):
    text = "sofia2: 1\nsettings:\n  hot: 1\n  cold: 2\n"
    report = apply(text, check_setting=lambda name, value: name == "hot")
    assert report.after_restart == ("cold",)
    assert report.lines()[-1] == "setting cold: in force after restart"
    assert apply(text, check_setting=lambda name, value: name == "hot").after_restart == ()


def test_the_report_as_json_holds_no_secret(apply):
    report = apply(EXAMPLE)
    printed = json.dumps(report.to_json()) + repr(report)
    for secret in ("e5e8a005", "3f8d3638", "key0key1", "argon2", "0123456789abcdef"):
        assert secret not in printed
    assert report.to_json()["objects"][0] == {"kind": "user", "name": "sofia", "outcome": "created", "details": []}


def test_a_failure_while_writing_leaves_nothing(apply, bdc, monkeypatch):
    def fail(*_):
        raise RuntimeError

    monkeypatch.setattr("storage.bdc.definitions.SettingRepository.put", fail)
    with pytest.raises(RuntimeError):
        apply(EXAMPLE)
    with bdc.read() as configuration:
        assert configuration.users.all() == []


def test_an_empty_file_of_the_format_changes_nothing(apply, bdc):
    with bdc.change() as configuration:
        configuration.users.put(UserRecord("sofia", Role.USUARIO))
    report = apply("sofia2: 1\n")
    assert (report.objects, report.exit_status, report.version) == ((), 0, 1)


def test_what_was_disabled_stays_so_until_a_file_says_that_it_is_active(apply, bdc):
    ontology = "ontologies: [{name: O, owner: sofia, schema: {type: object}%s}]\n"
    rule = "rules: [{name: r, owner: sofia, type: ontology, ontologies: [O], when: n > 1, then: pass%s}]\n"
    user = "users: [{name: ana, password: long enough, email: %s}]\n"
    users = SOFIA + "  - {name: ana, password: long enough%s}\n"
    assert apply(users % ", active: false" + ontology % ", active: false" + rule % ", active: false").exit_status == 0
    assert apply("sofia2: 1\n" + user % "a@example.org" + ontology % ", public: true" + rule % "").exit_status == 0
    with bdc.read() as configuration:
        assert configuration.users.get("ana").email == "a@example.org"
        assert configuration.ontologies.get("O").public
        assert not configuration.users.get("ana").active
        assert not configuration.ontologies.get("O").active
        assert not configuration.rules.get("r").active
    assert apply(users % ", active: true" + ontology % ", active: true" + rule % ", active: true").exit_status == 0
    with bdc.read() as configuration:
        assert configuration.users.get("ana").active
        assert configuration.ontologies.get("O").active
        assert configuration.rules.get("r").active


def test_an_owner_who_does_not_exist_is_a_problem_and_not_a_usuario(apply):
    report = apply("sofia2: 1\nontologies: [{name: O, owner: nobody, schema: {type: object}}]\n")
    assert [problem.line for problem in report.problems] == [2]
    assert report.warnings == ()
    created = apply(
        SOFIA.replace("COLABORADOR", "USUARIO") + "ontologies: [{name: O, owner: sofia, schema: {type: object}}]\n"
    )
    assert ["is USUARIO" in str(warning) for warning in created.warnings] == [True]
