"""Devices repeat themselves: one INSERT of a connection differs from the next in its instance alone.

What is around the instance is read once and recognised from then on, in a quarter of the time. Invariant: where
:meth:`Repetition.data_in` gives something, ``parse_request`` would have given the same request with that instance.
"""

from __future__ import annotations

from dataclasses import replace

import orjson

from sib.ssap.envelope import IgnoredPayload, MalformedRequest, Request, parse_request
from sib.ssap.messages import QueryType
from sib.ssap.operations import Insert

_PROBE = '{"a \\"probe\\"":["\\u00f1\\\\"]}'
"""An instance with everything that has to be escaped."""


class Repetition:
    """The INSERT that a client repeats. ``request`` is the one that it was learned from: it is shared, so nobody changes it."""

    __slots__ = ("_depth", "_head", "_query_type", "_tail", "request")

    def __init__(self, head: bytes, tail: bytes, depth: int, request: Request, query_type: QueryType) -> None:
        self._head, self._tail, self._depth = head, tail, depth
        self._query_type = query_type
        self.request = request

    def data_in(self, payload: bytes) -> str | None:
        """The text of the instance; None if this payload is another message, or one to be read with care."""
        head, tail = self._head, self._tail
        if not payload.startswith(head) or not payload.endswith(tail):
            return None
        try:
            data: str = orjson.loads(b'"%b"' % payload[len(head) : -len(tail)])
            if self._depth > 1:
                data = orjson.loads(f'"{data}"')
        except ValueError:
            return None
        return data if data[:2] == '{"' else None

    def request_with(self, data: str) -> Request:
        """The whole request with another instance."""
        return replace(self.request, operation=Insert(data, None, self._query_type))


def repetition_of(payload: bytes, request: Request) -> Repetition | None:
    """What the INSERTs that come after this one will repeat.

    Args:
        payload: A message.
        request: What ``parse_request`` made of it.

    Returns:
        None if it is no INSERT of an instance that came as text, or the instance cannot be told from what is around it.
    """
    operation = request.operation
    if not isinstance(operation, Insert) or not isinstance(operation.data, str) or not request.dialect_told:
        return None
    if not operation.data.startswith('{"'):
        return None
    for depth in (1, 2):
        head, found, tail = payload.partition(_escaped(operation.data, depth))
        if found and head and tail:
            repetition = Repetition(head, tail, depth, request, operation.query_type)
            return repetition if _is_proved(repetition, head + _escaped(_PROBE, depth) + tail) else None
    return None


def _is_proved(repetition: Repetition, probe: bytes) -> bool:
    """Whether another instance in this place gives the same request but for the instance."""
    try:
        read = parse_request(probe, fallback=repetition.request.dialect)
    except (IgnoredPayload, MalformedRequest):
        return False
    return repetition.data_in(probe) == _PROBE and read == repetition.request_with(_PROBE)


def _escaped(text: str, depth: int) -> bytes:
    """A text as it stands inside a JSON string, or (depth 2) inside one that is in another one."""
    for _ in range(depth):
        text = orjson.dumps(text)[1:-1].decode()
    return text.encode()
