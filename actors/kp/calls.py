"""What a KP that runs inside may ask of the platform: each call is checked against its grants.

The grants are the rights of its owner on the ontologies of the KP and of its ``kp.toml``. The other end is ``sofia2.KP`` inside
the sandbox. Payloads are the program's: nothing in them is believed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from actors.inside import Inside, Principal
from actors.kp.watch import Watch
from actors.sandbox.errors import ProgramError
from sib.errors import LimitError, MalformedMessageError
from sib.ssap import operations as ops
from sib.ssap.answers import Rows
from sib.ssap.envelope import Request
from sib.ssap.messages import Dialect, MessageType, QueryType

BATCH_MAX = 10_000
"""Instances of one ``insert_many``."""
MS_REFRESH_MAX = 86_400_000
_SQL_WORDS = ("select", "insert", "update", "delete")

Payload = Mapping[str, Any]


class KpCalls:
    """Carries out the calls of one KP process."""

    def __init__(self, inside: Inside, who: Principal, watch: Watch) -> None:
        self._inside, self._who, self._watch = inside, who, watch
        self.count = 0
        self._handlers: dict[str, Callable[[Payload], Awaitable[Any]]] = {
            "join": self._join,
            "insert": self._insert,
            "insert_many": self._insert_many,
            "query": self._query,
            "update": self._update,
            "delete": self._delete,
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "secret": self._secret,
        }

    def __call__(self, method: str, payload: Any) -> Awaitable[Any]:
        """Raises: SibError: which the KP is told."""
        handler = self._handlers.get(method)
        if handler is None:
            raise ProgramError(f"the platform has no call {method!r} for KPs: there are {', '.join(self._handlers)}")
        if not isinstance(payload, dict):
            raise MalformedMessageError(f"{method} takes an object")
        self.count += 1
        return handler(payload)

    async def check_subscriptions(self) -> None:
        """After a change of the configuration: what may not be read any more is not told any more."""
        for id_, ontology in self._watch.ontologies.items():
            try:
                await self._inside.condition(self._who, "", ontology=ontology)
            except Exception:
                self._watch.unsubscribe(id_)

    async def _join(self, payload: Payload) -> Any:
        return {"kp": self._who.kp, "instance": self._who.instance, "session_key": self._who.session_key}

    async def _insert(self, payload: Payload) -> str:
        return str(await self._inside.insert(self._who, _text(payload, "ontology"), _instance(payload.get("instance"))))

    async def _insert_many(self, payload: Payload) -> list[str]:
        given = payload.get("instances")
        if not isinstance(given, list) or len(given) > BATCH_MAX:
            raise LimitError(f"insert_many takes a list of at most {BATCH_MAX} instances")
        instances = [_instance(item) for item in given]
        return [str(id_) for id_ in await self._inside.insert_many(self._who, _text(payload, "ontology"), instances)]

    async def _query(self, payload: Payload) -> Any:
        text = _optional(payload, "text") or ""
        query = ops.Query(text, _query_type(text, payload), _params(payload))
        ontology = _optional(payload, "ontology")
        request = Request(MessageType.QUERY, None, ontology, None, Dialect.ONE, True, query)
        data = (await self._inside.execute(self._who, request)).data
        return orjson.Fragment(data.one or b"[]") if isinstance(data, Rows) else None

    async def _update(self, payload: Payload) -> list[str]:
        text, given = _text(payload, "text"), payload.get("instance")
        data = None if given is None else _instance(given)
        kind, ontology = _query_type(text, payload), _optional(payload, "ontology")
        return _ids(await self._inside.update(self._who, text, ontology=ontology, data=data, query_type=kind))

    async def _delete(self, payload: Payload) -> list[str]:
        text = _text(payload, "text")
        kind, ontology = _query_type(text, payload), _optional(payload, "ontology")
        return _ids(await self._inside.delete(self._who, text, ontology=ontology, query_type=kind))

    async def _subscribe(self, payload: Payload) -> str:
        text, id_ = _optional(payload, "text") or "", _text(payload, "id")
        ms_refresh = payload.get("ms_refresh", 0)
        if not isinstance(ms_refresh, int) or not 0 <= ms_refresh <= MS_REFRESH_MAX or len(id_) > 64:
            raise MalformedMessageError(f"ms_refresh is a number of milliseconds from 0 to {MS_REFRESH_MAX}")
        ontology, condition = await self._inside.condition(
            self._who,
            text,
            query_type=_query_type(text, payload),
            ontology=_optional(payload, "ontology"),
            params=_params(payload),
        )
        await self._watch.subscribe(id_, ontology, condition, ms_refresh)
        return ontology

    async def _unsubscribe(self, payload: Payload) -> None:
        self._watch.unsubscribe(_text(payload, "id"))

    async def _secret(self, payload: Payload) -> str:
        name = _text(payload, "name")

        def read() -> str:
            with self._inside.core.bdc.read() as configuration:
                return configuration.deployments.secret(self._who.kp, name)

        return await asyncio.to_thread(read)


def _text(payload: Payload, key: str) -> str:
    value = payload.get(key)
    if not isinstance(value, str):
        raise MalformedMessageError(f"{key} is a text")
    return value


def _optional(payload: Payload, key: str) -> str | None:
    return None if payload.get(key) is None else _text(payload, key)


def _instance(value: Any) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, dict):
        raise MalformedMessageError("an instance is an object, or a text of JSON")
    return orjson.dumps(value).decode()


def _query_type(text: str, payload: Payload) -> QueryType:
    given = _optional(payload, "type")
    if given is None:
        words = text.split(None, 1)
        return QueryType.SQLLIKE if words and words[0].lower() in _SQL_WORDS else QueryType.NATIVE
    try:
        return QueryType(given)
    except ValueError:
        raise MalformedMessageError(f"there is no query type {given[:40]!r}") from None


def _params(payload: Payload) -> dict[str, str] | None:
    value = payload.get("params")
    if value is None:
        return None
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise MalformedMessageError("params maps names to texts")
    return value


def _ids(ids: list[Any]) -> list[str]:
    return [str(id_) for id_ in ids]
