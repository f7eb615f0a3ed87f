"""``export``: the same format, and applying it changes nothing."""

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sib.access import Permission, Role
from sofia2.apply import apply_files
from sofia2.export import dump, export
from sofia2.yamlnodes import parse_yaml, value_of
from storage.bdc.bdc import open_bdc
from storage.bdc.passwords import hash_password
from storage.bdc.records import (
    AssetRecord,
    DefinedQuery,
    IndexDeclaration,
    KpRecord,
    OntologyRecord,
    Outcome,
    TokenRecord,
    UserRecord,
)

SCHEMA = '{"type":"object",\r\n\t"properties":{"a":{"type":"number"}, "t": {}} }  \n\n'
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(TEXTS, children, max_size=3),
    max_leaves=8,
)


def fill(bdc):
    with bdc.change() as configuration:
        configuration.users.put(UserRecord("sofia", Role.COLABORADOR, password_hash=hash_password("secret word")))
        configuration.users.put(UserRecord("0123", Role.USUARIO, email="a@b.c", active=False))
        configuration.ontologies.put(
            OntologyRecord(
                "Onto",
                "sofia",
                SCHEMA,
                public=True,
                indexes=(IndexDeclaration(("a",), unique=True), IndexDeclaration(("t",), expire_after_s=172_890)),
                window_s=172_800,
                description="two\nlines",
                permissions={"0123": Permission.INSERT},
            )
        )
        configuration.ontologies.put(OntologyRecord("Child", "sofia", "{}", parent="Onto", active=False))
        configuration.kps.put(KpRecord("KP", "0123", frozenset({"Onto"}), "true", "1e5", True, {"n": "1", "m": 1}))
        configuration.tokens.put(TokenRecord("00000001", "KP"))
        configuration.tokens.put(TokenRecord("1e000002", "KP", active=False))
        configuration.instances.put_static("KP", frozenset({"null", "i 1"}))
        configuration.queries.put(DefinedQuery("q", "Onto", "NATIVE", "{a: {$P}}", {"P": "number"}))
        configuration.assets.put(AssetRecord("a", "sofia", "", "t", None, {"x": [None, "yes"]}))
        configuration.settings.put("bdtr.url", "mysql://user:hidden@host/db")
        configuration.settings.put("a", {"b": [1, "1", True, None, 1.5]})


def apply_text(bdc, text, tmp_path):
    path = tmp_path / "export.yaml"
    path.write_text(text, encoding="utf-8", newline="")
    path.chmod(0o600)
    return apply_files(bdc, [path])


def make(tmp_path, name):
    bdc = open_bdc(f"sqlite:///{tmp_path}/{name}.db")
    bdc.upgrade()
    return bdc


def test_applying_an_export_changes_nothing(bdc, tmp_path):
    fill(bdc)
    version = bdc.config_version()
    for with_secrets in (False, True):
        report = apply_text(bdc, export(bdc, with_secrets=with_secrets), tmp_path)
        assert report.problems == ()
        assert {item.outcome for item in report.objects} == {Outcome.UNCHANGED}
    assert bdc.config_version() == version


def test_an_export_with_secrets_makes_the_same_platform_elsewhere(bdc, tmp_path):
    fill(bdc)
    text = export(bdc, with_secrets=True)
    other = make(tmp_path, "other")
    # 0123 has no password at all, which a new user of a file must have.
    with other.change() as configuration:
        configuration.users.put(UserRecord("0123", Role.USUARIO))
    assert apply_text(other, text, tmp_path).problems == ()
    assert export(other, with_secrets=True) == text
    assert other.catalog().ontologies["Onto"].schema_text == SCHEMA
    assert other.log_in("sofia", "secret word") is Role.COLABORADOR


def test_an_export_without_secrets_holds_none(bdc):
    fill(bdc)
    text = export(bdc)
    for secret in ("argon2", "00000001", "1e000002", "cipher_key", "api_key", "hidden"):
        assert secret not in text
    assert "hidden" in export(bdc, with_secrets=True)


def test_an_unchanged_template_is_exported_by_name_and_a_changed_one_as_text(bdc, tmp_path):
    text = "sofia2: 1\nusers:\n  - {name: s, password: long enough}\nontologies:\n  - {name: O1, owner: s, template: SensorPoint}\n"
    apply_text(bdc, text, tmp_path)
    assert "template: SensorPoint@1" in export(bdc)
    apply_text(bdc, "sofia2: 1\nontologies:\n  - {name: O1, schema: {type: object}}\n", tmp_path)
    exported = yaml.safe_load(export(bdc))["ontologies"][0]
    assert "template" not in exported
    assert "object" in exported["schema_text"]


def test_an_empty_platform_exports_the_version_only(bdc, tmp_path):
    assert export(bdc) == "sofia2: 1\n"
    assert apply_text(bdc, export(bdc), tmp_path).objects == ()


@given(value=st.dictionaries(TEXTS, JSON_VALUES, min_size=1, max_size=3))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_value_survives_dump_and_read(value):
    read = value_of(parse_yaml(dump(value)))
    assert read == value
    assert repr(read) == repr(value)
