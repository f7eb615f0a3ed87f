"""What SSAP does with instances: INSERT, UPDATE, DELETE, BULK and QUERY, checked and sent to the actors that carry them out.

The gateways' router and those who act from inside the platform (rules, KPs of the container) share it: two ways in, one
code path. Every operation is checked in the documented order: session, the KP may use the ontology, the user may do the
operation; the schema is checked by the partition. Refusals come back as ``Answer.error``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import bson
import orjson

from actors.clients import FutureWrite
from actors.operations_core import OperationsCore
from actors.writes import DELETE, INSERT, INSERT_ALL, UPDATE, encode_delete, encode_update
from sib.access import Rights, authorize
from sib.errors import (
    DefinedQueryNotFoundError,
    MalformedMessageError,
    NotConfiguredError,
    OntologyNotFoundError,
    QuerySyntaxError,
    SibError,
    SqlSyntaxError,
    StoreUnavailableError,
    UnsupportedError,
)
from sib.query import plan as plans
from sib.query.joined import also_read
from sib.query.native import is_empty, plan_delete, plan_native
from sib.query.parameters import Parameters, bind_parameters
from sib.query.sqlplan import plan_sql
from sib.ssap import operations as ops
from sib.ssap.answers import AffectedIds, Answer, BulkResult, InsertedId, Rows
from sib.ssap.envelope import Request
from sib.ssap.messages import Dialect, MessageType, QueryType
from sib.ssap.rest import InsertMany

if TYPE_CHECKING:
    from actors.gateway.channel import Channel, Slot

TEXT_CHARS_AT_ONCE_MAX = 20_000
"""Texts of queries up to this are read on the event loop; a longer one may take a second, and all connections would wait."""

NO_SUBSCRIPTION = "the history does not change: subscribe with NATIVE or SQLLIKE, query it with BDH"

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
    def connection(self) -> Channel | None:
        """The connection that the request came over, while it is there: one that has ended moves no session to itself."""
        return self.channel if self.channel is not None and self.channel.is_open else None

    def reads(self) -> None:
        """From now on the request only reads: see ``Channel.reads``."""
        if self.channel is not None and self.slot is not None:
            self.channel.reads(self.slot)

    @property
    def client(self) -> str:
        """What the console shows as the instance's last address."""
        return self.channel.address if self.channel is not None else self.peer


class Grant(Protocol):
    """Who asks, and what he may do. ``channel``: the connection that asked, if it is to be told of its own changes last."""

    @property
    def key(self) -> str: ...
    @property
    def user(self) -> str: ...
    @property
    def is_administrator(self) -> bool: ...
    @property
    def rights(self) -> Mapping[str, Rights]: ...
    @property
    def context(self) -> Mapping[str, Any]: ...
    @property
    def channel(self) -> Channel | None: ...


