"""Where packets begin and end in a stream of bytes, and what is kept of a PUBLISH that is too long to be kept.

Source: MQTT 5, section 2.1.4.
"""

from __future__ import annotations

from sib.mqtt.errors import malformed

HEADER_BYTES_MAX = 5
HEAD_BYTES = 1024
"""What is kept of a PUBLISH that is too long, behind its topic."""


def decode_length(data: bytes | bytearray, at: int) -> tuple[int, int]:
    """The remaining length that begins at ``at``, and where the body begins; (-1, 0): it is not complete."""
    length = 0
    for shift in (0, 7, 14, 21):
        if at >= len(data):
            return -1, 0
        digit = data[at]
        at += 1
        length |= (digit & 0x7F) << shift
        if digit < 0x80:
            return length, at
    raise malformed("a remaining length of more than four bytes")


class OversizedPublish:
    """A PUBLISH above the limit: read to its end and thrown away, but for its topic, packet id and first KiB.

    Keeps at most 64 KiB and ``HEAD_BYTES``, whatever the packet's length.
    """

    __slots__ = ("_kept", "_missing", "flags", "length")

    def __init__(self, flags: int, length: int) -> None:
        self.flags = flags
        self.length = length
        self._missing = length
        self._kept = bytearray()

    @property
    def is_complete(self) -> bool:
        return not self._missing

    @property
    def qos(self) -> int:
        return self.flags >> 1 & 3

    def feed(self, data: bytes, at: int) -> int:
        """Take what belongs to this packet; returns the position behind it."""
        end = min(len(data), at + self._missing)
        self._missing -= end - at
        taken = at
        while taken < end and len(self._kept) < (wanted := self._wanted()):
            step = min(end - taken, wanted - len(self._kept))
            self._kept += data[taken : taken + step]
            taken += step
        return end

    def _wanted(self) -> int:
        kept = self._kept
        return 2 if len(kept) < 2 else 2 + (kept[0] << 8 | kept[1]) + HEAD_BYTES

    def topic(self) -> bytes:
        """The topic, once the packet is complete."""
        return bytes(self._kept[2 : self._topic_end()])

    def packet_id(self) -> bytes:
        """The two bytes of the packet id, once the packet is complete. Only at QoS 1 and 2."""
        end = self._topic_end()
        if len(self._kept) < end + 2:
            raise malformed("a PUBLISH ends before its packet id")
        return bytes(self._kept[end : end + 2])

    def head(self, *, has_properties: bool) -> bytes:
        """The beginning of the payload, once the packet is complete; empty behind long properties (MQTT 5)."""
        at = self._topic_end() + (2 if self.qos else 0)
        if has_properties:
            length, at = decode_length(self._kept, at)
            if length < 0:
                return b""
            at += length
        return bytes(self._kept[at:])

    def _topic_end(self) -> int:
        if len(self._kept) < 2:
            raise malformed("a PUBLISH without a topic")
        end = 2 + (self._kept[0] << 8 | self._kept[1])
        if end > len(self._kept):
            raise malformed("a PUBLISH whose topic is longer than itself")
        return end
