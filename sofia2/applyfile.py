"""The file that ``sofia2 apply`` reads: from text to declarations, each key checked for itself and with its line.

What a declaration means for the configuration database, and whether its references exist, ``sofia2.apply`` decides.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from sib.access import Permission, Role
from sofia2.filereaders import (
    LocatedText,
    Read,
    bounded_text_reader,
    choice_reader,
    list_reader,
    map_reader,
    name_reader,
    nullable,
    read_flag,
    read_free_map,
    read_keys,
    read_object,
    read_optional_text,
    read_text,
    read_window,
    secret_reader,
    suggestion,
)
from sofia2.yamlnodes import (
    FileProblems,
    Mapping,
    Node,
    Problem,
    Scalar,
    Sequence,
    is_null,
    parse_yaml,
    problem_at,
    value_of,
)
from storage.bdc.passwords import is_password_hash
from storage.bdc.records import IndexDeclaration
from storage.bdc.types import NAME_CHARS_MAX

FORMAT_VERSION = 1
ONTOLOGY_NAME_CHARS_MAX = 100

_ONTOLOGY_NAME = re.compile(r"[^\W\d][\w-]*")
_TOKEN = re.compile(r"[0-9A-Za-z-]{8,64}")
_API_KEY = re.compile(r"[0-9A-Fa-f]{32}")
_PARAMETER = re.compile(r"[A-Za-z_]\w{0,62}")


class QueryKind(StrEnum):
    """The kinds of a predefined query."""

    NATIVE = "NATIVE"
    SQLLIKE = "SQLLIKE"
    SQL = "SQL"  # the same as SQLLIKE
    BDH = "BDH"  # on the history


class ParameterType(StrEnum):
    """The types of a predefined query's parameter."""

    STRING = "string"
    NUMBER = "number"
    INTEGER = "integer"
    INT = "int"
    LONG = "long"
    FLOAT = "float"
    DOUBLE = "double"
    BOOLEAN = "boolean"
    DATE = "date"
    OBJECTID = "objectid"


class IndexType(StrEnum):
    """The types of a declared index."""

    ORDERED = "ordered"
    GEO = "2dsphere"


@dataclass(frozen=True, slots=True)
class DeclaredToken:
    """One token of a KP."""

    token: str = field(repr=False)
    active: bool
    line: int


@dataclass(frozen=True, slots=True)
class Declared:
    """One object of the file: the keys that were given (absent keys are left as they are) and the line of each."""

    section: str
    name: str
    line: int
    given: dict[str, Any] = field(repr=False)
    lines: dict[str, int]
    is_faulty: bool = False  # some of its keys are missing here because they were wrong

    def line_of(self, key: str) -> int:
        return self.lines.get(key, self.line)


@dataclass(frozen=True, slots=True)
class ApplyFile:
    """The content of one file, and what is wrong in it."""

    objects: tuple[Declared, ...] = ()
    settings: tuple[Declared, ...] = ()
    problems: tuple[Problem, ...] = ()


read_user_name = name_reader("the name of a user", forbidden=":", chars_max=NAME_CHARS_MAX)
read_kp_name = name_reader("the name of a KP", forbidden=":", chars_max=NAME_CHARS_MAX)
read_ontology_name = name_reader("the name of an ontology", pattern=_ONTOLOGY_NAME, chars_max=ONTOLOGY_NAME_CHARS_MAX)
read_name = name_reader("this name", chars_max=NAME_CHARS_MAX)


read_token = secret_reader(_TOKEN, "a token of 8 to 64 characters [0-9A-Za-z-]")
read_non_empty_secret = secret_reader(re.compile(r".+", re.DOTALL), "a text that is not empty")
read_api_key = secret_reader(_API_KEY, "an API key of 32 hexadecimal digits")
read_cipher_key = secret_reader(re.compile(r".{1,191}", re.DOTALL), "a cipher key of 1 to 191 characters")


def read_password_hash(node: Node) -> LocatedText:
    """An argon2 hash."""
    text = read_text(node)
    if len(text) > 255 or not is_password_hash(text):
        raise problem_at(text.line, "an argon2 hash ($argon2id$…) is expected here.")
    return text


def read_index(node: Node) -> IndexDeclaration:
    """An index: the path of one field, or a map with fields, type, unique, sparse, expire_after."""
    if isinstance(node, Scalar):
        return IndexDeclaration(fields=(str(read_name(node)),))
    given = read_object(node, _INDEX_KEYS, required=("fields",))
    fields = tuple(str(path) for path in given["fields"])
    if not fields or len(set(fields)) != len(fields):
        raise problem_at(node.line, "an index needs at least one field, each once.")
    declaration = IndexDeclaration(
        fields=fields,
        type=given.get("type", IndexType.ORDERED).value,
        unique=given.get("unique", False),
        sparse=given.get("sparse", False),
        expire_after_s=given.get("expire_after"),
    )
    if declaration.type == IndexType.GEO and (declaration.unique or declaration.expire_after_s is not None):
        raise problem_at(node.line, "a 2dsphere index can be neither unique nor expire.")
    if declaration.type == IndexType.GEO and len(fields) > 1:
        raise problem_at(node.line, "a 2dsphere index has exactly one field.")
    if declaration.expire_after_s is not None and len(fields) > 1:
        raise problem_at(node.line, "an index that expires has exactly one field, a date.")
    return declaration


def read_declared_token(node: Node) -> DeclaredToken:
    """A token: its text (then it is active), or a map with token and active."""
    if isinstance(node, Scalar):
        return DeclaredToken(str(read_token(node)), active=True, line=node.line)
    given = read_object(node, {"token": read_token, "active": read_flag}, required=("token",))
    return DeclaredToken(str(given["token"]), given.get("active", True), node.line)


