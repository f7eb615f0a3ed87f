"""Router: one SSAP request, whatever the gateway, to the actors that carry it out, and its answer.

It runs inside each gateway process. Every operation is checked in the documented order: session, the KP may use the ontology,
the user may do the operation; the schema is checked by the partition. Refusals come back as ``Answer.error``.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import bson
import orjson
from bson import json_util

from actors.clients import FutureWrite
from actors.partition import DELETE, INSERT, INSERT_ALL, UPDATE, encode_delete, encode_update
from actors.runtime import Ref
from actors.sessions import JoinRefused, JoinRequest
from sib.access import authorize
from sib.errors import (
    AuthenticationError,
    AuthorizationError,
    DefinedQueryNotFoundError,
    LimitError,
    MalformedMessageError,
    NotConfiguredError,
    NotFoundError,
    OntologyNotFoundError,
    QuerySyntaxError,
    SibError,
    SqlSyntaxError,
    StoreUnavailableError,
    UnsupportedError,
)
from sib.query import plan as plans
from sib.query.joined import joined_ontologies
from sib.query.native import is_empty, plan_delete, plan_native
from sib.query.parameters import bind_parameters
from sib.query.sqlplan import plan_sql
from sib.ssap import operations as ops
from sib.ssap.answers import AffectedIds, Answer, BulkResult, InsertedId, Json, Rows, Text
from sib.ssap.envelope import Request
from sib.ssap.messages import Dialect, MessageType, QueryType
from sib.ssap.rest import InsertMany
from storage.bdc.records import SubscriptionRecord

if TYPE_CHECKING:
    from actors.gateway.channel import Channel, Slot
    from actors.gateway.core import GatewayCore, HeldLease

INSTANCE_CHARS_MAX = 191
TEXT_CHARS_AT_ONCE_MAX = 20_000
"""Texts of queries up to this are read on the event loop; a longer one may take a second, and all connections would wait."""

Handler = Callable[[Request, Any, "Origin"], Awaitable[Answer]]


@dataclass
class Origin:
    """Where a request came from: a channel, or a REST call with the endpoint that wants its INDICATIONs."""

    kind: str
    peer: str
    channel: Channel | None = None
    endpoint: str | None = None
    slot: Slot | None = None

    @property
    def is_ciphered(self) -> bool:
        """Whether the request came in cipher."""
        return self.slot is not None and self.slot.is_ciphered

    @property
    def client(self) -> str:
        """What the console shows as the instance's last address."""
        return self.channel.address if self.channel is not None else self.peer


