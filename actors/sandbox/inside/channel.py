"""The one way out of a sandbox: calls to the supervisor and from it, as JSON frames over one socket.

``call(method, payload)`` asks the supervisor and waits; ``notify`` tells it something without an answer; ``serve`` answers the
supervisor's calls. Programs get it by ``import sandbox_channel``. The supervisor checks everything that arrives there:
this module is a convenience and protects nothing.

Messages: ``{"id", "call", "with"}`` is a call, without ``id`` a notice; ``{"id", "result"}`` or ``{"id", "error"}`` answers it.
"""

from __future__ import annotations

import json
import os
import select
from _thread import RLock, allocate_lock
from collections import deque

from .frames import FRAME_BYTES_MAX, FrameError, frame, read_frame, write_all
from .jail import CHANNEL

TYPE_CHECKING = False  # as typing has it; importing that, or dataclasses, costs every start 5 to 10 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    Handler = Callable[[Any], Any]

WAITING_MAX = 10_000
"""Messages from the supervisor that came during a call and were not taken; beyond it the oldest is dropped and counted."""


class CallError(Exception):
    """The supervisor refused or failed: ``code`` is stable, the sentence is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code, self.message = code, message

    def __str__(self) -> str:
        return self.message


class ChannelClosedError(Exception):
    """The supervisor is gone: nothing can be asked any more."""


class Message:
    """A call of the supervisor; without ``id`` a notice that wants no answer."""

    __slots__ = ("id", "method", "payload")

    def __init__(self, id: int | None, method: str, payload: Any) -> None:
        self.id, self.method, self.payload = id, method, payload


class Channel:
    """The child's end. All methods may be used from several threads; calls then wait for one another."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._reading, self._writing = RLock(), allocate_lock()
        self._waiting: deque[Message] = deque()
        self._next_id = 0
        self.dropped = 0

    def fileno(self) -> int:
        """For event loops: readable when ``receive`` may have something."""
        return self._descriptor

    def call(self, method: str, payload: Any = None) -> Any:
        """Ask the supervisor and wait for its result (a JSON value).

        Raises:
            CallError: it refused or failed.
            ChannelClosedError: it is gone; whether it has done it is unknown.
            FrameError: the payload is longer than a frame may be. Nothing was sent.
        """
        with self._reading:
            self._next_id += 1
            number = self._next_id
            self._send({"id": number, "call": method, "with": payload})
            while True:
                answer = self._read()
                if "call" in answer:
                    self._keep(answer)
                elif answer.get("id") == number:
                    if "error" in answer:
                        raise CallError(answer["error"]["code"], answer["error"]["message"])
                    return answer["result"]

    def notify(self, method: str, payload: Any = None) -> None:
        """Tell the supervisor something; waits only while it does not read."""
        self._send({"call": method, "with": payload})

    def receive(self, *, timeout_s: float | None = None) -> Message | None:
        """The next call or notice of the supervisor; None when none came in time (0: do not wait)."""
        with self._reading:
            if self._waiting:
                return self._waiting.popleft()
            if timeout_s is not None and not select.select([self._descriptor], [], [], timeout_s)[0]:
                return None
            message = self._read()
            return Message(message.get("id"), message["call"], message.get("with")) if "call" in message else None

    def answer(self, message: Message, result: Any) -> None:
        """The result of a call of the supervisor."""
        self._send({"id": message.id, "result": result})

    def refuse(self, message: Message, code: str, sentence: str) -> None:
        """The failure of a call of the supervisor."""
        self._send({"id": message.id, "error": {"code": code, "message": sentence}})

    def serve(self, handlers: Mapping[str, Handler]) -> None:
        """Answer calls until the supervisor closes. What a handler raises is the answer; the loop goes on."""
        while True:
            try:
                message = self.receive()
            except ChannelClosedError:
                return
            if message is not None:
                self._handle(message, handlers)

    def _handle(self, message: Message, handlers: Mapping[str, Handler]) -> None:
        handler = handlers.get(message.method)
        if handler is None:
            if message.id is not None:
                self.refuse(message, "sandbox.unknown_method", f"the program has no method {message.method!r}")
            return
        try:
            result = handler(message.payload)
        except Exception as error:
            if message.id is not None:
                self.refuse(message, "sandbox.program_error", f"{type(error).__name__}: {error}"[:4096])
        else:
            if message.id is not None:
                self.answer(message, result)

    def _send(self, message: Mapping[str, Any]) -> None:
        data = frame(json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode())
        with self._writing:
            try:
                write_all(self._descriptor, data)
            except OSError as error:
                raise ChannelClosedError("the supervisor is gone") from error

    def _read(self) -> dict[str, Any]:
        try:
            body = read_frame(self._descriptor)
        except OSError as error:
            raise ChannelClosedError("the supervisor is gone") from error
        if body is None:
            raise ChannelClosedError("the supervisor is gone")
        message: dict[str, Any] = json.loads(body)
        return message

    def _keep(self, message: Mapping[str, Any]) -> None:
        if len(self._waiting) >= WAITING_MAX:
            self._waiting.popleft()
            self.dropped += 1
        self._waiting.append(Message(message.get("id"), message["call"], message.get("with")))


_channel: Channel | None = None
_is_forked = False


def current() -> Channel:
    """The channel of this process.

    Raises:
        ChannelClosedError: in a forked process, where two readers of one stream would take each other's frames.
    """
    global _channel
    if _is_forked:
        raise ChannelClosedError("a forked process has no channel: make calls in the first process")
    if _channel is None:
        _channel = Channel(CHANNEL)
        os.register_at_fork(after_in_child=_forget)
    return _channel


def _forget() -> None:
    global _is_forked
    _is_forked = True


def call(method: str, payload: Any = None) -> Any:
    """See ``Channel.call``."""
    return current().call(method, payload)


def notify(method: str, payload: Any = None) -> None:
    """See ``Channel.notify``."""
    current().notify(method, payload)


def serve(handlers: Mapping[str, Handler]) -> None:
    """See ``Channel.serve``."""
    current().serve(handlers)


__all__ = [
    "FRAME_BYTES_MAX",
    "CallError",
    "Channel",
    "ChannelClosedError",
    "FrameError",
    "Message",
    "call",
    "current",
    "notify",
    "serve",
]
