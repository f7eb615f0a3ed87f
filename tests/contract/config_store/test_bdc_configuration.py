"""Users, ontologies, KPs, tokens and the rest: put, get, delete and the configuration version."""

from dataclasses import replace
from datetime import datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sib.access import Permission, Role
from sib.cep.definitions import CepEvent, CepRule
from sib.errors import LimitError, NotFoundError, StoreError
from sib.rules.rule import Rule, RuleType
from storage.bdc.bdc import open_bdc
from storage.bdc.cep import origin
from storage.bdc.processes import ProcessKind, ProcessRecord
from storage.bdc.records import (
    AssetRecord,
    DefinedQuery,
    IndexDeclaration,
    KpRecord,
    OntologyRecord,
    Outcome,
    TemplateRecord,
    TokenRecord,
    UserRecord,
)

NOW = datetime(2026, 3, 1, 12, 30, 15, 123456)  # the clock of the fixture

USER = UserRecord("Ñandú 😀", Role.USUARIO, email="a@b.c", active=False, api_key="0" * 32)
ONTOLOGY = OntologyRecord(
    "Temperature",
    "sofia",
    '{ "a" : 1 }\r\n\t',
    public=True,
    parent="Open",
    indexes=(IndexDeclaration(("a.b",), unique=True, expire_after_s=60), IndexDeclaration(("p",), type="2dsphere")),
    window_s=2_592_000,
    description="x" * 100_000,
    template="SensorPoint@1",
    permissions={"ana": Permission.INSERT},
)
KP = KpRecord("New", "ana", frozenset({"Open"}), "text", "key", cipher_only=True, meta={"Autor": ["x", 1, None]})
QUERY = DefinedQuery("q", "Open", "SQLLIKE", "select * from Open where a={$P}", {"P": "string"})
ASSET = AssetRecord("a1", "sofia", "d", "virtual", "KP", {"k": {"deep": [1.5, True]}})
TEMPLATE = TemplateRecord("T", 1, "c", "d", "{}")
CASES = [
    ("users", "name", USER, replace(USER, role=Role.ADMINISTRADOR, active=True)),
    ("ontologies", "name", ONTOLOGY, replace(ONTOLOGY, parent=None, permissions={}, indexes=(), window_s=None)),
    ("kps", "name", KP, replace(KP, owner="sofia", ontologies=frozenset(), meta={})),
    ("tokens", "token", TokenRecord("abcdefgh", "KP"), TokenRecord("abcdefgh", "KP", active=False)),
    ("queries", "name", QUERY, replace(QUERY, ontology="Closed", params={})),
    ("assets", "identificacion", ASSET, replace(ASSET, kp=None, properties={}, descripcion="")),
    ("templates", "name", TEMPLATE, replace(TEMPLATE, schema_text='{"a":1}')),
]


@pytest.mark.parametrize(("repository", "key", "record", "changed"), CASES, ids=[case[0] for case in CASES])
def test_put_creates_changes_and_leaves_alone(filled, repository, key, record, changed):
    def put(value):
        with filled.change() as configuration:
            return getattr(configuration, repository).put(value)

    before = filled.config_version()
    outcomes = [put(record), put(record), put(changed), put(changed)]
    assert outcomes == [Outcome.CREATED, Outcome.UNCHANGED, Outcome.CHANGED, Outcome.UNCHANGED]
    assert filled.config_version() == before + 2
    with filled.read() as configuration:
        store = getattr(configuration, repository)
        assert store.get(getattr(record, key)) == changed
        assert changed in store.all()


def test_times_keep_microseconds(filled):
    with filled.read() as configuration:
        assert configuration.users.get("sofia").created_at == NOW


def test_names_are_case_sensitive(filled):
    with filled.change() as configuration:
        assert configuration.users.get("SOFIA") is None
        assert configuration.users.put(UserRecord("SOFIA", Role.USUARIO)) is Outcome.CREATED
        assert configuration.ontologies.put(OntologyRecord("open", "SOFIA", "{}")) is Outcome.CREATED


