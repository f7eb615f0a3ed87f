"""CEP events and rules as the console has them; the first point of the semantics."""

from datetime import datetime

import pytest

from sib.cep import compile_rules, parse_rules
from sib.cep.events import EventDefinition, milliseconds, rule_of_boxes
from sib.cep.tables import row_of

TALLER = EventDefinition(
    "TallerIoTEventoPTG",
    "TallerIoTPTG",
    {"TallerIoT.tipo": "string", "TallerIoT.temperatura": "number", "TallerIoT.ubicacion": "string"},
)


def document(**fields):
    return {"_id": 1, "contextData": {}, "TallerIoT": fields}


def test_an_event_is_a_stream_in_capitals_with_attributes_of_ontology_and_field():
    assert TALLER.stream == "TALLERIOTEVENTOPTG"
    assert TALLER.types() == {
        "TALLERIOTPTG__TIPO": "string",
        "TALLERIOTPTG__TEMPERATURA": "number",
        "TALLERIOTPTG__UBICACION": "string",
    }


def test_an_instance_becomes_a_typed_event_where_missing_and_ill_typed_attributes_are_null():
    stream, ts, attributes = TALLER.event(document(tipo=7, temperatura="31", extra=1), 500)
    assert (stream, ts) == ("TALLERIOTEVENTOPTG", 500)
    assert set(attributes.values()) == {None}
    assert TALLER.event(document(tipo="T", temperatura=31.5), 500)[2]["TALLERIOTPTG__TEMPERATURA"] == 31.5


def test_the_rule_of_the_original_course_works_as_it_was_written():
    text = rule_of_boxes(
        'TALLERIOTEVENTOPTG [TALLERIOTPTG__TIPO="TEMPERATURA" AND TALLERIOTPTG__TEMPERATURA > 30 ]',
        "TALLERIOTPTG__TEMPERATURA as VALOR, TALLERIOTPTG__UBICACION as UBICACION",
        "TallerIoTREGLAPTG",
    )
    engine = compile_rules(text, streams={TALLER.stream: TALLER.types()})
    hot = TALLER.event(document(tipo="TEMPERATURA", temperatura=31, ubicacion="Madrid"), 5)
    cold = TALLER.event(document(tipo="TEMPERATURA", temperatura=29, ubicacion="Madrid"), 6)
    [output] = engine.send_batch([hot, cold])
    assert (output.stream, output.data) == ("TallerIoTREGLAPTG", {"VALOR": 31, "UBICACION": "Madrid"})


def test_boxes_may_begin_with_their_keywords():
    plain = rule_of_boxes("S", "a", "T")
    assert rule_of_boxes("FROM S ", "select a", "insert into T;") == plain
    assert parse_rules(plain)[0].target == "T"


def test_event_time_is_an_attribute_or_the_insertion():
    definition = EventDefinition("E", "O", {"v": "number"}, time_path="when")
    assert definition.event({"v": 1, "when": datetime(1970, 1, 1, 0, 0, 2)}, 9)[1] == 2_000
    assert definition.event({"v": 1, "when": 1234.0}, 9)[1] == 1_234
    assert definition.event({"v": 1, "when": "yesterday"}, 9)[1] == 9
    assert definition.event({"v": 1}, 9)[1] == 9


@pytest.mark.parametrize(
    ("value", "ms"), [(datetime(1970, 1, 2), 86_400_000), (5, 5), (True, None), ("5", None), (1e300, None)]
)
def test_milliseconds(value, ms):
    assert milliseconds(value) == ms


def test_fields_with_the_same_end_keep_their_whole_path_and_arrays_have_places():
    definition = EventDefinition("E", "O", {"a.v": "number", "b.v": "number", "c.0": "integer", "d": "boolean"})
    assert list(definition.names().values()) == ["O__A_V", "O__B_V", "O__0", "O__D"]
    event = definition.event({"a": {"v": 1}, "b": {"v": 2}, "c": [3], "d": True}, 0)
    assert list(event[2].values()) == [1, 2, 3, True]


def test_a_number_is_the_same_however_it_was_stored():
    event = EventDefinition("e", "A", {"v": "number"})
    values = [event.event({"v": value}, 0)[2]["A__V"] for value in (41, 41.0, 41.5, True, 1e300)]
    assert list(map(repr, values)) == ["41", "41", "41.5", "None", "1e+300"]


def test_a_row_of_a_table_is_the_instance_without_what_the_platform_adds():
    context = {"contextData": {"user": "u"}, "_id": {"$oid": "0" * 24}}
    body = {"n": 41.0, "at": {"$date": "2026-01-01T00:00:00.000Z"}, "deep": [{"id": {"$oid": "1" * 24}}, 1.5]}
    row = {"n": 41, "at": "2026-01-01T00:00:00.000Z", "deep": [{"id": "1" * 24}, 1.5], "_id": "0" * 24}
    assert row_of({**context, **body}, None) == row_of({**context, "Root": body}, "Root") == row
    assert row_of({"_id": "own", "n": 1}, "Root") == {"_id": "own", "n": 1}
