"""SSAP REST and the token list as ASGI apps: they read and write HTTP, ``sib.ssap.rest`` knows what it means.

Plain ASGI without request and response objects, since devices insert through it. Bodies are bounded: a longer one is
read and thrown away, and answered.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

import orjson
from starlette.types import Message, Receive, Scope, Send

from actors.gateway.callback_post import check_endpoint
from actors.operations import Origin
from actors.outgoing import AddressPolicy
from sib.errors import AuthenticationError, LimitError, SibError, UnsupportedError
from sib.ssap.answers import Answer
from sib.ssap.envelope import Request
from sib.ssap.rest import read_call
from sib.ssap.rest_answers import RestAnswer, format_answer, format_error

logger = logging.getLogger(__name__)

_JSON = (b"content-type", b"application/json")
_INTERNAL_ERROR = RestAnswer(
    500, b'{"detail":"The platform failed at this request; its log says why.","errorCode":"OTHER"}'
)


class RestRouter(Protocol):
    """Carries out a request. Refusals come back in ``Answer.error``; sets ``request.dialect`` if it was not told."""

    async def execute(self, request: Request, origin: Origin) -> Answer: ...


class ClientGoneError(Exception):
    """The client closed the connection before its request was complete."""


class SSAPResourceApp:
    """The resource ``SSAPResource`` and its sub-paths, all verbs."""

    def __init__(self, router: RestRouter, *, message_bytes_max: int, callback_policy: AddressPolicy | None) -> None:
        self._router = router
        self._bytes_max = message_bytes_max
        self._callback_policy = callback_policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            answer = await self._answer(scope, receive)
        except ClientGoneError:
            return
        except SibError as error:
            answer = format_error(error)
        except Exception:
            logger.exception("REST request failed: %s %s", scope["method"], scope["path"])
            answer = _INTERNAL_ERROR
        await write(send, answer)

    async def _answer(self, scope: Scope, receive: Receive) -> RestAnswer:
        body = await read_body(receive, self._bytes_max)
        tail = scope["path_params"].get("tail", "").strip("/")
        call = read_call(scope["method"], tail, scope["query_string"], body)
        if call.endpoint is not None:
            check_endpoint(call.endpoint, self._callback_policy)
        client = scope.get("client")
        origin = Origin(kind="rest", peer=client[0] if client else "", endpoint=call.endpoint)
        answer = await self._router.execute(call.request, origin)
        return format_answer(call, answer)


class TokenListApp:
    """``GET …/kps/{KP}/tokens`` with Basic authentication: ``[{"token","activo"},…]``.

    Source: SIL-Bridge-Sofia2 Sofia2Client.java:262-297.
    """

    def __init__(self, tokens: Callable[[str, str, str, str], Awaitable[list[tuple[str, bool]]]]) -> None:
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["method"] not in ("GET", "HEAD"):
                raise UnsupportedError("The token list takes GET")
            user, password = read_basic_auth(scope)
            client = scope.get("client")
            tokens = await self._tokens(scope["path_params"]["kp"], user, password, client[0] if client else "")
            answer = RestAnswer(200, orjson.dumps([{"token": token, "activo": active} for token, active in tokens]))
        except SibError as error:
            answer = format_error(error)
        except Exception:
            logger.exception("The token list failed")
            answer = _INTERNAL_ERROR
        challenge = [(b"www-authenticate", b'Basic realm="Sofia2", charset="UTF-8"')] if answer.status == 401 else []
        await write(send, answer, [*challenge, (b"cache-control", b"no-store")])


def read_basic_auth(scope: Scope) -> tuple[str, str]:
    """User and password of the request. Raises AuthenticationError if there are none."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            scheme, _, credentials = value.partition(b" ")
            if scheme.lower() == b"basic":
                try:
                    text = base64.b64decode(credentials.strip(), validate=True).decode()
                except ValueError:
                    break
                user, colon, password = text.partition(":")
                if colon:
                    return user, password
    raise AuthenticationError("Send user and password with Basic authentication.")


async def read_body(receive: Receive, bytes_max: int) -> bytes:
    """The whole body.

    Raises:
        LimitError: It was longer than ``bytes_max``; it has been read to its end and thrown away.
        ClientGoneError: It did not come to its end.
    """
    message: Message = await receive()
    if not message.get("more_body") and message["type"] == "http.request":  # nearly always
        body: bytes = message.get("body", b"")
        size_bytes = len(body)
    else:
        chunks: list[bytes] = []
        size_bytes = 0
        while True:
            if message["type"] != "http.request":
                raise ClientGoneError
            chunk = message.get("body", b"")
            size_bytes += len(chunk)
            if size_bytes <= bytes_max:
                chunks.append(chunk)
            else:
                chunks.clear()
            if not message.get("more_body"):
                break
            message = await receive()
        body = b"".join(chunks)
    if size_bytes > bytes_max:
        raise LimitError(f"The body has {size_bytes} bytes; at most {bytes_max} are taken here (message_bytes_max).")
    return body


async def write(send: Send, answer: RestAnswer, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    """Send a JSON answer."""
    body = answer.body
    head = [_JSON, (b"content-length", b"%d" % len(body))]
    if answer.retry_after_s is not None:
        head.append((b"retry-after", b"%d" % answer.retry_after_s))
    if headers:
        head += headers
    await send({"type": "http.response.start", "status": answer.status, "headers": head})
    await send({"type": "http.response.body", "body": body})