def test_a_block_that_raises_changes_nothing(filled):
    version = filled.config_version()

    def change():
        with filled.change() as configuration:
            configuration.users.put(UserRecord("new", Role.USUARIO))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        change()
    with filled.read() as configuration:
        assert configuration.users.get("new") is None
    assert filled.config_version() == version


def test_a_block_that_only_reads_keeps_the_version(filled):
    version = filled.config_version()
    with filled.change() as configuration:
        configuration.users.all()
    assert filled.config_version() == version


def test_keys_are_generated_once(filled):
    def keys():
        with filled.read() as configuration:
            return configuration.users.get("ana").api_key, configuration.kps.get("KpOfAna").cipher_key

    api_key, cipher_key = keys()
    assert len(api_key) == 32
    assert len(cipher_key) == 36
    with filled.change() as configuration:
        configuration.users.put(replace(configuration.users.get("ana"), api_key="", email="x@y.z"))
        configuration.kps.put(replace(configuration.kps.get("KpOfAna"), cipher_key="", description="new"))
    assert keys() == (api_key, cipher_key)


def test_two_users_cannot_have_the_same_api_key(filled):
    with filled.change() as configuration:
        configuration.users.put(USER)
    with pytest.raises(StoreError) as error, filled.change() as configuration:
        configuration.users.put(replace(USER, name="second"))
    assert USER.api_key not in str(error.value)


def test_only_an_active_user_is_found_by_his_api_key(filled):
    with filled.change() as configuration:
        configuration.users.put(USER)
        with pytest.raises(NotFoundError):
            configuration.users.by_api_key(USER.api_key)
        configuration.users.put(replace(USER, active=True))
        assert configuration.users.by_api_key(USER.api_key).name == USER.name


def test_a_changed_schema_is_a_new_version_and_old_ones_stay(filled):
    def put(**changes):
        with filled.change() as configuration:
            configuration.ontologies.put(replace(ONTOLOGY, **changes))

    put()
    put(description="only the text")
    put(schema_text="{}")
    put(schema_text="{ }")
    with filled.read() as configuration:
        assert configuration.ontologies.get("Temperature").version == 3
        assert configuration.ontologies.versions("Temperature") == {1: ONTOLOGY.schema_text, 2: "{}", 3: "{ }"}
    assert filled.catalog().ontologies["Temperature"].schema_text == "{ }"


@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_schema_texts_are_kept_character_for_character(filled, text):
    with filled.change() as configuration:
        configuration.ontologies.put(replace(ONTOLOGY, schema_text=text))
        assert configuration.ontologies.get("Temperature").schema_text == text


@pytest.mark.parametrize(
    ("repository", "record"),
    [
        ("ontologies", replace(ONTOLOGY, owner="nobody")),
        ("ontologies", replace(ONTOLOGY, parent="Nothing")),
        ("ontologies", replace(ONTOLOGY, permissions={"nobody": Permission.ALL})),
        ("kps", replace(KP, owner="nobody")),
        ("kps", replace(KP, ontologies=frozenset({"Nothing"}))),
        ("tokens", TokenRecord("abcdefgh", "NoKp")),
        ("queries", replace(QUERY, ontology="Nothing")),
        ("assets", replace(ASSET, kp="NoKp")),
    ],
)
def test_references_must_exist(filled, repository, record):
    with pytest.raises(NotFoundError, match=r"nobody|Nothing|NoKp"), filled.change() as configuration:
        getattr(configuration, repository).put(record)


def test_a_token_stays_with_its_kp(filled):
    with pytest.raises(StoreError, match="exactly one KP") as error, filled.change() as configuration:
        configuration.tokens.put(TokenRecord("token-of-sofia", "KpOfAna"))
    assert "token-of-sofia" not in str(error.value)


def test_generated_tokens_are_active_and_differ(filled):
    with filled.change() as configuration:
        tokens = {configuration.tokens.add("KpOfAna") for _ in range(3)}
    assert len(tokens) == 3
    assert filled.tokens("KpOfAna")[0] == ("token-of-ana", True)
    assert set(filled.tokens("KpOfAna")) > {(token, True) for token in tokens}
    assert filled.tokens("NoKp") == []


