"""YAML (and JSON) as a tree that knows its lines, read for declarations and not for objects of Python.

Differences from PyYAML's own loader, each on purpose: a plain scalar keeps its text, so that the token ``0123456789``
stays what it is where a text is expected; ``yes`` and ``on`` are texts (YAML 1.2); repeated keys, anchors, aliases and
tags are refused; nesting and size are bounded.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

FILE_BYTES_MAX = 16 * 1024 * 1024
DEPTH_MAX = 100

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_OCTAL_OR_HEX = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_DIGITS_MAX = 400
_ESCAPE = re.compile(r"\\(?:u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})|.)", re.IGNORECASE | re.DOTALL)
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong (or worth a warning) at a line of a file; line 0 stands for the whole file."""

    line: int
    message: str
    file: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.message}"


class FileProblems(Exception):
    """One or more problems of a file."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__(*problems)
        self.problems = problems


def problem_at(line: int, message: str) -> FileProblems:
    """The exception for one problem."""
    return FileProblems(Problem(line, message))


@dataclass(slots=True)
class Scalar:
    """A scalar with its text; ``is_plain`` if it was written without quotes, so that it may mean a number or null."""

    line: int
    text: str
    is_plain: bool


@dataclass(slots=True)
class Sequence:
    """A list."""

    line: int
    items: list[Node] = field(default_factory=list)


@dataclass(slots=True)
class Mapping:
    """A map; every key is there once."""

    line: int
    entries: dict[str, Entry] = field(default_factory=dict)
    pending_key: Scalar | None = None


@dataclass(slots=True)
class Entry:
    """One key of a map: where the key stands, and its value."""

    line: int
    value: Node


Node = Scalar | Sequence | Mapping


def parse_yaml(text: str) -> Node | None:
    """Parse one YAML or JSON document; None if the text is blank.

    Raises:
        FileProblems: it cannot be read, or uses something that is refused; with the line.
    """
    if len(text) > FILE_BYTES_MAX:
        raise problem_at(0, f"the file is larger than {FILE_BYTES_MAX // 1024 // 1024} MiB: divide it.")
    try:
        return _build(yaml.parse(_json_as_yaml(text) if _is_json(text) else text, Loader=_Loader))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, max(error.position, 0)) + 1
        raise problem_at(line, f"a character that YAML does not allow: {error.reason}.") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = min(mark.line + 1, len(text.splitlines())) if mark else 1  # the end of the text is not a line of its own
        raise problem_at(line, f"this is not YAML: {error.problem or error.context}.") from None


def value_of(node: Node) -> Any:
    """A node as a value of JSON: map, list, text, number, boolean or null.

    Raises:
        FileProblems: a number that JSON cannot express.
    """
    if isinstance(node, Mapping):
        return {key: value_of(entry.value) for key, entry in node.entries.items()}
    if isinstance(node, Sequence):
        return [value_of(item) for item in node.items]
    try:
        return plain_value(node.text) if node.is_plain else node.text
    except ValueError as error:
        raise problem_at(node.line, f"{error}.") from None


def plain_value(text: str) -> Any:
    """What a plain scalar means by the core schema of YAML 1.2.

    Raises:
        ValueError: infinity, not-a-number, or a number of more than 400 digits.
    """
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"{text} is no value of JSON: write it in quotes if a text is meant")
    if not _FLOAT.fullmatch(text) and not _OCTAL_OR_HEX.fullmatch(text):
        return text
    if len(text) > _DIGITS_MAX:
        raise ValueError(f"a number of more than {_DIGITS_MAX} digits: write it in quotes if a text is meant")
    if _OCTAL_OR_HEX.fullmatch(text):
        return int(text, 0)
    if _INTEGER.fullmatch(text):
        return int(text)
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{text} is too large for a number: write it in quotes if a text is meant")
    return number


def is_null(node: Node) -> bool:
    """Whether a node is null: nothing, ``~`` or ``null`` without quotes."""
    return isinstance(node, Scalar) and node.is_plain and node.text in _NULLS


def _is_json(text: str) -> bool:
    if not text.lstrip().startswith("{"):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _json_as_yaml(text: str) -> str:
    # A raw tab in JSON can only be white space, where YAML does not take it. A character beyond the basic plane may be
    # written as two escapes, which YAML would take for two characters.
    return _ESCAPE.sub(_joined_surrogates, text.replace("\t", " "))


def _joined_surrogates(escape: re.Match[str]) -> str:
    if not escape[1]:
        return escape[0]
    return bytes.fromhex(escape[1] + escape[2]).decode("utf-16-be")


def _build(events: Iterator[Any]) -> Node | None:
    root: Node | None = None
    documents = 0
    open_nodes: list[Sequence | Mapping] = []
    for event in events:
        line = event.start_mark.line + 1
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise problem_at(line, "a second document begins here: one file holds one document.")
        elif isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise problem_at(line, "anchors (&name) and aliases (*name) are refused: write the value again.")
        elif isinstance(event, yaml.CollectionEndEvent):
            open_nodes.pop()
        elif isinstance(event, yaml.NodeEvent):
            node = _node(event, line)
            if open_nodes:
                _add(open_nodes[-1], node)
            else:
                root = node
            if not isinstance(node, Scalar):
                open_nodes.append(node)
                if len(open_nodes) > DEPTH_MAX:
                    raise problem_at(line, f"nested more than {DEPTH_MAX} levels deep.")
    return None if root is None or is_null(root) else root


def _node(event: Any, line: int) -> Node:
    if event.tag not in (None, "!", "tag:yaml.org,2002:str"):
        raise problem_at(line, f"the tag {event.tag} is refused: write plain values.")
    if isinstance(event, yaml.SequenceStartEvent):
        return Sequence(line)
    if isinstance(event, yaml.MappingStartEvent):
        return Mapping(line)
    is_plain = event.style not in ("'", '"', "|", ">") and event.tag is None
    return Scalar(line, event.value, is_plain)


def _add(parent: Sequence | Mapping, node: Node) -> None:
    if isinstance(parent, Sequence):
        parent.items.append(node)
        return
    key = parent.pending_key
    if key is not None:
        parent.entries[key.text] = Entry(key.line, node)
        parent.pending_key = None
    elif not isinstance(node, Scalar):
        raise problem_at(node.line, "a key must be a text.")
    elif node.text in parent.entries:
        raise problem_at(node.line, f"{node.text!r} is here twice (before at line {parent.entries[node.text].line}).")
    else:
        parent.pending_key = node
