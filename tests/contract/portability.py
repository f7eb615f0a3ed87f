"""Whether a statement means the same on Oracle 12.1, 19 and 23, which no machine of ours has: compiled, not run.

Not a test module: ``conftest.py`` loads it as a plugin; it looks at every statement that the contract tests carry out.
"""

import re

import pytest
from sqlalchemy import Column, Engine, event
from sqlalchemy.dialects.oracle.oracledb import OracleDialect_oracledb
from sqlalchemy.schema import DDLElement
from sqlalchemy.sql import operators, visitors
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, ClauseElement, TextClause
from sqlalchemy.sql.selectable import Select

VERSIONS = ((12, 1), (19,), (23,))
NAME_CHARS_MAX = 30
FORBIDDEN = re.compile(
    r"\b(BOOLEAN|JSON|LIMIT|IS 1|IS 0|IS true|IS false|AUTO_INCREMENT|RETURNING \*)\b", re.IGNORECASE
)
_EQUAL = (operators.eq, operators.ne, operators.in_op, operators.not_in_op)
COMPARISONS = {*_EQUAL, operators.lt, operators.le, operators.gt, operators.ge}


def oracle(version):
    """The dialect as it is when it is connected to a server of this version."""
    dialect = OracleDialect_oracledb()
    dialect.server_version_info = version
    dialect._supports_oracle_json = version >= (21,)
    dialect.supports_native_boolean = version >= (23,)
    dialect.supports_identity_columns = True
    dialect.max_identifier_length = NAME_CHARS_MAX if version < (12, 2) else 128
    return dialect


DIALECTS = [oracle(version) for version in VERSIONS]


def faults(statement: ClauseElement) -> list[str]:
    """What Oracle would refuse or understand otherwise."""
    found = []
    for dialect, version in zip(DIALECTS, VERSIONS, strict=True):
        try:
            text = str(statement.compile(dialect=dialect))
        except Exception as error:  # whatever the compiler meets is the finding
            return [f"Oracle {version}: {type(error).__name__}: {error}"]
        bare = re.sub(r"'[^']*'", "''", text)
        found += [f"Oracle {version}: {word} in {text}" for word in FORBIDDEN.findall(bare)]
        found += [f"{name} is longer than {NAME_CHARS_MAX}" for name in re.findall(r"\w{31,}", bare)]
    return found if isinstance(statement, DDLElement) else found + _meanings(statement)


def _is_lob(element) -> bool:
    if not isinstance(element, Column):
        return False
    return any(kind in DIALECTS[0].type_compiler_instance.process(element.type) for kind in ("LOB", "LONG"))


def _meanings(statement: ClauseElement) -> list[str]:
    found = []
    for element in visitors.iterate(statement):
        if isinstance(element, BinaryExpression) and element.operator in COMPARISONS:
            sides = (element.left, element.right)
            found += [f"{side} is a LOB, which Oracle does not compare" for side in sides if _is_lob(side)]
            if any(
                isinstance(side, BindParameter) and side.value in ("", b"") and side.type.python_type is str
                for side in sides
            ):
                found.append(f"{element} compares with the empty string, which is NULL on Oracle")
        if isinstance(element, Select):
            ordered = [*element._order_by_clauses, *element._group_by_clauses]
            if element._distinct:
                ordered += element.selected_columns
            found += [f"{part} is a LOB, which Oracle does not order" for part in ordered if _is_lob(part)]
    return found


SEEN: set[str] = set()


def _before_execute(connection, statement, _many, _parameters, _options):
    if (
        connection.dialect.name != "sqlite"
        or not isinstance(statement, ClauseElement)
        or isinstance(statement, TextClause)
    ):
        return  # what SQLAlchemy asks a server of itself is written for that server
    name = str(statement)
    if name in SEEN:
        return
    SEEN.add(name)
    problems = faults(statement)
    assert not problems, problems


@pytest.fixture(scope="session", autouse=True)
def _every_statement_is_portable():
    event.listen(Engine, "before_execute", _before_execute)
    yield
    event.remove(Engine, "before_execute", _before_execute)