@pytest.mark.parametrize(
    ("repository", "record"),
    [
        ("users", UserRecord("x" * 192, Role.USUARIO)),
        ("users", UserRecord("", Role.USUARIO)),
        ("users", UserRecord("u", Role.USUARIO, email="x" * 255)),
        ("ontologies", replace(ONTOLOGY, name="x" * 192)),
        ("kps", replace(KP, cipher_key="x" * 192)),
        ("tokens", TokenRecord("x" * 65, "KP")),
        ("tokens", TokenRecord("", "KP")),
        ("assets", replace(ASSET, tipo="x" * 192)),
    ],
)
def test_what_would_not_fit_into_another_database_is_refused(filled, repository, record):
    with pytest.raises(LimitError), filled.change() as configuration:
        getattr(configuration, repository).put(record)


def test_grant_and_take_a_permission(filled):
    def permissions():
        with filled.read() as configuration:
            return dict(configuration.ontologies.get("Closed").permissions)

    with filled.change() as configuration:
        configuration.ontologies.grant("Closed", "ana", Permission.ALL)
        configuration.ontologies.grant("Closed", "root", Permission.INSERT)
    assert permissions() == {"ana": Permission.ALL, "root": Permission.INSERT}
    with filled.change() as configuration:
        configuration.ontologies.grant("Closed", "ana", None)
    assert permissions() == {"root": Permission.INSERT}


def test_static_instances_are_the_whole_list_and_seen_ones_stay(filled):
    def instances():
        with filled.read() as configuration:
            return {instance.name: instance.static for instance in configuration.instances.all("KP")}

    filled.instances_seen([("KP", "seen", "10.0.0.1", NOW), ("KP", "b", "10.0.0.1", NOW)])
    with filled.change() as configuration:
        assert configuration.instances.put_static("KP", frozenset({"a", "b"})) is Outcome.CHANGED
        assert configuration.instances.put_static("KP", frozenset({"a", "b"})) is Outcome.UNCHANGED
    assert instances() == {"a": True, "b": True, "seen": False}
    with filled.change() as configuration:
        configuration.instances.put_static("KP", frozenset({"b"}))
    assert instances() == {"a": False, "b": True, "seen": False}


def test_deleting_a_kp_takes_its_tokens_and_instances(filled):
    filled.instances_seen([("KP", "i", "x", NOW)])
    with filled.change() as configuration:
        configuration.kps.delete("KP")
        assert configuration.tokens.get("token-of-sofia") is None
        assert configuration.instances.all("KP") == []
        assert configuration.tokens.get("token-of-ana") is not None


def test_what_is_used_cannot_be_deleted(filled):
    with filled.change() as configuration:
        configuration.ontologies.put(ONTOLOGY)
        configuration.queries.put(replace(QUERY, ontology="Other"))
        with pytest.raises(StoreError, match="owns"):
            configuration.users.delete("sofia")
        with pytest.raises(StoreError, match="extends"):
            configuration.ontologies.delete("Open")
        with pytest.raises(StoreError, match="query"):
            configuration.ontologies.delete("Other")
        configuration.users.delete("root")
        configuration.ontologies.delete("Closed")
        assert configuration.kps.get("KP").ontologies == {"Open"}
        for delete, name in ((configuration.users.delete, "root"), (configuration.ontologies.delete, "Closed")):
            with pytest.raises(NotFoundError):
                delete(name)


@pytest.mark.parametrize(
    ("repository", "record"),
    [
        ("cep_events", CepEvent("Lectura", "root", "Other")),
        ("processes", ProcessRecord("nightly", ProcessKind.TRANSFER, "Other")),
        ("rules", Rule("alarm", "root", RuleType.ONTOLOGY, ("Other",), blocks={"then": "pass"})),
    ],
    ids=["event", "process", "rule"],
)
def test_an_ontology_is_not_deleted_under_what_names_it(filled, repository, record):
    with filled.change() as configuration:
        getattr(configuration, repository).put(record)
        with pytest.raises(StoreError, match=record.name):
            configuration.ontologies.delete("Other")
        getattr(configuration, repository).delete(record.name)
        configuration.ontologies.delete("Other")