_INDEX_KEYS: dict[str, Read] = {
    "fields": list_reader(read_name),
    "type": choice_reader(IndexType),
    "unique": read_flag,
    "sparse": read_flag,
    "expire_after": nullable(read_window),
}


@dataclass(frozen=True, slots=True)
class Section:
    """One section of the file: how its objects are called, what names one, and the keys it may have."""

    name: str
    kind: str
    key: str
    readers: dict[str, Read]
    exclusive: tuple[str, ...] = ()


SECTIONS = (
    Section(
        "users",
        "user",
        "name",
        {
            "name": read_user_name,
            "password": read_non_empty_secret,
            "password_hash": read_password_hash,
            "password_file": read_text,
            "password_env": read_text,
            "role": choice_reader(Role),
            "email": bounded_text_reader(254),
            "active": read_flag,
            "api_key": read_api_key,
        },
        exclusive=("password", "password_hash", "password_file", "password_env"),
    ),
    Section(
        "ontologies",
        "ontology",
        "name",
        {
            "name": read_ontology_name,
            "owner": read_user_name,
            "description": read_optional_text,
            "template": read_name,
            "schema": read_free_map,
            "schema_text": read_text,
            "schema_file": read_text,
            "active": read_flag,
            "public": read_flag,
            "parent": nullable(read_ontology_name),
            "indexes": list_reader(read_index),
            "permissions": map_reader(read_user_name, choice_reader(Permission)),
            "window": nullable(read_window),
        },
        exclusive=("template", "schema", "schema_text", "schema_file"),
    ),
    Section(
        "kps",
        "KP",
        "name",
        {
            "name": read_kp_name,
            "owner": read_user_name,
            "description": read_optional_text,
            "ontologies": list_reader(read_ontology_name),
            "cipher_key": read_cipher_key,
            "cipher_only": read_flag,
            "meta": read_free_map,
            "tokens": list_reader(read_declared_token),
            "instances": list_reader(read_name),
        },
    ),
    Section(
        "queries",
        "query",
        "name",
        {
            "name": read_name,
            "ontology": read_ontology_name,
            "type": choice_reader(QueryKind),
            "text": read_text,
            "params": map_reader(
                name_reader("the name of a parameter", pattern=_PARAMETER, chars_max=63), choice_reader(ParameterType)
            ),
        },
    ),
    Section(
        "assets",
        "asset",
        "identificacion",
        {
            "identificacion": read_name,
            "owner": read_user_name,
            "descripcion": read_optional_text,
            "tipo": bounded_text_reader(NAME_CHARS_MAX),
            "kp": nullable(read_kp_name),
            "properties": read_free_map,
        },
    ),
)


def _sections() -> tuple[Section, ...]:
    from sofia2.applysections import extensions

    return (*SECTIONS, *(extension.section for extension in extensions()))


def read_apply_file(text: str) -> ApplyFile:
    """Read the text of one file, as far as it can be read, with all problems that need no look at the database.

    Raises:
        FileProblems: the text is not YAML, or no map at all.
    """
    root = parse_yaml(text)
    if not isinstance(root, Mapping):
        raise problem_at(1, "the file must begin with sofia2: 1 and hold sections such as users: and kps:.")
    objects: list[Declared] = []
    problems = _problems_of_head(root)
    for section in _sections():
        for node in _objects_of(root, section.name, problems):
            try:
                objects.append(_read_declared(section, node, problems))
            except FileProblems as error:
                problems += error.problems
    settings: tuple[Declared, ...] = ()
    try:
        settings = tuple(_read_settings(root))
    except FileProblems as error:
        problems += error.problems
    return ApplyFile(tuple(objects), settings, tuple(problems))


def _objects_of(root: Mapping, section: str, problems: list[Problem]) -> list[Node]:
    entry = root.entries.get(section)
    if entry is None or is_null(entry.value):
        return []
    if isinstance(entry.value, Sequence):
        return entry.value.items
    problems.append(Problem(entry.line, f"{section} is a list: begin each object with a - on a line of its own."))
    return []


def _problems_of_head(root: Mapping) -> list[Problem]:
    known = ["sofia2", *(section.name for section in _sections()), "settings"]
    problems = [
        Problem(entry.line, f"unknown key {key[:60]!r}: {suggestion(key, known)}")
        for key, entry in root.entries.items()
        if key not in known
    ]
    version = root.entries.get("sofia2")
    if version is None:
        problems.append(Problem(1, f"the format version is missing: add the line sofia2: {FORMAT_VERSION}"))
    elif not isinstance(version.value, Scalar) or version.value.text != str(FORMAT_VERSION):
        problems.append(Problem(version.line, f"this version of sofia2 reads only format {FORMAT_VERSION}."))
    return problems


def _read_declared(section: Section, node: Node, problems: list[Problem]) -> Declared:
    read = read_keys(node, section.readers, required=(section.key,))
    found = list(read.problems)
    together = [key for key in section.exclusive if key in read.lines]
    if len(together) > 1:
        found.append(Problem(read.lines[together[1]], f"give only one of {' and '.join(together)}."))
    problems += found
    name = str(read.given.get(section.key, ""))
    return Declared(section.name, name, node.line, read.given, read.lines, is_faulty=bool(found))


def _read_settings(root: Mapping) -> list[Declared]:
    entry = root.entries.get("settings")
    if entry is None or is_null(entry.value):
        return []
    values = map_reader(read_name, lambda node: (node.line, value_of(node)))(entry.value)
    return [
        Declared("settings", str(name), name.line, {"value": value}, {"value": name.line})
        for name, (_, value) in values.items()
    ]
