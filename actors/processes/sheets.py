"""The first sheet of an Excel workbook (.xlsx), row by row. Only values: no formulas are computed, no macros are seen.

Source: ECMA-376 Part 1, chapter 18 (SpreadsheetML): ``sheetData``, shared strings, number formats of dates. The XML parser of
Python 3.11 bounds how far entities may grow and fetches none from outside.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any
from xml.etree import ElementTree as ET

from sib.errors import InvalidInstanceError

UNPACKED_BYTES_MAX = 1 << 30
"""What one part of a workbook may hold unpacked: a small file can unpack to anything."""
COLUMNS_MAX = 2_000

_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_REFERENCE = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}id"
_COLUMN = re.compile(r"([A-Z]{1,3})\d*")
_DATE_FORMATS = frozenset((*range(14, 23), *range(27, 37), *range(45, 48), *range(50, 59)))
_NOT_FORMAT = re.compile(r'"[^"]*"|\\.|\[[^\]]*\]')
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    ET.ParseError,
    EOFError,
    LookupError,
    ValueError,
    OverflowError,
    RuntimeError,  # it is encrypted
)
_EPOCH, _EPOCH_1904 = datetime(1899, 12, 30), datetime(1904, 1, 1)


def read_sheet(path: Path) -> Iterator[list[Any]]:
    """The rows of the first sheet: texts, numbers, booleans, datetimes and None.

    Raises:
        InvalidInstanceError: it is no workbook, or too large.
    """
    try:
        with zipfile.ZipFile(path) as book:
            yield from _Sheet(book).rows()
    except _UNREADABLE as error:
        raise InvalidInstanceError(f"The file is no Excel workbook that can be read (.xlsx): {error}.") from None


class _Sheet:
    def __init__(self, book: zipfile.ZipFile) -> None:
        self._book = book
        root = self._tree("xl/workbook.xml")
        properties = root.find(f"{_MAIN}workbookPr")
        is_1904 = properties is not None and properties.get("date1904") in ("1", "true")
        self._epoch = _EPOCH_1904 if is_1904 else _EPOCH
        sheet = root.find(f"{_MAIN}sheets/{_MAIN}sheet")
        if sheet is None:
            raise ValueError("it has no sheet")
        self._path = self._target(sheet.get(_REFERENCE, ""))
        self._strings = list(self._shared_strings())
        self._dates = self._date_styles()

    def rows(self) -> Iterator[list[Any]]:
        with self._open(self._path) as part:
            for _, element in ET.iterparse(part):  # noqa: S314 - see above
                if element.tag == f"{_MAIN}row":
                    yield self._row(element)
                    element.clear()

    def _row(self, element: Any) -> list[Any]:
        values: list[Any] = []
        for cell in element.iterfind(f"{_MAIN}c"):
            found = _COLUMN.match(cell.get("r", ""))
            at = _number_of(found[1]) if found else len(values)
            if at >= COLUMNS_MAX:
                raise ValueError(f"it has more than {COLUMNS_MAX} columns")
            values += [None] * (at + 1 - len(values))
            values[at] = self._value(cell)
        return values

    def _value(self, cell: Any) -> Any:
        kind = cell.get("t", "n")
        if kind == "inlineStr":
            return _text_of(cell.find(f"{_MAIN}is"))
        text = cell.findtext(f"{_MAIN}v")
        if text is None or kind == "e":
            return None
        if kind == "s":
            return self._strings[int(text)]
        if kind in ("str", "d"):
            return text
        if kind == "b":
            return text == "1"
        number = float(text)
        if int(cell.get("s", "0")) in self._dates:
            moment = self._epoch + timedelta(days=number)
            return moment.replace(microsecond=0) + timedelta(milliseconds=round(moment.microsecond / 1000))
        return int(number) if number.is_integer() else number

    def _shared_strings(self) -> Iterator[str]:
        if "xl/sharedStrings.xml" in self._book.namelist():
            for item in self._tree("xl/sharedStrings.xml").iterfind(f"{_MAIN}si"):
                yield _text_of(item)

    def _date_styles(self) -> frozenset[int]:
        if "xl/styles.xml" not in self._book.namelist():
            return frozenset()
        root = self._tree("xl/styles.xml")
        own = {
            int(format_.get("numFmtId", "0")): format_.get("formatCode", "")
            for format_ in root.iterfind(f"{_MAIN}numFmts/{_MAIN}numFmt")
        }
        dates = _DATE_FORMATS | {number for number, code in own.items() if _is_date_format(code)}
        styles = root.iterfind(f"{_MAIN}cellXfs/{_MAIN}xf")
        return frozenset(at for at, style in enumerate(styles) if int(style.get("numFmtId", "0")) in dates)

    def _target(self, reference: str) -> str:
        for relation in self._tree("xl/_rels/workbook.xml.rels"):
            if relation.get("Id") == reference:
                target = relation.get("Target", "")
                return target.removeprefix("/") if target.startswith("/") else f"xl/{target}"
        raise ValueError("its first sheet is missing")

    def _tree(self, name: str) -> Any:
        with self._open(name) as part:
            return ET.parse(part).getroot()  # noqa: S314 - see above

    def _open(self, name: str) -> IO[bytes]:
        if self._book.getinfo(name).file_size > UNPACKED_BYTES_MAX:
            raise ValueError(f"{name} holds more than {UNPACKED_BYTES_MAX >> 20} MiB")
        return self._book.open(name)


def _text_of(element: Any) -> str:
    return "" if element is None else "".join(part.text or "" for part in element.iter(f"{_MAIN}t"))


def _number_of(letters: str) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - 64
    return number - 1


def _is_date_format(code: str) -> bool:
    return any(letter in _NOT_FORMAT.sub("", code).lower() for letter in "ymdhs")
