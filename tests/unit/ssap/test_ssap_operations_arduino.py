"""Arduino's removals: an UPDATE whose data is the empty string."""

from sib.ssap.envelope import parse_request
from sib.ssap.messages import Dialect


def update(data: str):
    body = f'{{\\"data\\":{data},\\"query\\":\\"{{Sensor.assetId:1}}\\",\\"queryType\\":\\"NATIVE\\"}}'
    text = f'{{"body":"{body}","messageType":"UPDATE","sessionKey":"k","ontology":"X","direction":"REQUEST"}}'
    return parse_request(text.encode(), fallback=Dialect.STRING).operation


def test_an_update_with_empty_data_is_a_removal():
    assert update('\\"\\"').is_removal


def test_an_update_with_null_data_is_not_a_removal():
    assert not update("null").is_removal