@pytest.mark.parametrize(
    ("repository", "record", "kind"),
    [
        ("cep_events", CepEvent("Lectura", "ana", "Other"), "a CEP event"),
        ("cep_rules", CepRule("calor", "ana", "Lectura", "*", "Alarm"), "a CEP rule"),
        ("rules", Rule("alarm", "ana", RuleType.TIMED, schedule="5m", blocks={"then": "pass"}), "a script rule"),
    ],
)
def test_a_user_is_not_deleted_under_his_rules(filled, repository, record, kind):
    with filled.change() as configuration:
        configuration.kps.delete("KpOfAna")
        getattr(configuration, repository).put(record)
        with pytest.raises(StoreError, match=kind):
            configuration.users.delete("ana")
        getattr(configuration, repository).delete(record.name)
        configuration.users.delete("ana")


def test_the_ontology_that_an_output_of_cep_comes_from(filled):
    with filled.change() as configuration:
        configuration.cep_events.put(CepEvent("Lectura", "ana", "Other"))
        configuration.cep_rules.put(CepRule("calor", "ana", "Lectura", "*", "Alarm"))
        configuration.cep_rules.put(CepRule("again", "ana", "Alarm", "*", "Twice"))
        configuration.cep_rules.put(CepRule("off", "ana", "Lectura", "*", "Nothing", active=False))
    with filled.read() as configuration:
        assert [origin(configuration, output) for output in ("ALARM", "twice", "Nothing", "Lectura", "")] == [
            "Other",
            "Other",
            "",
            "",
            "",
        ]


@pytest.mark.parametrize("value", [None, True, 1, 1.5, "text", "", [1, "a"], {"a": {"b": None}}])
def test_settings_keep_values_of_json(filled, value):
    with filled.change() as configuration:
        assert configuration.settings.put("a.b", value) is Outcome.CREATED
        assert configuration.settings.put("a.b", value) is Outcome.UNCHANGED
    stored = filled.catalog().settings["a.b"]
    assert stored == value
    assert type(stored) is type(value)
    with filled.change() as configuration:
        configuration.settings.delete("a.b")
    assert filled.catalog().settings == {}


def test_true_and_1_are_different_settings(filled):
    with filled.change() as configuration:
        configuration.settings.put("a", 1)
        assert configuration.settings.put("a", True) is Outcome.CHANGED


def test_the_newest_template_is_given_unless_a_version_is_told(filled):
    with filled.change() as configuration:
        configuration.templates.put(TEMPLATE)
        configuration.templates.put(replace(TEMPLATE, version=2))
        assert configuration.templates.get("T").version == 2
        assert configuration.templates.get("T", 1).version == 1
        assert configuration.templates.get("T", 3) is None


def test_a_catalog_is_of_one_version(filled):
    with filled.change() as configuration:
        configuration.queries.put(QUERY)
    catalog = filled.catalog()
    assert catalog.version == filled.config_version()
    assert set(catalog.ontologies) == {"Open", "Closed", "Other"}
    assert catalog.queries == {"q": QUERY}


def test_another_process_sees_the_change_at_once(filled, url):
    other = open_bdc(url)
    version = other.config_version()
    with filled.change() as configuration:
        configuration.users.put(UserRecord("new", Role.USUARIO))
    assert other.config_version() == version + 1
    with other.read() as configuration:
        assert configuration.users.get("new") is not None


def test_secrets_are_not_printed_by_records(filled):
    with filled.read() as configuration:
        printed = repr([*configuration.users.all(), *configuration.kps.all(), *configuration.tokens.all()])
    assert "token-of" not in printed
    assert "argon2" not in printed
    assert "key0key1" not in printed
