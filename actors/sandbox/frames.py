"""The supervisor's reading of a channel: nothing that a child sends can do more than end that child."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from actors.sandbox.inside.frames import FRAME_BYTES_MAX, HEADER, FrameError, frame

METHOD_CHARACTERS_MAX = 200


class ForgedFrameError(Exception):
    """What came is no frame, or no message."""


def encode(message: dict[str, Any]) -> bytes:
    """One frame.

    Raises:
        FrameError: longer than ``FRAME_BYTES_MAX``.
        TypeError: something in it is not JSON.
    """
    return frame(orjson.dumps(message))


class FrameReader:
    """Collects bytes and cuts frames. Holds at most one frame and what one read gave."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._begin = 0

    def feed(self, data: bytes) -> None:
        """Add what was read."""
        if self._begin:
            del self._buffer[: self._begin]
            self._begin = 0
        self._buffer += data

    def messages(self) -> Iterator[dict[str, Any]]:
        """The complete messages, each once. It may be left at any point and begun again.

        Raises:
            ForgedFrameError: the child must be ended.
        """
        while len(self._buffer) - self._begin >= HEADER.size:
            (size,) = HEADER.unpack_from(self._buffer, self._begin)
            if size > FRAME_BYTES_MAX:
                raise ForgedFrameError(f"a frame of {size} bytes; the limit is {FRAME_BYTES_MAX}")
            end = self._begin + HEADER.size + size
            if len(self._buffer) < end:
                return
            with memoryview(self._buffer) as view:
                message = _parse(view[self._begin + HEADER.size : end])
            self._begin = end
            yield message


def _parse(body: memoryview) -> dict[str, Any]:
    try:
        message = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise ForgedFrameError("a frame that is not JSON") from None
    finally:
        body.release()
    if not isinstance(message, dict):
        raise ForgedFrameError("a frame that is not an object")
    return message


def check_call(message: dict[str, Any]) -> tuple[int | None, str, Any]:
    """The id (None: a notice), method and payload of a message with ``call``.

    Raises:
        ForgedFrameError: of another shape.
    """
    number, method = message.get("id"), message["call"]
    if not isinstance(method, str) or len(method) > METHOD_CHARACTERS_MAX:
        raise ForgedFrameError("a call without a method's name")
    if number is not None and (not isinstance(number, int) or isinstance(number, bool)):
        raise ForgedFrameError("a call whose id is no number")
    return number, method, message.get("with")


__all__ = ["FRAME_BYTES_MAX", "ForgedFrameError", "FrameError", "FrameReader", "check_call", "encode"]
