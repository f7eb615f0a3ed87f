"""Router: one SSAP request, whatever the gateway, to the actors that carry it out, and its answer.

It runs inside each gateway process and adds sessions, subscriptions and the messages of devices to the operations on
instances. Refusals come back as ``Answer.error``.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import TYPE_CHECKING, Any

from bson import json_util

from actors.gateway.notifier import CEP
from actors.operations import Operations, Origin, named, read_text
from actors.runtime import Ref
from actors.sessions import JoinRefused, JoinRequest
from sib.errors import (
    AuthenticationError,
    AuthorizationError,
    LimitError,
    NotConfiguredError,
    NotFoundError,
    SibError,
    UnsupportedError,
)
from sib.query import plan as plans
from sib.query.native import is_empty
from sib.ssap import operations as ops
from sib.ssap.answers import Answer, Json, Text
from sib.ssap.envelope import Request
from sib.ssap.messages import QueryType
from storage.bdc.records import SubscriptionRecord

if TYPE_CHECKING:
    from actors.gateway.channel import Channel, Slot
    from actors.gateway.core import GatewayCore, HeldLease

INSTANCE_CHARS_MAX = 191


class Router(Operations):
    """The operations of SSAP."""

    _core: GatewayCore

    def __init__(self, core: GatewayCore) -> None:
        super().__init__(core)
        self._handlers |= {
            ops.Join: self._join,
            ops.Leave: self._leave,
            ops.Subscribe: self._subscribe,
            ops.Unsubscribe: self._unsubscribe,
            ops.Config: self._config,
            ops.DeviceReport: self._report,
            ops.SubscribeCommand: self._subscribe_command,
            ops.Command: self._command,
            ops.Unsupported: self._unsupported,
        }

    # ------------------------------------------------------------------ entrances

    def start_insert(self, slot: Slot, request: Request, channel: Channel) -> bool:
        """Send a plain INSERT on its way at once; False if it needs more than that (a lease, a statement, a refusal)."""
        operation: Any = request.operation
        return operation.query is None and self.start_instance(slot, operation.data, channel)

    def start_instance(self, slot: Slot, data: str | bytes, channel: Channel) -> bool:
        """The same, of an instance; the slot's request says whose, and of what ontology."""
        core, request = self._core, slot.request
        key, ontology = request.session_key, request.ontology
        lease = core.leases.get(key) if key is not None else None
        if lease is None or ontology is None or ontology not in lease.insertable:
            return False
        now_s = time.time()
        if lease.is_expired(now_s):
            return False
        slot.data = data.encode() if data.__class__ is str else data  # type: ignore[assignment]
        slot.session_key, slot.ontology, slot.lease = lease.key, ontology, lease
        lease.used_at_s = now_s
        if channel.is_open:
            lease.channel = channel
        if not request.dialect_told:
            request.dialect = lease.dialect
        core.partition_of(ontology).window.add(slot)
        return True

    async def execute_in_channel(self, request: Request, channel: Channel, slot: Slot) -> Answer:
        """As :meth:`execute`, but StoreUnavailableError is raised: a channel may have to stay silent then."""
        return await self._execute(request, Origin(channel.kind, channel.peer, channel, slot=slot))

    # ------------------------------------------------------------------ sessions

    async def _join(self, request: Request, join: ops.Join, origin: Origin) -> Answer:
        if not join.kp or not join.instance_name:
            raise AuthenticationError("instance must be KP:instance, for example KPTestTemperatura:KPTestTemperatura01")
        if len(join.instance_name) > INSTANCE_CHARS_MAX:
            raise AuthenticationError(f"the KP instance has more than {INSTANCE_CHARS_MAX} characters: shorten it")
        asked = JoinRequest(
            join.kp,
            join.instance_name,
            join.token,
            await self._core.prove(join) if join.token is None else None,
            int(request.dialect),
            origin.is_ciphered,
            _client(origin),
            origin.peer,
            request.session_key or None,
        )
        granted = await self._core.sessions.request(request.session_key or str(uuid.uuid4()), "join", asked)
        if isinstance(granted, JoinRefused):
            if granted.delay_s:
                await asyncio.sleep(granted.delay_s)
            raise granted.error
        self._core.hold(granted, origin.connection)
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
        if lease is None or lease.is_expired(now_s) or (origin.connection is not None and not lease.is_here):
            client = _client(origin)
            lease = core.hold(await core.sessions.request(key, "lease", key, client), origin.connection)
        if lease.is_cipher_only and not origin.is_ciphered:
            raise AuthenticationError(f"the KP {lease.kp!r} takes ciphered messages only: encipher them with its key")
        lease.used_at_s = now_s
        if origin.connection is not None:
            lease.channel = origin.connection
        if not request.dialect_told:
            request.dialect = lease.dialect
        return lease

    # ------------------------------------------------------------------ subscriptions

    async def _subscribe(self, request: Request, subscribe: ops.Subscribe, origin: Origin) -> Answer:
        core = self._core
        lease = await self.lease(request, origin)
        if subscribe.query_type is QueryType.CEP:
            ontology = self._output(subscribe.query, lease)
            condition: dict[str, Any] = {}
        else:
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
            core.name if origin.endpoint is not None else "",
        )
        # Known here before the partition knows it, but not announced: an early INDICATION waits for the answer.
        client = _client(origin)
        core.notifier.add(
            core.local_subscription(record, lease.cipher_key, client=client or "", is_announced=origin.slot is None)
        )
        try:
            await core.sessions.request(lease.key, "subscribe", record, client)
            await core.register(record, condition)
        except SibError:
            core.withdraw(record.session_key, record.subscription_id)
            raise
        if origin.slot is not None:
            origin.slot.then = subscription_id
        return Answer(Text(subscription_id))

    def _output(self, name: str, lease: HeldLease) -> str:
        """What a subscription to the outputs of CEP rules is kept under.

        Raises:
            NotConfiguredError: the module script is off. NotFoundError: no rule puts out anything of this name.
            AuthorizationError: the user neither owns such a rule nor may QUERY what it reads.
        """
        core, output = self._core, name.strip().casefold()
        if not core.has_cep:
            raise NotConfiguredError("CEP is not configured on this platform: its module script is off")
        if not core.has_output(output):
            raise NotFoundError(f"no active CEP rule has {name.strip()!r} in its Insert Into: check the name")
        if not lease.is_administrator and not core.may_hear(output, lease.user, lease.rights):
            raise AuthorizationError(f"the user may not QUERY the ontologies behind the CEP output {name.strip()!r}")
        return f"{CEP}{output}"

    async def _condition(self, subscribe: ops.Subscribe, ontology: str | None) -> tuple[str, dict[str, Any]]:
        if is_empty(subscribe.query) and subscribe.query_type is not QueryType.SIB_DEFINED:
            return named(ontology), {}
        plan = await read_text(subscribe.query, self.plan_query, subscribe.query_type, subscribe.params, ontology)
        return plan.ontology, plans.condition_of(plan)

    async def _unsubscribe(self, request: Request, unsubscribe: ops.Unsubscribe, origin: Origin) -> Answer:
        lease = await self.lease(request, origin)
        id_ = unsubscribe.subscription_id
        ontology = await self._core.sessions.request(lease.key, "unsubscribe", lease.key, id_)
        if ontology is None:
            raise NotFoundError(f"this session has no subscription {id_!r}: send the id that the SUBSCRIBE answered")
        self._core.end_subscription(id_)
        return Answer(Text(""))

    # ------------------------------------------------------------------ devices

    async def _config(self, request: Request, config: ops.Config, origin: Origin) -> Answer:
        if not config.kp or not config.token:
            raise AuthenticationError("CONFIG needs kp, instanciaKp and token")
        found = await self._core.sessions.request(
            config.kp, "configure", config.kp, config.instance_name or "", config.token, origin.is_ciphered
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
        about = report.kind.value, report.kp, report.instance_name or "", report.token, report.fields
        await self._core.sessions.request(report.kp, "report", *about, origin.is_ciphered)
        return Answer(Text("OK"))

    async def _subscribe_command(self, request: Request, wish: ops.SubscribeCommand, origin: Origin) -> Answer:
        if not wish.kp or not wish.token:
            raise AuthenticationError("SUBSCRIBECOMMAND needs thinkp, thinkpInstance and token")
        holder = await self._core.sessions.request(wish.kp, "check", wish.kp, wish.token, origin.is_ciphered)
        commands = self._core.commands
        if origin.channel is not None and not origin.channel.is_open:
            raise LimitError("the connection has ended, and its SUBSCRIBECOMMAND with it")
        if (
            origin.channel is not None
            and commands.count(origin.channel) >= self._core.limits.commands_per_connection_max
        ):
            raise LimitError(f"a connection may have {self._core.limits.commands_per_connection_max} SUBSCRIBECOMMANDs")
        id_ = str(uuid.uuid4())
        # What it is told comes in cipher if it asked in cipher, as INDICATIONs do.
        cipher_key = origin.slot.cipher_key if origin.slot is not None else None
        if origin.endpoint is not None:
            await self._core.listeners.keep(id_, wish, request.dialect, origin.endpoint, holder)
        commands.add(id_, wish, request.dialect, origin.channel, origin.endpoint, holder=holder, cipher_key=cipher_key)
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


def _client(origin: Origin) -> str | None:
    """The client at the other end of the connection; None: there is none (any more), and no session is moved."""
    return None if origin.connection is None else origin.connection.client_id or ""
