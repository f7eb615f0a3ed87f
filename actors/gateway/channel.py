"""One SSAP connection of whatever transport: payloads in, answers out in the order of the requests.

Requests of one connection take effect in their order: INSERTs may be under way together, any other request waits until all
before it are answered; only a read that takes long holds up no write (it may then see what came behind it). Invariants: answers
leave in request order; an acknowledgement (PUBACK) of a write leaves only when it is decided, and before its answer; a payload
that cannot be read never ends the connection; what came before the connection ended has its effect, or comes again.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Awaitable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from bson import ObjectId

from actors.writes import INSERT, WRITE_OVERHEAD_BYTES
from sib.errors import AuthenticationError, SibError, StoreUnavailableError
from sib.ssap.answers import Answer, InsertedId, format_answer, format_unreadable
from sib.ssap.cipher import decipher, encipher, is_clear, split_join_prefix
from sib.ssap.envelope import IgnoredPayload, MalformedRequest, Request, oversized, parse_request
from sib.ssap.messages import Dialect, MessageType
from sib.ssap.operations import Unsupported
from sib.ssap.repeated import Repetition, repetition_of

if TYPE_CHECKING:
    from actors.gateway.core import GatewayCore, HeldLease

_FALLBACK = {"mqtt": Dialect.STRING, "websocket": Dialect.OBJECT}
_WRITES = frozenset({MessageType.INSERT, MessageType.UPDATE, MessageType.DELETE, MessageType.BULK})
_EFFECTS = _WRITES | {
    MessageType.LEAVE, MessageType.UNSUBSCRIBE, MessageType.COMMAND,
    MessageType.LOG, MessageType.ERROR, MessageType.STATUS, MessageType.LOCATION,
}  # fmt: skip
"""What a client may send without waiting for the answer: it is carried out although the connection has ended."""


class Transport(Protocol):
    """What a transport offers to its channel; all calls on the event loop, none blocks."""

    def acknowledge(self, token: object) -> None: ...
    def forget(self, token: object) -> None: ...
    def answer(self, payload: bytes) -> None: ...
    def indicate(self, payload: bytes) -> Awaitable[None] | None: ...
    def command(self, payload: bytes) -> None: ...
    def abort(self) -> None: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Slot:
    """The place of one request in the order of its connection; an INSERT is sent to its partition as its slot."""

    __slots__ = (
        "channel", "cipher_key", "data", "is_acknowledged", "is_ciphered", "is_overtaken", "lease", "ontology", "out",
        "request", "session_key", "then", "token",
    )  # fmt: skip
    kind = INSERT
    request: Request
    data: bytes
    session_key: str
    ontology: str
    lease: HeldLease

    def __init__(self, channel: Channel, token: object) -> None:
        self.channel = channel
        self.token = token
        self.is_acknowledged = token is None
        self.out: bytes | None = None
        self.is_overtaken = False
        """A read that has taken so long that writes behind it start."""
        self.cipher_key: str | None = None
        """To cipher the answer with; None also for a ciphered request that is answered in clear."""
        self.is_ciphered = False
        self.then: str | None = None

    @property
    def size_bytes(self) -> int:
        return len(self.data) + WRITE_OVERHEAD_BYTES

    @property
    def context(self) -> Mapping[str, Any]:
        return self.lease.context

    def stored(self, id_hex: bytes) -> None:
        request: Request = self.request
        if request.message_id is None and self.cipher_key is None:
            head, tail = self.lease.template(request)
            self.out = b"".join((head, id_hex, tail))
        else:
            answer = Answer(InsertedId(ObjectId(id_hex.decode())))
            self.finish(format_answer(request, answer))
        self.is_acknowledged = True
        self.channel.gateway.metrics.stored += 1
        self.channel.mark()

    def done(self, ids: list[Any]) -> None:
        raise AssertionError("an INSERT has an id")

    def refused(self, error: SibError) -> None:
        if isinstance(error, StoreUnavailableError) and self.token is not None:
            self.channel.give_up(self)
            return
        self.channel.gateway.metrics.count("INSERT", error.code)
        self.finish(format_answer(self.request, Answer(error=error)))
        self.is_acknowledged = True
        self.channel.mark()

    def finish(self, payload: bytes) -> None:
        """The answer, in cipher if the request came in cipher."""
        self.out = payload if self.cipher_key is None else encipher(payload.decode(), self.cipher_key).encode()


READ_ALONE_S = 0.1
"""How long the writes behind a read wait for it."""
REPETITIONS_MAX = 3
"""How many INSERTs in a row are taken for one that will be repeated: some connections never send the same twice."""
HELD_MAX = 10_000
"""INDICATIONs of one connection that wait for an answer; further ones are dropped and counted."""
_SILENT = b""
"""In ``Slot.out``: nothing is answered."""


class Channel:
    """The SSAP side of one connection."""

    __slots__ = (
        "_blocked", "_cipher_key", "_dialect", "_held", "_is_dirty", "_is_paused", "_is_running", "_repetition",
        "_repetitions_left", "client_id", "commands", "gateway", "is_open", "kind", "message_bytes_max", "peer", "pending",
        "transport",
    )  # fmt: skip

    def __init__(
        self,
        gateway: GatewayCore,
        transport: Transport,
        *,
        kind: str,
        peer: str,
        client_id: str | None,
        message_bytes_max: int | None = None,
    ) -> None:
        self.gateway, self.transport = gateway, transport
        self.kind, self.peer, self.client_id = kind, peer, client_id
        self.message_bytes_max = gateway.limits.message_bytes_max if message_bytes_max is None else message_bytes_max
        self.pending: deque[Slot] = deque()
        self.commands: dict[str, Any] | None = None
        self.is_open = True
        self._blocked: deque[Slot] | None = None
        self._held: list[tuple[bytes, asyncio.Future[None]]] | None = None
        self._cipher_key: str | None = None
        self._dialect: Dialect = _FALLBACK[kind]
        self._repetition: Repetition | None = None
        self._repetitions_left = REPETITIONS_MAX
        self._is_running = self._is_dirty = self._is_paused = False

    @property
    def address(self) -> str:
        return self.client_id if self.client_id is not None else self.peer

    # ------------------------------------------------------------------ payloads in

    def receive(self, payload: bytes, token: object = None, *, clear: bool = False) -> None:
        """Take one SSAP payload; ``token`` is acknowledged when it is decided. ``clear``: answer in clear whatever came in."""
        if not self.is_open:
            return
        slot = Slot(self, token)
        self.pending.append(slot)
        if not self._receive_repeated(slot, payload) and not self._receive_other(slot, payload, clear=clear):
            return
        if len(self.pending) > self.gateway.limits.requests_per_connection_max or self.gateway.is_congested():
            self.pause()

    def _receive_repeated(self, slot: Slot, payload: bytes) -> bool:
        """Take an INSERT that differs in its instance alone from one before. False: it is another message."""
        repetition = self._repetition
        if repetition is None or len(payload) > self.message_bytes_max:
            return False
        data = repetition.data_in(payload)
        if data is None:
            return False
        self._repetitions_left = REPETITIONS_MAX
        slot.request = repetition.request
        self._dialect = slot.request.dialect
        if self._is_running or self._blocked or not self.gateway.router.start_instance(slot, data, self):
            slot.request = repetition.request_with(data)
            self._start(slot, slot.request)
        return True

    def _receive_other(self, slot: Slot, payload: bytes, *, clear: bool) -> bool:
        """Take any message. False: it cannot be carried out, and is answered (or ignored)."""
        try:
            if not is_clear(payload):
                payload = self._decipher(slot, payload, clear=clear)
            slot.request = request = parse_request(payload, fallback=self._dialect, size_max=self.message_bytes_max)
        except IgnoredPayload:
            self.gateway.metrics.ignored += 1
            self._close_slot(slot, _SILENT)
            return False
        except MalformedRequest as error:
            self.gateway.metrics.count_malformed()
            self._close_slot(slot, format_unreadable(error))
            return False
        except AuthenticationError as error:
            self._close_slot(slot, format_answer(unread_request(self._dialect), Answer(error=error)))
            return False
        if request.dialect_told:
            self._dialect = request.dialect
        if request.message_type is MessageType.INSERT and self._repetitions_left and not slot.is_ciphered:
            self._repetitions_left -= 1
            self._repetition = repetition_of(payload, request)
        self._start(slot, request)
        return True

    def oversized(self, token: object, size_bytes: int, head: bytes) -> None:
        """A payload over the limit was thrown away by the transport, but for its head: answer that it was."""
        slot = Slot(self, token)
        self.pending.append(slot)
        error = oversized(head, size_bytes, self.message_bytes_max, fallback=self._dialect)
        self._close_slot(slot, format_unreadable(error))

    def _decipher(self, slot: Slot, payload: bytes, *, clear: bool) -> bytes:
        kp, text = split_join_prefix(payload)
        key = self.gateway.cipher_key_of(kp) if kp is not None else self._cipher_key
        plain = decipher(text, key) if key is not None else None
        if plain is None or not plain.lstrip().startswith("{"):
            raise AuthenticationError("the payload is neither JSON nor deciphers to it: check the KP's cipher key")
        self._cipher_key = key
        slot.is_ciphered, slot.cipher_key = True, None if clear else key
        return plain.encode()

    def _start(self, slot: Slot, request: Request) -> None:
        if not self._is_running and not self._blocked:
            if request.message_type is MessageType.INSERT and self.gateway.router.start_insert(slot, request, self):
                return
            if self._may_run(slot):
                self._run(slot)
                return
        if self._blocked is None:
            self._blocked = deque()
        self._blocked.append(slot)

    def reads(self, slot: Slot) -> None:
        """A request has become a read: when it takes long, the writes behind it go on, and only their answers wait for it."""
        asyncio.get_running_loop().call_later(READ_ALONE_S, self._let_overtake, slot)

    def _let_overtake(self, slot: Slot) -> None:
        if slot.out is None:
            slot.is_overtaken = True
            self._is_running = False
            self._advance()

    def _may_run(self, slot: Slot) -> bool:
        """Whether all before it are answered, but for reads that a write need not wait for."""
        if self.pending[0] is slot:
            return True
        if slot.request.message_type not in _WRITES:
            return False
        before = itertools.takewhile(lambda each: each is not slot, self.pending)
        return all(each.is_overtaken or each.out is not None for each in before)

    def _run(self, slot: Slot) -> None:
        self._is_running = True
        if slot.token is not None and slot.request.message_type not in _WRITES:
            slot.is_acknowledged = True
            self.mark()
        self.gateway.spawn(self._execute(slot))

    async def _execute(self, slot: Slot) -> None:
        request = slot.request
        try:
            answer = await self.gateway.router.execute_in_channel(request, self, slot)
        except StoreUnavailableError as error:
            answer = Answer(error=error)
            is_undecided = not slot.is_acknowledged
        else:
            is_undecided = False
        if not slot.is_overtaken:
            self._is_running = False
        if is_undecided:
            self.give_up(slot)
            return
        slot.finish(self._formatted(request, answer))
        slot.is_acknowledged = True
        self.drain()

    def _formatted(self, request: Request, answer: Answer) -> bytes:
        """The answer's frame; one that cannot be printed is our own fault and must not hang the connection."""
        try:
            return format_answer(request, answer)
        except Exception as error:
            self.gateway.log_failure(request, error)
            return format_answer(
                request, Answer(error=SibError("the platform failed at this answer; its log says why"))
            )

    def _close_slot(self, slot: Slot, out: bytes) -> None:
        slot.out = out
        slot.is_acknowledged = True
        self.mark()

    def _advance(self) -> None:
        """Start what waited: INSERTs together, any other request alone, once all before it are answered."""
        while self._blocked and not self._is_running:
            slot = self._blocked[0]
            request = slot.request
            if request.message_type is MessageType.INSERT and self.gateway.router.start_insert(slot, request, self):
                self._blocked.popleft()
            elif self._may_run(slot):
                self._blocked.popleft()
                self._run(slot)
            else:
                return

    # ------------------------------------------------------------------ answers out

    def mark(self) -> None:
        """Something is ready to leave: at the end of the batch, all of it in one write."""
        if not self._is_dirty:
            self._is_dirty = True
            self.gateway.mark(self)

    def drain(self) -> None:
        """Write what is ready: acknowledgements and answers, each in request order. On a closed connection no answers."""
        self._is_dirty = False
        pending, transport = self.pending, self.transport
        while pending:
            slot = pending[0]
            if not slot.is_acknowledged:
                break
            if slot.token is not None:
                transport.acknowledge(slot.token)
                slot.token = None
            if slot.out is None:
                self._acknowledge_further()
                break
            pending.popleft()
            if slot.out and self.is_open:
                transport.answer(slot.out)
            if slot.then is not None and self.is_open:
                self.gateway.notifier.announce(slot.then)
            elif slot.then is not None:
                # Its id has reached nobody, and what it is about would wait for that for ever.
                self.gateway.withdraw(slot.request.session_key or "", slot.then)
        if self._held is not None and not self._is_running and not self._is_answer_waiting():
            self._release()
        if self._is_paused:
            self.ease()
        if self._blocked:
            self._advance()

    def _acknowledge_further(self) -> None:
        for slot in self.pending:
            if not slot.is_acknowledged:
                return
            if slot.token is not None:
                self.transport.acknowledge(slot.token)
                slot.token = None

    # ------------------------------------------------------------------ INDICATIONs out

    def hold_indications(self) -> None:
        """The request at work writes: what it causes must not overtake its answer."""
        if self._is_running and self._held is None:
            self._held = []

    def indicate(self, payload: bytes) -> Awaitable[None] | None:
        """Send an INDICATION, behind the answer of the request that caused it; an awaitable if delivery takes time."""
        if self._held is None:
            if not self._is_answer_waiting():
                return self.transport.indicate(payload)
            self._held = []
        if len(self._held) >= HELD_MAX:
            self.gateway.metrics.dropped += 1
            return None
        delivered = asyncio.get_running_loop().create_future()
        self._held.append((payload, delivered))
        return delivered

    def _is_answer_waiting(self) -> bool:
        """Whether an answer that is ready waits for one before it: two partitions need not decide in our order."""
        return len(self.pending) > 1 and any(slot.out is not None for slot in self.pending)

    def _release(self) -> None:
        held, self._held = self._held, None
        for payload, delivered in held or ():
            pending = self.transport.indicate(payload)
            if pending is None:
                delivered.set_result(None)
            else:
                _finish_with(pending, delivered)

    # ------------------------------------------------------------------ pressure and end

    def pause(self) -> None:
        if not self._is_paused:
            self._is_paused = True
            self.transport.pause()
            self.gateway.paused.add(self)

    def ease(self) -> None:
        """Read on when enough is answered here and in the whole gateway."""
        few = self.gateway.limits.requests_per_connection_max // 2
        if self._is_paused and len(self.pending) < few and not self.gateway.is_congested():
            self._is_paused = False
            self.gateway.paused.discard(self)
            self.transport.resume()

    def give_up(self, slot: Slot) -> None:
        """The store could not decide: close without acknowledging, so that the device sends again."""
        if self.is_open:
            self.transport.abort()
            self.closed()
        self._drop({slot})
        self.mark()

    def closed(self) -> None:
        """The transport is gone: what is under way goes on, its answers have nowhere to go.

        Of what has not begun, what nobody sends again is carried out, too: effects that are not to be acknowledged.
        """
        if self.is_open:
            self.is_open = self._is_paused = False
            self._drop(
                {slot for slot in self._blocked or () if slot.token or slot.request.message_type not in _EFFECTS}
            )
            self._release()
            self.gateway.paused.discard(self)
            self.gateway.channel_closed(self)
            if self.pending:
                self.mark()

    def _drop(self, slots: set[Slot]) -> None:
        """These requests are not carried out; those that were to be acknowledged may come again."""
        for slot in slots:
            if slot.token is not None:
                self.transport.forget(slot.token)
        for queue in (self.pending, self._blocked or deque()):
            kept = [slot for slot in queue if slot not in slots]
            queue.clear()
            queue.extend(kept)


def _finish_with(pending: Awaitable[None], delivered: asyncio.Future[None]) -> None:
    def finish(done: asyncio.Future[None]) -> None:
        error = None if done.cancelled() else done.exception()
        if delivered.done():
            return
        if error is None:
            delivered.set_result(None)
        else:
            delivered.set_exception(error)

    asyncio.ensure_future(pending).add_done_callback(finish)


def unread_request(dialect: Dialect) -> Request:
    return Request(MessageType.NONE, None, None, None, dialect, False, Unsupported(MessageType.NONE))


__all__ = ["Channel", "HeldLease", "Slot", "Transport"]
