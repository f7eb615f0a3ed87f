"""Frames of the channel: a length of four bytes, most significant first, and so many bytes of JSON in UTF-8."""

from __future__ import annotations

import os
import struct

FRAME_BYTES_MAX = 1024 * 1024
"""Of the JSON. A longer frame is refused by the sender; the supervisor ends a child that announces one."""
HEADER = struct.Struct(">I")


class FrameError(Exception):
    """A frame that is too long, or the other end closed in the middle of one."""


def frame(body: bytes) -> bytes:
    """One frame.

    Raises:
        FrameError: the body has more than ``FRAME_BYTES_MAX`` bytes.
    """
    if len(body) > FRAME_BYTES_MAX:
        raise FrameError(f"a message on the channel has at most {FRAME_BYTES_MAX} bytes; this one has {len(body)}")
    return HEADER.pack(len(body)) + body


def read_frame(descriptor: int) -> bytes | None:
    """Wait for the next frame's body on a blocking descriptor; None when the other end has closed."""
    head = _read(descriptor, HEADER.size)
    if head is None:
        return None
    (size,) = HEADER.unpack(head)
    if size > FRAME_BYTES_MAX:
        raise FrameError(f"a frame of {size} bytes was announced; the limit is {FRAME_BYTES_MAX}")
    return _read(descriptor, size)


def _read(descriptor: int, size: int) -> bytes | None:
    data = os.read(descriptor, size) if size else b""
    if len(data) == size:
        return data
    parts = [data]
    missing = size - len(data)
    while missing:
        if not parts[-1]:
            return None
        parts.append(os.read(descriptor, missing))
        missing -= len(parts[-1])
    return b"".join(parts)


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything to a blocking descriptor."""
    written = os.write(descriptor, data)
    while written < len(data):
        written += os.write(descriptor, memoryview(data)[written:])
