"""Operations on behalf of a user from inside the platform: how rules, CEP, KPs of the container and file loads use it.

The same checks in the same order as for a KP, the same partitions and query workers; no gateway, no session.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import bson
import orjson
from bson import json_util

from actors.clients import FutureWrite, PartitionClient
from actors.config import PlatformConfig
from actors.operations import Grant, Operations, Origin, read_text
from actors.operations_core import OperationsCore
from actors.writes import INSERT_ONCE, NO_CONSUMER
from sib.access import Rights
from sib.errors import AuthorizationError
from sib.query import plan as plans
from sib.query.native import is_empty
from sib.ssap import operations as ops
from sib.ssap.answers import AffectedIds, Answer, InsertedId, Rows
from sib.ssap.envelope import Request
from sib.ssap.messages import Dialect, MessageType, QueryType
from sib.ssap.rest import InsertMany

if TYPE_CHECKING:
    from actors.gateway.channel import Channel

PRINCIPALS_MAX = 10_000
"""Principals whose rights are remembered; beyond it all are asked for again."""


@dataclass(frozen=True, slots=True)
class Principal:
    """For whom something is done, and what its instances say in their contextData.

    With a KP the user may do what both may: the ontologies registered with it, by the user's rights. Without one it is the
    user's rights alone. ``session_key`` is free text for the contextData, for example ``rule:NAME``.
    """

    user: str
    kp: str = ""
    instance: str = ""
    session_key: str = ""
    ontologies: frozenset[str] | None = None
    """What it is confined to; None: to nothing less than its rights."""

    @property
    def context(self) -> dict[str, str]:
        return {
            "session_key": self.session_key,
            "user": self.user,
            "kp": self.kp,
            "kp_instancia": self.instance,
            "timezoneId": "UTC",
        }


@dataclass(frozen=True, slots=True)
class _Granted:
    """What a principal may do now."""

    key: str
    user: str
    is_administrator: bool
    rights: Mapping[str, Rights]
    context: Mapping[str, Any]
    channel: Channel | None = None


class Inside:
    """One per actor, on its event loop. Safe for any number of operations at once; refusals are raised.

    A write is sent again until it is decided or ``write_timeout_s`` is over; then StoreUnavailableError is raised and it may
    or may not have been stored: repeat it with ``once``, or accept that it may be there twice.
    """

    def __init__(self, name: str, config: PlatformConfig) -> None:
        core = OperationsCore(name, config)
        epoch = os.urandom(6).hex()
        core.connect(
            {
                partition: PartitionClient(
                    partition,
                    f"{name}/inside",
                    epoch,
                    config,
                    acked=lambda: NO_CONSUMER,
                    received=lambda: None,
                    announced=_ignore,
                    settled=_ignore,
                    drained=_ignore,
                    took=_ignore,
                )
                for partition in config.topology.partitions
            }
        )
        self._core = core
        self._operations = _InsideOperations(core)

    @property
    def core(self) -> OperationsCore:
        """The configuration as this process sees it, and the BDC."""
        return self._core

    async def reload(self) -> int:
        """Take over the newest configuration: rights are asked for again. Returns its version."""
        self._operations.forget_rights()
        await self._core.catalog.refresh_aside()
        self._operations.forget_rights()
        return self._core.catalog.version

    async def insert(
        self,
        who: Principal,
        ontology: str,
        instance: Mapping[str, Any] | str | bytes,
        *,
        once: bson.ObjectId | None = None,
    ) -> bson.ObjectId:
        """Store one instance and give its ``_id``; it is durable then.

        Args:
            who: for whom.
            ontology: its name.
            instance: JSON text, or a map that may hold datetimes (UTC) and ObjectIds.
            once: the ``_id`` that it shall have, made from what the instance stands for: if it is there already, nothing is
                stored and this is a success.

        Raises:
            SibError: why not, as an SSAP INSERT would be told.
        """
        if once is not None:
            await (await self.begin_insert(who, ontology, instance, once=once))
            return once
        request = _request(MessageType.INSERT, ontology, ops.Insert(_text(instance), None, QueryType.NATIVE))
        data = (await self.execute(who, request)).data
        assert isinstance(data, InsertedId)
        return data.object_id

    async def begin_insert(
        self, who: Principal, ontology: str, instance: Mapping[str, Any] | str | bytes, *, once: bson.ObjectId
    ) -> asyncio.Future[Any]:
        """As ``insert`` with ``once``, but the instance is only sent: the future ends when it is durable, or with the refusal.

        Await all that was begun. What goes to one partition is stored in the order in which it was begun, many in one commit.

        Raises:
            SibError: it may not insert there. Nothing was sent.
        """
        return await self._operations.begin_insert(who, ontology, once, _text(instance))

    async def insert_many(
        self, who: Principal, ontology: str, instances: Sequence[Mapping[str, Any] | str]
    ) -> list[bson.ObjectId]:
        """Store instances of one ontology, all or none, in one transaction; their ids in order."""
        items = [_text(instance) for instance in instances]
        request = _request(MessageType.INSERT, ontology, InsertMany(tuple(items)))
        return _ids(await self.execute(who, request))

    async def query(
        self,
        who: Principal,
        text: str,
        *,
        query_type: QueryType = QueryType.SQLLIKE,
        ontology: str | None = None,
        params: dict[str, str] | None = None,
    ) -> Any:
        """What a QUERY finds: a list of documents (BSON values, datetimes naive UTC), or the bare number of a count.

        At most ``query.row_cap`` rows, within ``query.time_limit_s``.
        """
        request = _request(MessageType.QUERY, ontology, ops.Query(text, query_type, params))
        data = (await self.execute(who, request)).data
        assert isinstance(data, Rows)
        return json_util.loads(data.one or b"[]", json_options=_NAIVE)

    async def update(
        self,
        who: Principal,
        text: str,
        *,
        ontology: str | None = None,
        data: Mapping[str, Any] | str | None = None,
        query_type: QueryType = QueryType.NATIVE,
    ) -> list[Any]:
        """Change what a statement says, or replace by ``data`` what a condition matches; the ids of the changed."""
        operation = ops.Update(None if data is None else _text(data), text, query_type)
        return _ids(await self.execute(who, _request(MessageType.UPDATE, ontology, operation)))

    async def delete(
        self, who: Principal, text: str, *, ontology: str | None = None, query_type: QueryType = QueryType.NATIVE
    ) -> list[Any]:
        """Remove what a condition matches; the ids of the removed."""
        return _ids(await self.execute(who, _request(MessageType.DELETE, ontology, ops.Delete(text, query_type))))

    async def condition(
        self,
        who: Principal,
        text: str,
        *,
        query_type: QueryType = QueryType.NATIVE,
        ontology: str | None = None,
        params: dict[str, str] | None = None,
    ) -> tuple[str, dict[str, Any]]:
        """The ontology and the condition of a subscription, for those who watch its changes themselves.

        Raises:
            SibError: the text means no condition, or it may not read there.
        """
        return await self._operations.condition(who, text, query_type, ontology, params)

    async def execute(self, who: Principal, request: Request) -> Answer:
        """Carry out an INSERT, UPDATE, DELETE, BULK or QUERY; its session key is not looked at.

        Raises:
            SibError: why it was refused.
        """
        answer = await self._operations.execute(request, _InsideOrigin("inside", "", who=who))
        if answer.error is not None:
            raise answer.error
        return answer


@dataclass
class _InsideOrigin(Origin):
    who: Principal | None = None


class _InsideOperations(Operations):
    """The operations, for principals instead of sessions."""

    def __init__(self, core: OperationsCore) -> None:
        super().__init__(core)
        self._rights: dict[tuple[str, str, frozenset[str] | None], tuple[bool, Mapping[str, Rights]]] = {}

    def forget_rights(self) -> None:
        self._rights.clear()

    async def lease(self, request: Request, origin: Origin) -> Grant:
        assert isinstance(origin, _InsideOrigin)
        assert origin.who is not None
        return await self._granted(origin.who)

    async def begin_insert(self, who: Principal, ontology: str, id_: bson.ObjectId, text: str) -> asyncio.Future[Any]:
        granted = await self._granted(who)
        self._authorize("INSERT", ontology, granted)
        write = FutureWrite(INSERT_ONCE, granted.key, ontology, id_.binary + text.encode(), granted.context)
        self._core.partition_of(ontology).window.add(write)
        return write.future

    async def condition(
        self, who: Principal, text: str, query_type: QueryType, ontology: str | None, params: dict[str, str] | None
    ) -> tuple[str, dict[str, Any]]:
        granted = await self._granted(who)
        name, condition = ontology or "", {}
        if query_type is QueryType.SIB_DEFINED or not is_empty(text):
            plan = await read_text(text, self.plan_query, query_type, params, ontology)
            name, condition = plan.ontology, plans.condition_of(plan)
        self._authorize("SUBSCRIBE", name, granted)
        return name, condition

    async def _granted(self, who: Principal) -> _Granted:
        key = (who.user, who.kp, who.ontologies)
        known = self._rights.get(key)
        if known is None:
            if len(self._rights) >= PRINCIPALS_MAX:
                self._rights.clear()
            is_administrator, rights = await asyncio.to_thread(self._read_rights, who)
            if who.ontologies is not None:
                rights = {name: right for name, right in rights.items() if name in who.ontologies}
            known = self._rights[key] = (is_administrator, rights)
        session = f"inside:{who.user}:{who.kp}:{who.instance}:{who.session_key}"
        return _Granted(session, who.user, known[0], known[1], who.context)

    def _read_rights(self, who: Principal) -> tuple[bool, Mapping[str, Rights]]:
        with self._core.bdc.read() as configuration:
            user = configuration.users.get(who.user)
            if user is None or not user.active:
                raise AuthorizationError(f"the user {who.user!r} does not exist or is not active any more")
            ontologies = [] if who.kp else configuration.ontologies.all()
        is_administrator = user.role == "ADMINISTRADOR"
        if who.kp:
            return is_administrator, self._core.bdc.rights(who.kp, who.user)
        return is_administrator, {record.name: record.rights(who.user, user.role) for record in ontologies}


_NAIVE = json_util.JSONOptions(tz_aware=False)


def _request(message_type: MessageType, ontology: str | None, operation: Any) -> Request:
    return Request(message_type, None, ontology, None, Dialect.ONE, True, operation)


def _text(instance: Mapping[str, Any] | str | bytes) -> str:
    if isinstance(instance, bytes):
        return instance.decode()
    if isinstance(instance, str):
        return instance
    try:
        return orjson.dumps(instance, option=orjson.OPT_PASSTHROUGH_DATETIME).decode()
    except TypeError:  # it holds BSON values
        return str(json_util.dumps(instance, json_options=json_util.RELAXED_JSON_OPTIONS))


def _ids(answer: Answer) -> list[Any]:
    data = answer.data
    if isinstance(data, InsertedId):
        return [data.object_id]
    assert isinstance(data, AffectedIds)
    return list(data.ids)


def _ignore(*_: Any) -> None:
    """Nobody inside subscribes, so there is nothing to tell, drain or count."""
