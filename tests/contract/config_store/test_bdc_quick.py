"""The quick look gives what the repositories give."""

import pytest

from sib.access import Role
from storage.bdc.quick import read_schema
from storage.bdc.records import OntologyRecord, UserRecord


@pytest.mark.adapters("sqlite")
@pytest.mark.parametrize(
    "schema_text", ['{"type": "object"}', ' {"title": "ñ€😀",\n "type": "object"} ', "x" * 100_000]
)
def test_the_schema_in_force_is_read(bdc, url, schema_text):
    with bdc.change() as configuration:
        configuration.users.put(UserRecord(name="quick", role=Role.COLABORADOR))
        configuration.ontologies.put(OntologyRecord(name="Quick", owner="quick", schema_text="{}"))
    with bdc.change() as configuration:
        configuration.ontologies.put(OntologyRecord(name="Quick", owner="quick", schema_text=schema_text))
    with bdc.read() as configuration:
        record = configuration.ontologies.get("Quick")
    assert read_schema(url, "Quick") == (record.schema_text, record.version) == (schema_text, 2)


@pytest.mark.adapters("sqlite")
def test_what_is_not_there_is_left_to_the_bdc(bdc, url, tmp_path):
    assert read_schema(url, "None") is None
    assert read_schema(f"sqlite:///{tmp_path}/none.db", "Quick") is None
    assert read_schema("mysql://host/db", "Quick") is None
    assert not (tmp_path / "none.db").exists()