class Operations:
    """The operations on instances. Who asks is known by ``lease``."""

    def __init__(self, core: OperationsCore) -> None:
        self._core = core
        self._handlers: dict[type, Handler] = {
            ops.Insert: self._insert,
            InsertMany: self._insert_many,
            ops.Update: self._update,
            ops.Delete: self._delete,
            ops.Query: self._query,
            ops.Bulk: self._bulk,
        }

    async def lease(self, request: Request, origin: Origin) -> Grant:
        """Who asks.

        Raises:
            AuthenticationError: nobody we know.
        """
        raise NotImplementedError

    async def execute(self, request: Request, origin: Origin) -> Answer:
        """Carry out any request. Refusals come back in the answer; a store that cannot decide, too."""
        try:
            return await self._execute(request, origin)
        except StoreUnavailableError as error:
            return Answer(error=error)

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
            self._core.count(request.message_type.value, result, time.perf_counter() - began)

    def _authorize(self, operation: str, ontology: str, lease: Grant) -> None:
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
            plan = await read_text(insert.query, self._plan_write, insert.query_type, request.ontology)
            if not isinstance(plan, plans.Insert):
                raise QuerySyntaxError("an INSERT takes an instance in data, or an inserting statement in query")
            return await self._insert_documents(lease, plan)
        if insert.data is None:
            raise MalformedMessageError("the INSERT has neither an instance in data nor a statement in query")
        ontology = named(request.ontology)
        self._authorize("INSERT", ontology, lease)
        data = insert.data.encode() if isinstance(insert.data, str) else insert.data
        id_hex = await self._write(INSERT, lease, ontology, data)
        return Answer(InsertedId(bson.ObjectId(id_hex.decode())))

    async def _insert_documents(self, lease: Grant, plan: plans.Insert) -> Answer:
        self._authorize("INSERT", plan.ontology, lease)
        ids = await self._write(INSERT_ALL, lease, plan.ontology, orjson.dumps(plan.documents))
        return Answer(InsertedId(ids[0]) if len(ids) == 1 else AffectedIds(ids))

    async def _insert_many(self, request: Request, many: InsertMany, origin: Origin) -> Answer:
        lease = await self.lease(request, origin)
        ontology = named(request.ontology)
        self._authorize("INSERT", ontology, lease)
        items = [item.decode() if isinstance(item, bytes) else item for item in many.items]
        ids = await self._write(INSERT_ALL, lease, ontology, orjson.dumps(items))
        return Answer(AffectedIds(ids))

    async def _update(self, request: Request, update: ops.Update, origin: Origin) -> Answer:
        lease = await self.lease(request, origin)
        return Answer(AffectedIds(await self._run_update(lease, request.ontology, update)))

    async def _run_update(self, lease: Grant, ontology: str | None, update: ops.Update) -> list[Any]:
        if update.query_type.is_sql_like:
            plan: plans.Plan = await read_text(update.query, self._plan_write, update.query_type, ontology)
        else:
            plan = await read_text(update.query, self._core.plans.native, ontology)
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

    async def _run_delete(self, lease: Grant, ontology: str | None, delete: ops.Delete) -> list[Any]:
        if delete.query_type.is_sql_like:
            plan: plans.Plan = await read_text(delete.query, self._plan_write, delete.query_type, ontology)
        else:
            plan = await read_text(delete.query, partial(plan_delete, ontology=ontology, now=self._core.utc_now))
        if not isinstance(plan, plans.Delete):
            raise QuerySyntaxError("a DELETE takes a condition, or a statement that removes")
        return await self._run_write_plan(lease, plan)

    async def _run_write_plan(self, lease: Grant, plan: plans.Update | plans.Delete) -> list[Any]:
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

    async def _write(self, kind: int, lease: Grant, ontology: str, data: bytes) -> Any:
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

    async def _run_bulk_item(self, lease: Grant, request: Request, item: ops.BulkItem, origin: Origin) -> list[Any]:
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
        return [data.object_id] if isinstance(data, InsertedId) else data.ids  # type: ignore[union-attr]

    # ------------------------------------------------------------------ queries

    async def _query(self, request: Request, query: ops.Query, origin: Origin) -> Answer:
        lease = await self.lease(request, origin)
        if query.query_type is QueryType.BDC:
            return await self._query_bdc(request, query, lease, origin)
        if query.query_type is QueryType.BDH:
            return await self._query_bdh(query.query, None, lease, origin)
        defined = self._core.catalog.defined_query(query.query) if query.query_type is QueryType.SIB_DEFINED else None
        if defined is not None and defined.type == QueryType.BDH:
            return await self._query_bdh(defined.text, bind_parameters(query.params, defined.params), lease, origin)
        plan = await read_text(query.query, self.plan_query, query.query_type, query.params, request.ontology)
        if isinstance(plan, plans.Insert):
            return await self._insert_documents(lease, plan)
        if isinstance(plan, plans.Update | plans.Delete):
            return Answer(AffectedIds(await self._run_write_plan(lease, plan)))
        if not plans.is_read(plan):
            raise UnsupportedError("$out and $merge are refused over SSAP: insert the result instead")
        self._authorize("QUERY", plan.ontology, lease)
        self._authorize_joined(plan, lease)
        origin.reads()
        legacy, one, was_capped = await self._core.queries.run(
            "run",
            plan,
            request.dialect is Dialect.ONE,
            self._core.row_cap,
            self._core.query_time_limit_s,
            user=lease.user,
        )
        self._core.capped += was_capped
        return Answer(Rows(legacy, one))

    def _authorize_joined(self, plan: plans.Plan, lease: Grant) -> None:
        """A pipeline may read other ontologies ($lookup and the like): each needs its own right."""
        for name in also_read(plan):
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
            if defined.type == QueryType.BDH:
                raise UnsupportedError(NO_SUBSCRIPTION)
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
        if query_type is QueryType.BDH:
            raise UnsupportedError(NO_SUBSCRIPTION)
        raise NotConfiguredError(f"queries of type {query_type} are not configured on this platform")

    async def _query_bdh(self, text: str, parameters: Parameters | None, lease: Grant, origin: Origin) -> Answer:
        """The worker reads the text and checks each ontology that it names: one reading, for the check and for the work."""
        origin.reads()
        legacy, one, was_capped = await self._core.queries.run(
            "run_bdh",
            text,
            parameters,
            dict(lease.rights),
            self._core.row_cap,
            self._core.query_time_limit_s,
            user=lease.user,
        )
        self._core.capped += was_capped
        return Answer(Rows(legacy, one))

    async def _query_bdc(self, request: Request, query: ops.Query, lease: Grant, origin: Origin) -> Answer:
        origin.reads()
        legacy, one = await self._core.queries.run(
            "run_bdc",
            query.query,
            lease.user,
            lease.is_administrator,
            request.dialect is Dialect.ONE,
            self._core.row_cap,
            self._core.query_time_limit_s,
            user=lease.user,
        )
        return Answer(Rows(legacy, one))


def named(ontology: str | None) -> str:
    """The ontology of the envelope.

    Raises:
        MalformedMessageError: there is none.
    """
    if not ontology:
        raise MalformedMessageError("the message names no ontology: fill the envelope's field ontology")
    return ontology


async def read_text(text: str, read: Callable[..., plans.Plan], *arguments: Any) -> plans.Plan:
    """The plan of a text, long texts in a thread. The cache of plans does not keep those, so no thread changes it."""
    if len(text) <= TEXT_CHARS_AT_ONCE_MAX:
        return read(text, *arguments)
    return await asyncio.to_thread(read, text, *arguments)
