"""Carries out what a script asked for, with the rights of the rule's owner and within its quotas.

Idempotent by the execution's key: inserts have ids that are made from it; what leaves no trace where it goes to (mail, HTTP,
changes of instances) is recorded in the BDC when it is done, and values and calls of other rules are kept in one transaction
with their record. So of an effect that was under way when the process died, only mail, HTTP, update and delete may happen twice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeAlias

import orjson
from bson import json_util

from actors.inside import Inside, Principal
from actors.rules.fetch import Fetcher
from actors.rules.mail import MailServer
from sib.access import Role
from sib.errors import (
    AuthenticationError,
    AuthorizationError,
    LimitError,
    MalformedMessageError,
    NotFoundError,
    SibError,
)
from sib.rules.effects import Effect
from sib.rules.guards import Quota
from sib.rules.rule import Rule, RuleType
from sib.rules.trigger import Trigger, effect_id, effect_key, made_by
from sib.ssap.messages import QueryType
from storage.bdc.bdc import Bdc
from storage.bdc.records import LogRecord
from storage.bdc.rules import VALUES_MAX, QueuedRun

TOKEN_KNOWN_S = 5.0
"""A token that a script shows is looked up again after this."""
TOKENS_KNOWN_MAX = 1000

Run: TypeAlias = tuple[Trigger, Sequence[Effect]]
Insert: TypeAlias = Awaitable[Any]
"""One that was sent: ends when it is durable."""


@dataclass
class Tools:
    """What all rules of an actor share."""

    inside: Inside
    bdc: Bdc
    fetch: Fetcher
    mail: Callable[[], MailServer]
    now: Callable[[], datetime]
    queued: Callable[[], None]
    """Tells that the queue has something that is due."""


class Carrier:
    """The effects and calls of one rule."""

    def __init__(self, rule: Rule, tools: Tools, quota: Quota) -> None:
        self._rule, self._tools, self._quota = rule, tools, quota
        self._tokens: dict[tuple[str, str], float] = {}
        self._values: dict[str, Any] | None = None
        self.trigger: Trigger | None = None
        """The run at work, or the first of the batch: whose calls these are."""

    # Calls: made while the block runs.

    async def call(self, method: str, payload: Any) -> Any:
        """What a script asks and waits for.

        Raises:
            SibError: it is refused or failed.
        """
        handler = {"query": self._query, "http": self._http, "kv.get": self._value}.get(method)
        if handler is None or not isinstance(payload, dict):
            raise MalformedMessageError(f"scripts cannot call {method[:40]!r}")
        return await handler(payload)

    async def _query(self, asked: dict[str, Any]) -> str:
        self._quota.take("queries", time.monotonic())
        text, ontology, params = asked.get("query"), asked.get("ontology"), asked.get("params")
        if not isinstance(text, str) or not isinstance(ontology, str | None) or not isinstance(params, dict | None):
            raise MalformedMessageError("a query is a text, with an ontology if it is none of SQL")
        found = await self._tools.inside.query(
            self._principal(0),
            text,
            query_type=query_type(asked.get("type")),
            ontology=ontology,
            params=params and {str(key): str(value) for key, value in params.items()},
        )
        return str(json_util.dumps(found, json_options=json_util.RELAXED_JSON_OPTIONS))

    async def _http(self, asked: dict[str, Any]) -> dict[str, Any]:
        self._quota.take("http", time.monotonic())
        method, url, headers, body = (asked.get(name) for name in ("method", "url", "headers", "body"))
        is_sound = isinstance(method, str) and isinstance(url, str) and isinstance(body, str | None)
        if not is_sound or not isinstance(headers, dict | None):
            raise MalformedMessageError("an HTTP request has a method, a URL, and perhaps headers and a body")
        names = {str(name): str(value) for name, value in (headers or {}).items()}
        return await self._tools.fetch(str(method), str(url), names, body)

    async def _value(self, asked: dict[str, Any]) -> str | None:
        values = await self._all_values()
        found = values.get(str(asked.get("key")))
        return None if found is None else str(found)

    async def _all_values(self) -> dict[str, Any]:
        if self._values is None:
            self._values = await asyncio.to_thread(self._tools.bdc.rules.values, self._rule.name)
        return self._values

    # Effects: when the block has ended well.

    async def carry_out(self, trigger: Trigger, effects: Sequence[Effect]) -> None:
        """Carry out all effects of a run, in order. May be called again with the same until it returns.

        Raises:
            SibError: the first that was refused or failed; those before it are done.
        """
        if not any(effect.is_recorded for effect in effects):
            (error,) = await self.carry_out_together([(trigger, effects)])
            if error is not None:
                raise error
            return
        self._count(effects)
        key = trigger.key
        done = await asyncio.to_thread(self._tools.bdc.rules.done, key)
        kept = [effect for effect in effects if effect.kind in ("kv_put", "kv_delete", "schedule")]
        for effect in effects:
            if effect.kind == "insert":
                await (await self._insert(trigger, effect))
            elif effect.kind in _DIRECT and effect.number not in done:
                await _DIRECT[effect.kind](self, trigger, effect)
                await asyncio.to_thread(self._tools.bdc.rules.record, key, [effect.number], self._tools.now())
        if kept and not {effect.number for effect in kept} <= done:
            await self._keep(trigger, key, kept)
        await self._log([(trigger, effects)])

    async def carry_out_together(self, runs: Sequence[Run]) -> list[SibError | None]:
        """Carry out runs that have no recorded effects, in few commits; what each failed over, as ``carry_out`` would raise it.

        All inserts are sent before the first is waited for: one that is refused does not keep those of other runs back.
        """
        begun = [await self._begin(*run) for run in runs]
        errors = [await _first_error(inserts, error) for inserts, error in begun]
        done = [run for run, error in zip(runs, errors, strict=True) if error is None]
        if await self._log_error(done) is None:
            return errors
        return [error or await self._log_error([run]) for run, error in zip(runs, errors, strict=True)]

    async def _begin(self, trigger: Trigger, effects: Sequence[Effect]) -> tuple[list[Insert], SibError | None]:
        """Send the inserts of a run; at the first that is refused at once it ends."""
        begun: list[Insert] = []
        try:
            self._count(effects)
            for effect in (effect for effect in effects if effect.kind == "insert"):
                begun.append(await self._insert(trigger, effect))  # noqa: PERF401 - what was begun before a refusal counts
        except SibError as error:
            return begun, error
        return begun, None

    def _count(self, effects: Sequence[Effect]) -> None:
        now_s = time.monotonic()
        for kind, kinds in (("writes", ("insert", "update", "delete")), ("mails", ("mail",)), ("http", ("http",))):
            count = sum(effect.kind in kinds for effect in effects)
            if count:
                self._quota.take(kind, now_s, count)

    async def _insert(self, trigger: Trigger, effect: Effect) -> Insert:
        """Send an insert; await what this gives."""
        fields = effect.fields
        who = self._principal(trigger.hops + 1)
        if fields["kp"]:
            await self._check_token(fields["kp"], fields["token"])
            who = self._principal(trigger.hops + 1, fields["kp"], fields["kp_instance"] or "")
        once = effect_id(trigger, effect.number)
        return await self._tools.inside.begin_insert(who, fields["ontology"], fields["instance"], once=once)

    async def _update(self, trigger: Trigger, effect: Effect) -> None:
        fields = effect.fields
        await self._tools.inside.update(
            self._principal(trigger.hops + 1),
            fields["query"],
            ontology=fields["ontology"],
            data=fields["data"],
            query_type=query_type(fields["type"]),
        )

    async def _delete(self, trigger: Trigger, effect: Effect) -> None:
        fields = effect.fields
        await self._tools.inside.delete(
            self._principal(trigger.hops + 1),
            fields["query"],
            ontology=fields["ontology"],
            query_type=query_type(fields["type"]),
        )

    async def _mail(self, trigger: Trigger, effect: Effect) -> None:
        fields = effect.fields
        message_id = str(effect_id(trigger, effect.number))
        await self._tools.mail().send(fields["to"], fields["subject"], fields["body"], message_id=message_id)

    async def _request(self, trigger: Trigger, effect: Effect) -> None:
        fields = effect.fields
        await self._tools.fetch(fields["method"], fields["url"], fields["headers"], fields["body"])

    async def _keep(self, trigger: Trigger, key: str, effects: Sequence[Effect]) -> None:
        """Values and calls of other rules, in one transaction with the record that they are done."""
        values = dict(await self._all_values())
        puts: dict[str, Any] = {}
        deletes: set[str] = set()
        queued: list[QueuedRun] = []
        for effect in effects:
            if effect.kind == "schedule":
                queued.append(await self._queued(trigger, key, effect))
                continue
            name = effect.fields["key"]
            values.pop(name, None)
            puts.pop(name, None)
            deletes.add(name)
            if effect.kind == "kv_put":
                values[name] = puts[name] = effect.fields["value"]
        if len(values) > VALUES_MAX:
            raise LimitError(f"a rule keeps at most {VALUES_MAX} values")
        record, numbers = self._tools.bdc.rules.record, [effect.number for effect in effects]
        now = self._tools.now()
        await asyncio.to_thread(
            record, key, numbers, now, rule=self._rule.name, puts=puts, deletes=deletes, queued=queued
        )
        self._values = values
        if queued:
            self._tools.queued()

    async def _queued(self, trigger: Trigger, key: str, effect: Effect) -> QueuedRun:
        name = effect.fields["rule"]
        due = self._tools.now() + timedelta(seconds=effect.fields["in_s"])
        target = await asyncio.to_thread(self._target, name)
        data = effect.fields["data"]
        content: dict[str, Any] = {"data": orjson.loads(data)}
        if target.type is RuleType.ONTOLOGY:
            content["ontology"] = data
        elif target.type is RuleType.CEP:
            content["cepData"] = data
        source = f"run:{effect_key(key, effect.number)}"
        run = Trigger(name, source, trigger.moment_s, content, trigger.lane, trigger.hops + 1, branch="then")
        return QueuedRun(run.key, name, due, run.to_json())

    def _target(self, name: str) -> Rule:
        with self._tools.bdc.read() as configuration:
            rule = configuration.rules.get(name)
            owner = configuration.users.get(self._rule.owner)
        is_administrator = owner is not None and owner.role is Role.ADMINISTRADOR
        if rule is None:
            raise NotFoundError(f"there is no rule {name!r} to be run")
        if rule.owner != self._rule.owner and not is_administrator:
            raise AuthorizationError(f"the rule {name!r} belongs to somebody else")
        return rule

    async def _log(self, runs: Sequence[Run]) -> None:
        rule = self._rule
        lines = [
            LogRecord(
                "LOG",
                self._tools.now(),
                effect.fields["text"],
                user=rule.owner,
                details={"rule": rule.name, "level": effect.fields["level"], "execution": trigger.key},
            )
            for trigger, effects in runs
            for effect in effects
            if effect.kind == "log"
        ]
        if lines:
            await asyncio.to_thread(self._tools.bdc.log, lines)

    async def _log_error(self, runs: Sequence[Run]) -> SibError | None:
        try:
            await self._log(runs)
        except SibError as error:
            return error
        return None

    def _principal(self, hops: int, kp: str = "", instance: str = "") -> Principal:
        return Principal(self._rule.owner, kp, instance, made_by(self._rule.name, hops))

    async def _check_token(self, kp: str, token: str | None) -> None:
        now_s = time.monotonic()
        known = (kp, token or "")
        if now_s - self._tokens.get(known, float("-inf")) < TOKEN_KNOWN_S:
            return
        if not token:
            raise AuthenticationError(f"an instance in the name of the KP {kp!r} needs a token of it")
        await asyncio.to_thread(self._tools.bdc.identify, kp, token)
        if len(self._tokens) >= TOKENS_KNOWN_MAX:
            self._tokens.clear()
        self._tokens[known] = now_s


_DIRECT = {"update": Carrier._update, "delete": Carrier._delete, "mail": Carrier._mail, "http": Carrier._request}


class Rehearsal(Carrier):
    """A run without effects: queries and values are read, nothing is sent or written."""

    async def _http(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"status": 0, "headers": {}, "body": ""}

    async def carry_out(self, trigger: Trigger, effects: Sequence[Effect]) -> None:
        """Nothing."""


async def _first_error(inserts: Sequence[Insert], later: SibError | None) -> SibError | None:
    """Wait until all of a run are decided; the first refusal, else what came after them."""
    first: SibError | None = None
    for insert in inserts:
        try:
            await insert
        except SibError as error:
            first = first or error
    return first or later


def query_type(text: object) -> QueryType:
    """What a script calls the type of a query.

    Raises:
        MalformedMessageError: there is no such type.
    """
    try:
        return QueryType(str(text or "SQLLIKE").upper())
    except ValueError:
        raise MalformedMessageError(f"there is no query type {str(text)[:40]!r}") from None


def describe(effect: Effect) -> dict[str, Any]:
    """An effect for people."""
    return {"kind": effect.kind, **{name: value for name, value in effect.fields.items() if value is not None}}
