"""One byte stream of MQTT: packets out of what is read, one write for all that is sent in a tick, orderly closing.

Knows nothing of sessions. A subclass handles the packets. Packets are cut out of the read buffer in place; nothing
is kept of a connection between packets but its counters, so that an idle one stays small.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import TYPE_CHECKING, Any

from sib.mqtt import codec
from sib.mqtt.errors import MqttProtocolError, Reason
from sib.mqtt.framing import HEADER_BYTES_MAX, OversizedPublish, decode_length

if TYPE_CHECKING:
    from actors.gateway.mqtt import MqttEndpoint
    from actors.gateway.mqtt_options import ListenerOptions

log = logging.getLogger(__name__)

CONTROL_BYTES_MAX = 512 * 1024
"""Longest packet that is not a PUBLISH: a CONNECT with every string at its longest fits."""
LARGE_PARTIAL_BYTES = 64 * 1024
"""Unfinished packets up to this size are not counted against ``MqttLimits.partial_bytes_max``."""
SMALL_BYTES = 2048
"""Reads up to this are of a client that waits for its answer, not of a burst."""
LINGER_S = 0.5

AUTHENTICATING, HOST_BUSY, WINDOW_FULL, PEER_SLOW = 1, 2, 4, 8
"""Reasons not to read, as bits."""


class MqttStream(asyncio.Protocol):
    """Framing, flow control and closing of one connection. Everything runs on the event loop."""

    __slots__ = (
        "_discard",
        "_endpoint",
        "_is_dirty",
        "_is_reading_paused",
        "_need_bytes",
        "_out",
        "_partial",
        "_pauses",
        "_socket",
        "_transport",
        "closing_since_s",
        "is_accepted",
        "keep_alive_s",
        "last_seen_s",
        "options",
        "packet_since_s",
        "peer",
        "stalled_since_s",
        "version",
    )

    def __init__(self, endpoint: MqttEndpoint, options: ListenerOptions) -> None:
        self._endpoint = endpoint
        self.options = options
        self._socket: Any = None
        self._transport: Any = None
        self._out: list[bytes] = []
        self._is_dirty = False
        self._partial: bytearray | None = None
        self._need_bytes = 0
        self._discard: OversizedPublish | None = None
        self._pauses = 0
        self._is_reading_paused = False
        self.peer = ""
        self.version = codec.MQTT_3_1_1
        self.is_accepted = False
        """Whether its CONNECT has been accepted."""
        self.keep_alive_s = 0.0
        """Silence after which the client is taken for dead; 0 = never."""
        self.last_seen_s = 0.0
        self.packet_since_s = 0.0
        """When the packet that is not complete yet began; 0 = none."""
        self.stalled_since_s = 0.0
        """When the peer stopped reading; 0 = it reads."""
        self.closing_since_s = 0.0
        """When closing began; 0 = it is open. Nothing is read any more."""

    # What the subclass does

    def _publish(self, head: int, data: bytes, start: int, end: int) -> None:
        raise NotImplementedError

    def _publish_oversized(self, packet: OversizedPublish) -> None:
        raise NotImplementedError

    def _packet(self, kind: int, flags: int, body: bytes) -> None:
        raise NotImplementedError

    # asyncio.Protocol

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._socket = transport.get_extra_info("socket")
        address = transport.get_extra_info("peername")
        self.peer = f"{address[0]}:{address[1]}" if isinstance(address, tuple) else str(address or "")
        self.last_seen_s = self.packet_since_s = self._endpoint.clock()
        self._endpoint.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._set_partial(None)
        self._endpoint.ended(self)

    def eof_received(self) -> bool:
        return False

    def pause_writing(self) -> None:
        self.stalled_since_s = self._endpoint.clock()
        self.hold_reading(PEER_SLOW)

    def resume_writing(self) -> None:
        self.stalled_since_s = 0.0
        self.release_reading(PEER_SLOW)

    def data_received(self, data: bytes) -> None:
        if self.closing_since_s:
            return
        self.last_seen_s = self._endpoint.clock()
        self._endpoint.stats.bytes_received += len(data)
        if len(data) < SMALL_BYTES:
            self._confirm_at_once()
        partial = self._partial
        if partial is not None:
            self._grow_partial(partial, data)
            if len(partial) < self._need_bytes or self._pauses or self.closing_since_s:
                return
            data = bytes(partial)
            self._set_partial(None)
        self._parse(data)

    def _confirm_at_once(self) -> None:
        """A client with Nagle's algorithm on sends its next packet only when the last is confirmed; usual is after 40 ms."""
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    # Reading

    def _parse(self, data: bytes) -> None:
        try:
            at, need_bytes = self._packets(data)
        except MqttProtocolError as error:
            self.fail(error.reason, error.message)
            return
        except Exception:
            # Our own fault: this client goes, the others are not to notice.
            log.exception("an MQTT packet could not be handled", extra={"peer": self.peer})
            self.disconnect(Reason.UNSPECIFIED)
            return
        if self.closing_since_s:
            return
        if at < len(data):
            self._need_bytes = need_bytes
            self._set_partial(bytearray(data[at:] if at else data))
            if not self.packet_since_s:
                self.packet_since_s = self.last_seen_s
        elif self._discard is None:
            self.packet_since_s = 0.0

    def _packets(self, data: bytes) -> tuple[int, int]:
        """Handle all complete packets. Returns the position of the first incomplete one, and the bytes it needs."""
        at, size = 0, len(data)
        if self._discard is not None:
            at = self._discard_from(self._discard, data, 0)
        limit = self.options.message_bytes_max if self.is_accepted else CONTROL_BYTES_MAX
        while size - at >= 2 and not self._pauses and not self.closing_since_s:
            head, length, start = data[at], data[at + 1], at + 2
            if length > 127:
                length, start = decode_length(data, at + 1)
                if length < 0:
                    return at, min(size - at + 1, HEADER_BYTES_MAX)
            end = start + length
            if length > limit or end > size:
                kind = head >> 4
                if length > (limit if kind == codec.PUBLISH else CONTROL_BYTES_MAX):
                    at = self._discard_from(self._begin_discard(head, length), data, start)
                    continue
                if end > size:
                    if not self.is_accepted and kind != codec.CONNECT:
                        raise MqttProtocolError("the first packet is not a CONNECT")
                    return at, end - at
            if head >> 4 == codec.PUBLISH and self.is_accepted:
                self._publish(head, data, start, end)
            else:
                self._packet(head >> 4, head & 15, data[start:end])
                limit = self.options.message_bytes_max if self.is_accepted else CONTROL_BYTES_MAX
            at = end
            self.packet_since_s = 0.0
        return at, 2

    def _begin_discard(self, head: int, length: int) -> OversizedPublish:
        if head >> 4 != codec.PUBLISH or not self.is_accepted or not self.options.ssap:
            raise MqttProtocolError(f"a packet of {length:,} bytes is too large", Reason.PACKET_TOO_LARGE)
        self.packet_since_s = self.last_seen_s
        self._discard = OversizedPublish(head & 15, length)
        return self._discard

    def _discard_from(self, packet: OversizedPublish, data: bytes, at: int) -> int:
        at = packet.feed(data, at)
        if packet.is_complete:
            self._discard = None
            self.packet_since_s = 0.0
            self._publish_oversized(packet)
        return at

    def _set_partial(self, partial: bytearray | None) -> None:
        if self._partial is not None and len(self._partial) > LARGE_PARTIAL_BYTES:
            self._endpoint.partial_bytes -= len(self._partial)
        self._partial = partial
        if partial is not None and len(partial) > LARGE_PARTIAL_BYTES:
            self._endpoint.partial_bytes += len(partial)

    def _grow_partial(self, partial: bytearray, data: bytes) -> None:
        before = len(partial)
        partial += data
        if len(partial) > LARGE_PARTIAL_BYTES:
            endpoint = self._endpoint
            endpoint.partial_bytes += len(data) if before > LARGE_PARTIAL_BYTES else len(partial)
            if endpoint.partial_bytes > endpoint.limits.partial_bytes_max:
                self.fail(Reason.SERVER_BUSY, "too many unfinished packets at once")

    def hold_reading(self, why: int) -> None:
        """Stop reading, and keep what has been read, until every reason given is gone."""
        self._pauses |= why
        if not self._is_reading_paused and self._transport is not None and not self.closing_since_s:
            self._is_reading_paused = True
            self._transport.pause_reading()

    def release_reading(self, why: int) -> None:
        """One reason not to read is gone."""
        if self._pauses & why:
            self._pauses &= ~why
            if not self._pauses:
                self._endpoint.loop.call_soon(self._read_on)

    def _read_on(self) -> None:
        if self._pauses or self.closing_since_s or self._transport is None:
            return
        self.last_seen_s = self._endpoint.clock()
        if self.packet_since_s:
            self.packet_since_s = self.last_seen_s
        if self._partial is not None and len(self._partial) >= self._need_bytes:
            data = bytes(self._partial)
            self._set_partial(None)
            self._parse(data)
        if self._is_reading_paused and not self._pauses and not self.closing_since_s:
            self._is_reading_paused = False
            self._transport.resume_reading()

    @property
    def is_reading(self) -> bool:
        return not self._pauses

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self.closing_since_s

    # Writing

    def write(self, packet: bytes) -> None:
        """Send a whole packet at the end of this tick, behind what was written before."""
        self._out.append(packet)
        if not self._is_dirty:
            self._is_dirty = True
            self._endpoint.flush_soon(self)

    def flush(self) -> None:
        """Hand all that was written to the transport, in one call."""
        self._is_dirty = False
        out = self._out
        if out:
            transport = self._transport
            if transport is not None and not self.closing_since_s:
                data = b"".join(out)
                self._endpoint.stats.bytes_sent += len(data)
                transport.write(data)
            out.clear()

    @property
    def write_buffer_bytes(self) -> int:
        return int(self._transport.get_write_buffer_size()) if self._transport is not None else 0

    # Closing

    def fail(self, reason: int, message: str) -> None:
        """The peer broke a rule: say so if MQTT 5 lets us, and close."""
        log.info("mqtt connection closed", extra={"peer": self.peer, "reason": int(reason), "why": message})
        self._endpoint.stats.protocol_errors += 1
        self.disconnect(reason)

    def disconnect(self, reason: int) -> None:
        """Close after what was written has been sent; MQTT 5 is told the reason."""
        if self.is_accepted and self.version == codec.MQTT_5 and not self.closing_since_s:
            self.write(codec.encode_disconnect(reason))
        self.close()

    def close(self) -> None:
        """Close after what was written has been sent. Nothing more is read."""
        transport = self._transport
        if transport is None or self.closing_since_s:
            return
        self.flush()
        self.closing_since_s = self._endpoint.clock()
        self._set_partial(None)
        if transport.can_write_eof():
            # What the peer still sends would make the kernel answer with RST, which can overtake our last packet.
            transport.write_eof()
            self._endpoint.loop.call_later(LINGER_S, transport.close)
            if self._is_reading_paused:
                transport.resume_reading()
        else:
            transport.close()

    def cut(self) -> None:
        """Close at once; what was written and not sent is lost."""
        if self._transport is not None:
            self.closing_since_s = self.closing_since_s or self._endpoint.clock()
            self._out.clear()
            self._transport.abort()
