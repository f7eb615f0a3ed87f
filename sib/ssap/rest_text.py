"""What REST clients write into targets: raw query strings, and ids in every spelling. String rules only.

Source: Sofia2 sofia2-nodered sofia2-query.js:73,104 (raw query texts, ``+`` for blanks), dotnet-api
Rest/SSAPResourceAPI.cs (a reference as JSON in the path), java-api SSAPResourceAPI.java:72-99 (ids in data).
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote_to_bytes

import orjson

from sib.errors import MalformedMessageError

REFERENCE_CHARS_MAX = 200
"""Longest text that can be a mere reference to an instance."""

_HEX_ID = re.compile(r"[0-9a-fA-F]{24}")
# An id alone, as clients write it, without blanks: its digits, {"$oid":"…"}, ObjectId("…"), or one of these as {"_id":…}
_REFERENCE = re.compile(
    r"""\{?(?:["']?_id["']?:)?\{?(?:["']?\$oid["']?:|ObjectId\()?["']?([0-9a-fA-F]{24})["']?[})]*"""
)
# The member _id in the text of an instance that is not strict JSON.
_ID_MEMBER = re.compile(
    r"""_id["']?\s{0,20}:\s{0,20}(?:\{\s{0,20}["']?\$oid["']?\s{0,20}:|ObjectId\s{0,20}\()"""
    r"""\s{0,20}["']?([0-9a-fA-F]{24})["']?\s{0,20}[})]"""
)
_BLANKS = frozenset({"", "null"})


def parse_parameters(query_string: bytes) -> dict[str, str]:
    """The ``$`` parameters by lower-case name; those that are empty or the text "null" are left out, but for $query.

    Clients write the values raw: an ampersand within quotes, and in the query part of an endpoint, belongs to the
    value. Other names (cache busters) are ignored.
    """
    raw: dict[str, list[str]] = {}
    name = ""
    open_quotes, is_open = 0, False
    for part in query_string.decode("utf-8", "surrogateescape").split("&"):
        key, _, value = part.partition("=")
        if key[:1] == "$" or key[:3] == "%24":
            name = "$" + key.removeprefix("%24").removeprefix("$").lower()
            if is_first := name not in raw:
                raw[name] = [value]
            open_quotes = _odd_quotes(value) if is_first else 0
            is_open = is_first and name == "$endpoint" and "?" in value
        elif open_quotes or is_open:
            raw[name].append(part)
            open_quotes ^= _odd_quotes(part)
    values = {name: _decoded(name, "&".join(parts)) for name, parts in raw.items()}
    return {name: value for name, value in values.items() if value not in _BLANKS or name == "$query"}


def _odd_quotes(text: str) -> int:
    """Which kinds of quotes stand an odd number of times in a text: one bit for each."""
    return text.count('"') % 2 | text.count("'") % 2 << 1


def _decoded(name: str, value: str) -> str:
    if name == "$endpoint" and "://" in value:
        return value.strip()  # it came raw: its own escapes are part of it
    encoded = unquote_to_bytes(value.replace("+", " ").encode("utf-8", "surrogateescape"))
    try:
        return encoded.decode()
    except UnicodeDecodeError:
        return encoded.decode("latin-1")  # as Node.js writes what it does not escape


def id_in(data: str) -> str:
    """The id that the text of an instance, or of a mere reference to one, names."""
    try:
        named = orjson.loads(data)["_id"]
        oid = named["$oid"] if isinstance(named, dict) else named
    except (ValueError, TypeError, KeyError):
        match = _ID_MEMBER.search(data)
        oid = match[1] if match else id_of(data)
    if isinstance(oid, str) and _HEX_ID.fullmatch(oid):
        return oid
    raise MalformedMessageError('data must name the instance: {"_id":{"$oid":"24 hexadecimal digits"}, ...}')


def id_of(tail: str) -> str:
    """The id that a path names, bare or in one of the forms that clients write; what is none of them as it is."""
    if len(tail) > REFERENCE_CHARS_MAX:
        return tail
    match = _REFERENCE.fullmatch("".join(tail.split()))
    return match[1] if match else tail


def by_id(oid: str) -> str:
    """The native criterion for one instance; what is not an id matches nothing."""
    value: Any = {"$oid": oid.lower()} if _HEX_ID.fullmatch(oid) else oid
    return orjson.dumps({"_id": value}).decode()
