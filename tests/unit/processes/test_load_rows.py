"""Rows of files: CSV as spreadsheets write it, JSON in two forms, Excel; each becomes an instance of the ontology."""

import zipfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.processes.definitions import LoadFormat
from actors.processes.rows import read_rows
from sib.errors import InvalidInstanceError, UnknownFieldError
from sib.ontology import compile_ontology

SCHEMA = """{
  "type": "object", "required": ["Medida"], "properties": {"Medida": {"$ref": "#/datos"}},
  "datos": {"type": "object", "required": ["id"], "additionalProperties": false, "properties": {
    "id": {"type": "string"}, "n": {"type": "integer"}, "value": {"type": "number"}, "on": {"type": "boolean"},
    "at": {"type": "object", "required": ["$date"], "properties": {"$date": {"type": "string", "format": "date-time"}}},
    "place": {"type": "object", "properties": {"type": {"type": "string"},
              "coordinates": {"type": "array", "items": {"type": "number"}}}}}}
}"""
ONTOLOGY = compile_ontology("Medida", SCHEMA)


def rows(path, format_=LoadFormat.CSV):
    return list(read_rows(path, format_, ONTOLOGY))


def instances(path, format_=LoadFormat.CSV):
    return [row.instance["Medida"] for row in rows(path, format_)]


def write(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "file"
    path.write_bytes(text.encode(encoding))
    return path


def test_cells_become_what_the_schema_says(tmp_path):
    path = write(
        tmp_path,
        'id,n,value,on,at,place\n007,12,1.5,true,2026-03-01T10:00:00Z,"{""type"":""Point"",""coordinates"":[1,2]}"\n',
    )
    (made,) = instances(path)
    assert made == {
        "id": "007",
        "n": 12,
        "value": 1.5,
        "on": True,
        "at": {"$date": "2026-03-01T10:00:00.000+00:00"},
        "place": {"type": "Point", "coordinates": [1, 2]},
    }
    ONTOLOGY.validate({"Medida": made})


def test_a_spanish_spreadsheet(tmp_path):
    path = write(tmp_path, "id;value;on;at\r\nCáceres;3,25;sí;31/12/2025 23:59\r\n", encoding="cp1252")
    assert instances(path) == [
        {"id": "Cáceres", "value": 3.25, "on": True, "at": {"$date": "2025-12-31T23:59:00.000Z"}}
    ]


def test_whole_paths_blank_rows_and_blank_cells(tmp_path):
    path = write(tmp_path, "\ufeffMedida.id\tMedida.n\n\n a \t\n\t\nb\t2\n")
    assert instances(path) == [{"id": "a"}, {"id": "b", "n": 2}]
    assert [row.number for row in rows(path)] == [1, 2]


def test_what_a_cell_is_not_stays_and_the_ontology_names_it(tmp_path):
    path = write(tmp_path, "id,n\na,twelve\n")
    (made,) = instances(path)
    with pytest.raises(InvalidInstanceError, match="twelve"):
        ONTOLOGY.validate({"Medida": made})


def test_a_row_with_too_many_values_says_so(tmp_path):
    assert [bool(row.error) for row in rows(write(tmp_path, "id,n\na,1,9\nb,2,\n"))] == [True, False]


def test_columns_that_mean_nothing_or_the_same_are_refused(tmp_path):
    with pytest.raises(UnknownFieldError):
        rows(write(tmp_path, "id,colour\na,red\n"))
    with pytest.raises(InvalidInstanceError, match="twice"):
        rows(write(tmp_path, "id,Medida.id\na,b\n"))
    with pytest.raises(InvalidInstanceError, match="empty"):
        rows(write(tmp_path, "\n\n"))


def test_json_as_lines_and_as_an_array(tmp_path):
    lines = write(tmp_path, '{"Medida": {"id": "a"}}\n\n{"Medida": \n')
    assert [row.instance for row in rows(lines, LoadFormat.JSON)] == ['{"Medida": {"id": "a"}}', '{"Medida":']
    array = write(tmp_path, ' [{"Medida": {"id": "a"}}, 5]')
    assert [(row.number, bool(row.error)) for row in rows(array, LoadFormat.JSON)] == [(1, False), (2, True)]
    with pytest.raises(InvalidInstanceError, match="no JSON"):
        rows(write(tmp_path, "[{]"), LoadFormat.JSON)


SHEET = """<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>
<row r="1"><c r="A1" t="s"><v>0</v></c><c r="B1" t="inlineStr"><is><t>n</t></is></c><c r="D1" t="s"><v>1</v></c>
<c r="E1" t="str"><v>on</v></c></row>
<row r="2"><c r="A2"><v>7</v></c><c r="B2"><v>12</v></c><c r="D2" s="1"><v>46082.5</v></c><c r="E2" t="b"><v>1</v></c></row>
<row r="3"><c r="B3"><v>1.5</v></c></row></sheetData></worksheet>"""
BOOK = {
    "xl/workbook.xml": """<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"
 xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships">
 <sheets><sheet name="a" sheetId="1" r:id="rId1"/></sheets></workbook>""",
    "xl/_rels/workbook.xml.rels": """<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">
 <Relationship Id="rId1" Target="worksheets/sheet1.xml"/></Relationships>""",
    "xl/worksheets/sheet1.xml": SHEET,
    "xl/sharedStrings.xml": """<sst xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">
 <si><t>id</t></si><si><r><t>a</t></r><r><t>t</t></r></si></sst>""",
    "xl/styles.xml": """<styleSheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main">
 <numFmts><numFmt numFmtId="164" formatCode="dd/mm/yyyy hh:mm"/></numFmts>
 <cellXfs><xf numFmtId="0"/><xf numFmtId="164"/></cellXfs></styleSheet>""",
}


def workbook(tmp_path, **changed):
    path = tmp_path / "book.xlsx"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as book:
        for name, text in {**BOOK, **changed}.items():
            book.writestr(name, text)
    return path


def test_an_excel_sheet(tmp_path):
    assert instances(workbook(tmp_path), LoadFormat.EXCEL) == [
        {"id": "7", "n": 12, "at": {"$date": "2026-03-01T12:00:00.000Z"}, "on": True},
        {"n": 1.5},
    ]


def test_a_broken_workbook_is_refused_with_a_reason(tmp_path):
    with pytest.raises(InvalidInstanceError, match="Excel"):
        rows(write(tmp_path, "PK no zip"), LoadFormat.EXCEL)
    with pytest.raises(InvalidInstanceError, match="Excel"):
        rows(workbook(tmp_path, **{"xl/worksheets/sheet1.xml": SHEET[:200]}), LoadFormat.EXCEL)
    cell = '<c r="A2" t="s"><v>99</v></c>'
    with pytest.raises(InvalidInstanceError, match="Excel"):
        rows(
            workbook(tmp_path, **{"xl/worksheets/sheet1.xml": SHEET.replace('<c r="A2"><v>7</v></c>', cell)}),
            LoadFormat.EXCEL,
        )


def test_a_workbook_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("actors.processes.sheets.UNPACKED_BYTES_MAX", 100)
    with pytest.raises(InvalidInstanceError, match="more than"):
        rows(workbook(tmp_path), LoadFormat.EXCEL)


@given(st.binary(max_size=300), st.sampled_from(list(LoadFormat)))
def test_whatever_a_file_holds_it_is_read_or_refused(tmp_path_factory, content, format_):
    path = tmp_path_factory.mktemp("any") / "file"
    path.write_bytes(content)
    try:
        assert all(row.number for row in rows(path, format_))
    except (InvalidInstanceError, UnknownFieldError):
        pass