class Router:
    """The operations of SSAP."""

    def __init__(self, core: GatewayCore) -> None:
        self._core = core
        self._handlers: dict[type, Handler] = {
            ops.Join: self._join,
            ops.Leave: self._leave,
            ops.Insert: self._insert,
            InsertMany: self._insert_many,
            ops.Update: self._update,
            ops.Delete: self._delete,
            ops.Query: self._query,
            ops.Subscribe: self._subscribe,
            ops.Unsubscribe: self._unsubscribe,
            ops.Bulk: self._bulk,
            ops.Config: self._config,
            ops.DeviceReport: self._report,
            ops.SubscribeCommand: self._subscribe_command,
            ops.Command: self._command,
            ops.Unsupported: self._unsupported,
        }

    # ------------------------------------------------------------------ entrances

    def start_insert(self, slot: Slot, request: Request, channel: Channel) -> bool:
        """Send a plain INSERT on its way at once; False if it needs more than that (a lease, a statement, a refusal)."""
        core = self._core
        key = request.session_key
        lease = core.leases.get(key) if key is not None else None
        operation: Any = request.operation
        ontology = request.ontology
        if lease is None or operation.query is not None or ontology is None or ontology not in lease.insertable:
            return False
        now_s = time.time()
        if lease.is_expired(now_s):
            return False
        data = operation.data
        slot.data = data.encode() if data.__class__ is str else data
        slot.session_key, slot.ontology, slot.lease = lease.key, ontology, lease
        lease.used_at_s = now_s
        lease.channel = channel
        if not request.dialect_told:
            request.dialect = lease.dialect
        core.partition_of(ontology).window.add(slot)
        return True

    async def execute(self, request: Request, origin: Origin) -> Answer:
        """Carry out any request. Refusals come back in the answer; a store that cannot decide, too."""
        try:
            return await self._execute(request, origin)
        except StoreUnavailableError as error:
            return Answer(error=error)

    async def execute_in_channel(self, request: Request, channel: Channel, slot: Slot) -> Answer:
        """As :meth:`execute`, but StoreUnavailableError is raised: a channel may have to stay silent then."""
        return await self._execute(request, Origin(channel.kind, channel.peer, channel, slot=slot))

    async def _execute(self, request: Request, origin: Origin) -> Answer:
        began = time.perf_counter()
        result = "ok"
        try:
            answer = await self._handlers[type(request.operation)](request, request.operation, origin)
            if answer.error is not None:
                result = answer.error.code
            return answer
        except SibError as error:
            result = error.code
            if isinstance(error, StoreUnavailableError):
                raise
            return Answer(error=error)
        except Exception as error:
            result = "sib.internal"
            self._core.log_failure(request, error)
            return Answer(error=SibError("the platform failed at this request; its log says why"))
        finally:
            self._core.metrics.count(request.message_type.value, result, time.perf_counter() - began)

    # ------------------------------------------------------------------ sessions

    async def _join(self, request: Request, join: ops.Join, origin: Origin) -> Answer:
        if not join.kp or not join.instance_name:
            raise AuthenticationError("instance must be KP:instance, for example KPTestTemperatura:KPTestTemperatura01")
        if len(join.instance_name) > INSTANCE_CHARS_MAX:
            raise AuthenticationError(f"the KP instance has more than {INSTANCE_CHARS_MAX} characters: shorten it")
        channel_client = origin.channel.client_id if origin.channel is not None else None
        asked = JoinRequest(
            join.kp,
            join.instance_name,
            join.token,
            await self._core.prove(join) if join.token is None else None,
            int(request.dialect),
            origin.is_ciphered,
            channel_client or "",
            origin.peer,
            request.session_key or None,
        )
        granted = await self._core.sessions.request(request.session_key or str(uuid.uuid4()), "join", asked)
        if isinstance(granted, JoinRefused):
            if granted.delay_s:
                await asyncio.sleep(granted.delay_s)
            raise granted.error
        self._core.hold(granted, origin.channel)
        return Answer(Text(granted.key), session_key=granted.key)

    async def _leave(self, request: Request, leave: ops.Leave, origin: Origin) -> Answer:
        lease = await self.lease(request, origin)
        await self._core.sessions.request(lease.key, "leave", lease.key)
        self._core.end_session(lease.key)
        return Answer(Text(lease.key))

    async def lease(self, request: Request, origin: Origin) -> HeldLease:
        """The lease of the session in the envelope.

        Raises:
            AuthenticationError: no session key, or its session is dead.
        """
        core, key = self._core, request.session_key
        if not key:
            raise AuthenticationError("the request has no session key: JOIN first")
        lease, now_s = core.leases.get(key), time.time()
        if lease is None or lease.is_expired(now_s):
            client = (origin.channel.client_id if origin.channel is not None else None) or ""
            lease = core.hold(await core.sessions.request(key, "lease", key, client), origin.channel)
        if lease.is_cipher_only and not origin.is_ciphered:
            raise AuthenticationError(f"the KP {lease.kp!r} takes ciphered messages only: encipher them with its key")
        lease.used_at_s = now_s
        if origin.channel is not None:
            lease.channel = origin.channel
        if not request.dialect_told:
            request.dialect = lease.dialect
        return lease

    def _authorize(self, operation: str, ontology: str, lease: HeldLease) -> None:
        record = self._core.catalog.ontologies.get(ontology)
        authorize(
            operation,
            ontology,
            lease.rights,
            is_known=record is not None,
            is_active=record is not None and record.active,
        )

    # ------------------------------------------------------------------ writes

    async def _insert(self, request: Request, insert: ops.Insert, origin: Origin) -> Answer:
        lease = await self.lease(request, origin)
        if insert.query is not None:
            plan = await _read(insert.query, self._plan_write, insert.query_type, request.ontology)
            if not isinstance(plan, plans.Insert):
                raise QuerySyntaxError("an INSERT takes an instance in data, or an inserting statement in query")
            return await self._insert_documents(lease, plan)
        if insert.data is None:
            raise MalformedMessageError("the INSERT has neither an instance in data nor a statement in query")
        ontology = self._named(request.ontology)
        self._authorize("INSERT", ontology, lease)
        data = insert.data.encode() if isinstance(insert.data, str) else insert.data
        id_hex = await self._write(INSERT, lease, ontology, data)
        return Answer(InsertedId(bson.ObjectId(id_hex.decode())))

    async def _insert_documents(self, lease: HeldLease, plan: plans.Insert) -> Answer:
        self._authorize("INSERT", plan.ontology, lease)
        ids = await self._write(INSERT_ALL, lease, plan.ontology, orjson.dumps(plan.documents))
        return Answer(InsertedId(ids[0]) if len(ids) == 1 else AffectedIds(ids))

    async def _insert_many(self, request: Request, many: InsertMany, origin: Origin) -> Answer:
        lease = await self.lease(request, origin)
        ontology = self._named(request.ontology)
        self._authorize("INSERT", ontology, lease)
        items = [item.decode() if isinstance(item, bytes) else item for item in many.items]
        ids = await self._write(INSERT_ALL, lease, ontology, orjson.dumps(items))
        return Answer(AffectedIds(ids))

    async def _update(self, request: Request, update: ops.Update, origin: Origin) -> Answer:
        lease = await self.lease(request, origin)
        return Answer(AffectedIds(await self._run_update(lease, request.ontology, update)))

    async def _run_update(self, lease: HeldLease, ontology: str | None, update: ops.Update) -> list[Any]:
        if update.query_type.is_sql_like:
            plan: plans.Plan = await _read(update.query, self._plan_write, update.query_type, ontology)
        else:
            plan = await _read(update.query, self._core.plans.native, ontology)
        if isinstance(plan, plans.Find) and update.data is not None:
            self._authorize("UPDATE", plan.ontology, lease)
            data = encode_update(plan.filter, replacement=update.data, multi=True)
            return list(await self._write(UPDATE, lease, plan.ontology, data))
        if isinstance(plan, plans.Find) and update.is_removal and plan.filter:
            plan = plans.Delete(plan.ontology, plan.filter)
        if isinstance(plan, plans.Update | plans.Delete):
            return await self._run_write_plan(lease, plan)
        raise QuerySyntaxError("there is nothing to update with: send the new instance in data, or an update statement")

    async def _delete(self, request: Request, delete: ops.Delete, origin: Origin) -> Answer:
        lease = await self.lease(request, origin)
        return Answer(AffectedIds(await self._run_delete(lease, request.ontology, delete)))

    async def _run_delete(self, lease: HeldLease, ontology: str | None, delete: ops.Delete) -> list[Any]:
        if delete.query_type.is_sql_like:
            plan: plans.Plan = await _read(delete.query, self._plan_write, delete.query_type, ontology)
        else:
            plan = await _read(delete.query, partial(plan_delete, ontology=ontology, now=self._core.utc_now))
        if not isinstance(plan, plans.Delete):
            raise QuerySyntaxError("a DELETE takes a condition, or a statement that removes")
        return await self._run_write_plan(lease, plan)

    async def _run_write_plan(self, lease: HeldLease, plan: plans.Update | plans.Delete) -> list[Any]:
        if isinstance(plan, plans.Delete):
            self._authorize("DELETE", plan.ontology, lease)
            data = encode_delete(plan.filter, multi=plan.multi, sort=plan.sort)
            return list(await self._write(DELETE, lease, plan.ontology, data))
        self._authorize("UPDATE", plan.ontology, lease)
        data = encode_update(
            plan.filter,
            update=None if plan.replace_root else plan.update,
            replacement=self._core.instance_text(plan.ontology, plan.update) if plan.replace_root else None,
            multi=plan.multi,
            upsert=plan.upsert,
            array_filters=plan.array_filters,
            sort=plan.sort,
        )
        return list(await self._write(UPDATE, lease, plan.ontology, data))

    def _plan_write(self, text: str, query_type: QueryType, ontology: str | None) -> plans.Plan:
        if query_type.is_sql_like:
            if not text:
                raise SqlSyntaxError("the statement is empty: send it in query")
            return self._core.plans.sql(text)
        if query_type is QueryType.NATIVE:
            return self._core.plans.native(text, ontology)
        raise UnsupportedError(f"queryType {query_type} is for queries; write with NATIVE or SQLLIKE")

    async def _write(self, kind: int, lease: HeldLease, ontology: str, data: bytes) -> Any:
        if lease.channel is not None:
            lease.channel.hold_indications()
        write = FutureWrite(kind, lease.key, ontology, data, lease.context)
        self._core.partition_of(ontology).window.add(write)
        return await write.future

    async def _bulk(self, request: Request, bulk: ops.Bulk, origin: Origin) -> Answer:
        lease = await self.lease(request, origin)
        result = BulkResult()
        for item in bulk.items:
            try:
                if item.error is not None or item.operation is None:
                    raise item.error or UnsupportedError(f"a BULK takes INSERT, UPDATE and DELETE, not {item.type}")
                result.add_ids(item, await self._run_bulk_item(lease, request, item, origin))
            except StoreUnavailableError:
                raise
            except SibError as error:
                result.add_error(item, error)
        return Answer(result)

    async def _run_bulk_item(self, lease: HeldLease, request: Request, item: ops.BulkItem, origin: Origin) -> list[Any]:
        operation, ontology = item.operation, item.ontology or request.ontology
        if isinstance(operation, ops.Update):
            return await self._run_update(lease, ontology, operation)
        if isinstance(operation, ops.Delete):
            return await self._run_delete(lease, ontology, operation)
        single = Request(
            MessageType.INSERT, lease.key, ontology, None, request.dialect, True, operation or request.operation
        )
        answer = await self._insert(single, operation, origin)  # type: ignore[arg-type]
        data = answer.data
        return [data.object_id] if isinstance(data, InsertedId) else data.object_ids  # type: ignore[union-attr]

    # ------------------------------------------------------------------ queries

    async def _query(self, request: Request, query: ops.Query, origin: Origin) -> Answer:
        lease = await self.lease(request, origin)
        if query.query_type is QueryType.BDC:
            return await self._query_bdc(request, query, lease)
        plan = await _read(query.query, self.plan_query, query.query_type, query.params, request.ontology)
        if isinstance(plan, plans.Insert):
            return await self._insert_documents(lease, plan)
        if isinstance(plan, plans.Update | plans.Delete):
            return Answer(AffectedIds(await self._run_write_plan(lease, plan)))
        if not plans.is_read(plan):
            raise UnsupportedError("$out and $merge are refused over SSAP: insert the result instead")
        self._authorize("QUERY", plan.ontology, lease)
        self._authorize_joined(plan, lease)
        legacy, one, was_capped = await self._core.queries.run(
            "run", plan, request.dialect is Dialect.ONE, self._core.row_cap, self._core.query_time_limit_s
        )
        self._core.capped += was_capped
        return Answer(Rows(legacy, one))

    def _authorize_joined(self, plan: plans.Plan, lease: HeldLease) -> None:
        """A pipeline may read other ontologies ($lookup and the like): each needs its own right."""
        if isinstance(plan, plans.Aggregate):
            for name in sorted(joined_ontologies(plan.pipeline) - {plan.ontology}):
                self._authorize("QUERY", name, lease)

    def plan_query(
        self, text: str, query_type: QueryType, params: dict[str, str] | None, ontology: str | None
    ) -> plans.Plan:
        """The plan of a query's text.

        Raises:
            SibError: of the kind that the text deserves.
        """
        if query_type is QueryType.SIB_DEFINED:
            defined = self._core.catalog.defined_query(text)
            if defined is None:
                raise DefinedQueryNotFoundError(f"there is no predefined query {text!r}; check its name")
            bound = bind_parameters(params, defined.params)
            if QueryType(defined.type).is_sql_like:
                return plan_sql(
                    defined.text, lookup=self._core.catalog.ontology, now=self._core.utc_now, parameters=bound
                )
            return plan_native(defined.text, ontology=defined.ontology, now=self._core.utc_now, parameters=bound)
        if query_type.is_sql_like:
            if not text:
                raise SqlSyntaxError("the statement is empty; write for example select * from ONTOLOGY limit 3")
            return self._core.plans.sql(text)
        if query_type is QueryType.NATIVE:
            if is_empty(text) and ontology and ontology not in self._core.catalog.ontologies:
                raise OntologyNotFoundError(f"there is no ontology {ontology!r}; check its name or create it")
            return self._core.plans.native(text, ontology)
        raise NotConfiguredError(f"queries of type {query_type} are not configured on this platform")

    async def _query_bdc(self, request: Request, query: ops.Query, lease: HeldLease) -> Answer:
        legacy, one = await self._core.queries.run(
            "run_bdc",
            query.query,
            lease.user,
            lease.is_administrator,
            request.dialect is Dialect.ONE,
            self._core.row_cap,
        )
        return Answer(Rows(legacy, one))

    # ------------------------------------------------------------------ subscriptions

    async def _subscribe(self, request: Request, subscribe: ops.Subscribe, origin: Origin) -> Answer:
        core = self._core
        lease = await self.lease(request, origin)
        ontology, condition = await self._condition(subscribe, request.ontology)
        self._authorize("SUBSCRIBE", ontology, lease)
        subscription_id = str(uuid.uuid4())
        is_ciphered = origin.slot is not None and origin.slot.cipher_key is not None
        record = SubscriptionRecord(
            subscription_id,
            lease.key,
            ontology,
            subscribe.query,
            subscribe.query_type.value,
            json_util.dumps(condition),
            subscribe.ms_refresh,
            int(request.dialect),
            core.utc_now(),
            subscribe.params,
            is_ciphered,
            origin.endpoint or "",
        )
        # Known here before the partition knows it, but not announced: an early INDICATION waits for the answer.
        client = (origin.channel.client_id if origin.channel is not None else None) or ""
        core.notifier.add(
            core.local_subscription(record, lease.cipher_key, client=client, is_announced=origin.slot is None)
        )
        try:
            await core.sessions.request(lease.key, "subscribe", record, client)
            await core.register(record, condition)
        except SibError:
            core.withdraw(record)
            raise
        if origin.slot is not None:
            origin.slot.then = subscription_id
        return Answer(Text(subscription_id))

    async def _condition(self, subscribe: ops.Subscribe, ontology: str | None) -> tuple[str, dict[str, Any]]:
        if is_empty(subscribe.query) and subscribe.query_type is not QueryType.SIB_DEFINED:
            return self._named(ontology), {}
        plan = await _read(subscribe.query, self.plan_query, subscribe.query_type, subscribe.params, ontology)
        return plan.ontology, plans.condition_of(plan)

    async def _unsubscribe(self, request: Request, unsubscribe: ops.Unsubscribe, origin: Origin) -> Answer:
        lease = await self.lease(request, origin)
        id_ = unsubscribe.subscription_id
        ontology = await self._core.sessions.request(lease.key, "unsubscribe", lease.key, id_)
        if ontology is None:
            raise NotFoundError(f"this session has no subscription {id_!r}: send the id that the SUBSCRIBE answered")
        self._core.end_subscription(id_)
        Ref(self._core.config.topology.partition_of(ontology)).tell("unsubscribe", [id_])
        return Answer(Text(""))

    # ------------------------------------------------------------------ devices

    async def _config(self, request: Request, config: ops.Config, origin: Origin) -> Answer:
        if not config.kp or not config.token:
            raise AuthenticationError("CONFIG needs kp, instanciaKp and token")
        found = await self._core.sessions.request(
            config.kp, "configure", config.kp, config.instance_name or "", config.token
        )
        return Answer(
            Json(
                {
                    "kp": config.kp,
                    "instanciaKp": config.instance,
                    "token": None,
                    "assetService": config.asset_service,
                    "assetServiceParam": config.asset_service_params,
                    "lappsw": [],
                    "lasset": found["lasset"],
                    "lontologia": found["lontologia"],
                    "lmisc": [],
                }
            )
        )

    async def _report(self, request: Request, report: ops.DeviceReport, origin: Origin) -> Answer:
        if not report.kp or not report.token:
            raise AuthenticationError(f"{report.kind} needs thinkp, instanciathinkp and token")
        await self._core.sessions.request(
            report.kp, "report", report.kind.value, report.kp, report.instance_name or "", report.token, report.fields
        )
        return Answer(Text("OK"))

    async def _subscribe_command(self, request: Request, wish: ops.SubscribeCommand, origin: Origin) -> Answer:
        if not wish.kp or not wish.token:
            raise AuthenticationError("SUBSCRIBECOMMAND needs thinkp, thinkpInstance and token")
        await self._core.sessions.request(wish.kp, "check", wish.kp, wish.token)
        commands = self._core.commands
        if (
            origin.channel is not None
            and commands.count(origin.channel) >= self._core.limits.commands_per_connection_max
        ):
            raise LimitError(f"a connection may have {self._core.limits.commands_per_connection_max} SUBSCRIBECOMMANDs")
        id_ = str(uuid.uuid4())
        commands.add(id_, wish, request.dialect, origin.channel, origin.endpoint)
        return Answer(Text(id_))

    async def _command(self, request: Request, command: ops.Command, origin: Origin) -> Answer:
        lease = await self.lease(request, origin)
        if command.kp is not None and command.kp != lease.kp and not lease.is_administrator:
            await self._check_command_target(command.kp, lease)
        for gateway in self._core.config.topology.gateways:
            Ref(gateway).tell("command", command.kp, command.instance, command.command_type, command.args)
        return Answer(Text(str(uuid.uuid4())))

    async def _check_command_target(self, kp: str, lease: HeldLease) -> None:
        """Commands go to one's own KPs: the user of the session must own the KP that is told."""
        owner = await self._core.kp_owner(kp)
        if owner is not None and owner != lease.user:
            raise AuthorizationError(f"the KP {kp!r} belongs to another user: only its owner may send it commands")

    async def _unsupported(self, request: Request, unsupported: ops.Unsupported, origin: Origin) -> Answer:
        raise UnsupportedError(f"a message of type {unsupported.message_type} is not something a KP sends to the SIB")

    @staticmethod
    def _named(ontology: str | None) -> str:
        if not ontology:
            raise MalformedMessageError("the message names no ontology: fill the envelope's field ontology")
        return ontology


async def _read(text: str, read: Callable[..., plans.Plan], *arguments: Any) -> plans.Plan:
    """The plan of a text, long texts in a thread. The cache of plans does not keep those, so no thread changes it."""
    if len(text) <= TEXT_CHARS_AT_ONCE_MAX:
        return read(text, *arguments)
    return await asyncio.to_thread(read, text, *arguments)
