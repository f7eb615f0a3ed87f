"""Which rules an instance makes run: by ontology, with children, and with the conditions that need no script."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

import bson
import orjson

from actors.feed import Event
from sib.errors import SibError
from sib.rules.condition import Condition, compile_condition
from sib.rules.rule import Rule, RuleType
from sib.rules.trigger import Trigger, hops_of
from sib.ssap.printing import print_one
from storage.bdc.records import OntologyRecord

_EPOCH = datetime(1970, 1, 1)


class Matcher:
    """The active rules of one runner, at one version of the configuration.

    Rules whose condition cannot be read (those of another version's making) are in ``broken``, with the reason.
    """

    def __init__(
        self,
        rules: Iterable[Rule],
        ontologies: Mapping[str, OntologyRecord],
        may_read: Callable[[str, str], bool] = lambda user, ontology: True,
    ) -> None:
        self.by_ontology: dict[str, list[tuple[Rule, Condition | None]]] = defaultdict(list)
        self.by_output: dict[str, list[tuple[Rule, Condition | None]]] = defaultdict(list)
        self.broken: dict[str, str] = {}
        children = _children(ontologies)
        for rule in rules:
            try:
                condition = compile_condition(rule.when) if rule.when else None
            except SibError as error:
                self.broken[rule.name] = error.message
                continue
            readable = (name for name in _ontologies_of(rule, children) if may_read(rule.owner, name))
            for ontology in readable:
                self.by_ontology[ontology].append((rule, condition))
            if rule.type is RuleType.CEP:
                self.by_output[rule.cep.casefold()].append((rule, condition))

    def triggers(self, event: Event) -> Iterator[Trigger]:
        """The runs that one changed instance asks for."""
        entries = self.by_ontology.get(event.ontology)
        if not entries:
            return
        document = event.document
        id_, context = document.get("_id"), document.get("contextData") or {}
        hops = hops_of(event.cause.by or context.get("session_key"))
        stamp = context.get("timestamp")
        ts_ms = int((stamp - _EPOCH).total_seconds() * 1000) if isinstance(stamp, datetime) else 0
        moment_s = int.from_bytes(id_.binary[:4], "big") if isinstance(id_, bson.ObjectId) else ts_ms // 1000
        text = None
        for rule, condition in entries:
            branch = branch_of(rule, condition, document, ts_ms)
            if branch is None:
                continue
            text = text or print_one(document).decode()
            yield Trigger(
                rule.name,
                f"{event.ontology}:{id_}:{event.seq}",
                moment_s,
                {"ontology": text},
                f"{context.get('kp', '')}:{context.get('kp_instancia', '')}",
                hops,
                event.seq & 0xFFFF,
                branch,
            )

    def of_output(
        self, stream: str, data: Mapping[str, Any], ts_ms: int, *, id_: object, ontology: str, hops: int
    ) -> Iterator[Trigger]:
        """The runs that one output of a CEP rule asks for; ``id_`` is the same when it comes again."""
        text = None
        for rule, condition in self.by_output.get(stream.casefold(), ()):
            branch = branch_of(rule, condition, data, ts_ms)
            if branch is None:
                continue
            value = {"Ontology": ontology, "Subscription": stream, "inEvents": data}
            text = text or orjson.dumps(value, default=str).decode()
            source = f"cep:{stream}:{id_}"
            yield Trigger(rule.name, source, ts_ms // 1000, {"cepData": text}, stream, hops, branch=branch)


def branch_of(rule: Rule, condition: Condition | None, attributes: Mapping[str, Any], ts_ms: int) -> str | None:
    """Where a run begins; None if there is nothing to run."""
    if condition is None:
        return "if"
    if condition(attributes, ts_ms):
        return "then"
    return "else" if rule.blocks.get("else") else None


def _ontologies_of(rule: Rule, children: Mapping[str, set[str]]) -> set[str]:
    found = set(rule.ontologies) if rule.type is RuleType.ONTOLOGY else set()
    if rule.children:
        waiting = list(found)
        while waiting:
            new = children.get(waiting.pop(), set()) - found
            found |= new
            waiting += new
    return found


def _children(ontologies: Mapping[str, OntologyRecord]) -> dict[str, set[str]]:
    children: dict[str, set[str]] = defaultdict(set)
    for record in ontologies.values():
        if record.parent:
            children[record.parent].add(record.name)
    return children
