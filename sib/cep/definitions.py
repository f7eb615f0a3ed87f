"""What is deployed of CEP: events and rules as the configuration has them, and the engine that they make together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sib.cep import Engine, Problem, Rule, check, compile_rules, parse_rules
from sib.cep.compiled import CompiledRule
from sib.cep.errors import CepSyntaxError
from sib.cep.events import EventDefinition, rule_of_boxes
from sib.cep.hops import Hops
from sib.cep.lanes import Timing
from sib.cep.language.checker import sources
from sib.cep.tables import Row
from sib.errors import SibError
from sib.ontology import Ontology

Refuse = Callable[["CepRule", Sequence[str], Sequence[str]], str | None]
"""Given a rule, the ontologies that it reads and those that it writes, why it may not run, or None."""
IDLE_MS = 2_000
"""A partition that is silent for so long follows the clock, unless a rule's ``@watermark`` says otherwise."""


@dataclass(frozen=True, slots=True)
class CepEvent:
    """A CEP event of the configuration. No ``attributes``: all fields of the ontology."""

    name: str
    owner: str
    ontology: str
    attributes: tuple[str, ...] = ()
    time_path: str = ""

    def definition(self, ontology: Ontology) -> EventDefinition:
        """The event, with the types that the ontology's schema gives its attributes.

        Raises:
            UnknownFieldError: the ontology has no such attribute.
        """
        paths = [ontology.resolve_column(path) for path in self.attributes or ontology.fields()]
        types = {path: ontology.type_of(path) for path in dict.fromkeys(paths)}
        time_path = ontology.resolve_column(self.time_path) if self.time_path else None
        return EventDefinition(self.name, self.ontology, types, time_path)


@dataclass(frozen=True, slots=True)
class CepRule:
    """A CEP rule of the configuration: the three boxes. ``version`` is counted by the BDC."""

    name: str
    owner: str
    from_box: str = field(repr=False)
    select_box: str = field(repr=False)
    insert_box: str = field(repr=False)
    active: bool = True
    version: int = field(default=1, compare=False)

    def text(self) -> str:
        """The rule in the language, its name in the first line."""
        text = rule_of_boxes(self.from_box, self.select_box, self.insert_box)
        head = self.from_box.lstrip()
        if head.startswith("@") or head.casefold().startswith("partition"):  # annotations stand before the from
            text = text.removeprefix("from ")
        return f"@name('{_quoted(self.name)}')\n{text}"

    def parse(self) -> Rule:
        """The parsed rule.

        Raises:
            CepSyntaxError: with lines and columns of :meth:`text`. ValueError: the boxes hold several rules.
        """
        rules = parse_rules(self.text())
        if len(rules) != 1:
            raise ValueError("the boxes of a rule hold one rule, without ';' between")
        return rules[0]


def problems_of(rule: CepRule, streams: Mapping[str, Mapping[str, str | None]] | None = None) -> list[str]:
    """What is wrong with a rule, in sentences; ``streams`` (all there are) make unknown names a problem, too."""
    try:
        return [_said(problem) for problem in check([rule.parse()], streams, None)]
    except CepSyntaxError as error:
        return [_said(problem) for problem in error.problems]
    except ValueError as error:
        return [str(error)]


def misread(rule: Rule, events: Mapping[str, EventDefinition]) -> list[str]:
    """What a rule reads of CEP events that they do not have, or not of such a type, in sentences.

    ``events`` by stream in lower case; of other streams (outputs of rules, tables) nothing is known.
    """
    read = streams_of(rule)
    streams = {name: events[name].types() for name in read if name in events}
    others = dict.fromkeys(name for name in read if name not in events)
    return [_said(problem) for problem in check([rule], streams, others)]


def circle_of(name: str, rules: Iterable[CepRule]) -> list[str]:
    """The rules through which a rule reads its own outputs, from it to itself; empty if it does not.

    Rules that cannot be read do not count.
    """
    parsed: dict[str, Rule] = {}
    for rule in rules:
        try:
            parsed[rule.name] = rule.parse()
        except (CepSyntaxError, ValueError):
            continue
    makers = _makers(parsed)
    reader_of: dict[str, str] = {}
    waiting = [name] if name in parsed else []
    while waiting:
        reader = waiting.pop(0)
        for maker in (
            maker for source, _ in sources(parsed[reader]) for maker in makers.get(source.name.casefold(), ())
        ):
            if maker not in reader_of:
                reader_of[maker] = reader
                waiting.append(maker)
    if name not in reader_of:
        return []
    circle = [name, reader_of[name]]
    while circle[-1] != name:
        circle.append(reader_of[circle[-1]])
    return circle


def _said(problem: Problem) -> str:
    return f"{problem.position.line - 1}:{problem.position.column}: {problem.message}"


def _quoted(name: str) -> str:
    return name.replace("\\", "\\\\").replace("'", "\\'")


@dataclass
class Deployment:
    """An engine with all rules that work, and where their events come from."""

    engine: Engine
    events: dict[str, list[EventDefinition]]
    """By ontology."""
    rules: dict[str, CepRule]
    """By name: those that run."""
    broken: dict[str, str]
    """By name: why a rule does not run."""
    tables: list[str] = field(default_factory=list)
    """The ontologies that are read as tables."""
    fresh: list[str] = field(default_factory=list)
    """Rules that start empty."""
    sources: Any = None
    """What it was made of, to see whether anything changed."""
    hops: Hops = field(default_factory=lambda: Hops(()))
    origins: dict[str, str] = field(default_factory=dict)
    """By name of a rule: the ontology of the first event in its From box, or in that of the rule whose outputs it reads."""


def deploy(
    rules: Iterable[CepRule],
    events: Iterable[CepEvent],
    *,
    ontology: Callable[[str], Ontology],
    ontologies: Iterable[str],
    refuse: Refuse,
    rows: Callable[[str], list[Row]] = lambda _: [],
    snapshot: Mapping[str, Any] | None = None,
) -> Deployment:
    """Compile what can run; a rule that cannot is left out with its reason and does not stop the others.

    Args:
        rules: the active ones.
        events: all there are.
        ontology: a compiled ontology; raises SibError.
        ontologies: names of all ontologies: what rules name and is no event may be one of them, as a table.
        refuse: given a rule, the ontologies that it reads (also through other rules) and those that it writes or stands in
            for, why it may not run (rights), or None.
        rows: of a table (an ontology) to begin with.
        snapshot: the state to go on from.
    """
    deployment = Deployment(compile_rules(()), {}, {}, {})
    definitions: dict[str, EventDefinition] = {}
    unusable: dict[str, str] = {}
    for event in events:
        try:
            definition = event.definition(ontology(event.ontology))
        except SibError as error:
            deployment.broken[f"event {event.name}"] = error.message
            unusable[event.name.casefold()] = f"the event {event.name} cannot be used: {error.message}"
            continue
        definitions[definition.stream.casefold()] = definition
    parsed: dict[str, Rule] = {}
    for rule in rules:
        try:
            read_rule = rule.parse()
            problems = [unusable[stream] for stream in streams_of(read_rule) if stream in unusable]
            problems += misread(read_rule, definitions)
            if problems:
                deployment.broken[rule.name] = "; ".join(problems)
            else:
                parsed[rule.name], deployment.rules[rule.name] = read_rule, rule
        except CepSyntaxError as error:
            deployment.broken[rule.name] = "; ".join(map(_said, error.problems))
        except ValueError as error:
            deployment.broken[rule.name] = str(error)
    names = {name.casefold(): name for name in ontologies}
    _leave_out_refused(deployment, parsed, definitions, names, refuse)
    read = {stream for rule in parsed.values() for stream in streams_of(rule)}
    deployment.tables = sorted(names[stream] for stream in read - definitions.keys() if stream in names)
    _compile(deployment, parsed, {name: rows(name) for name in deployment.tables}, snapshot)
    read = {stream for rule in parsed.values() for stream in streams_of(rule)}
    for stream, definition in definitions.items():
        if stream in read:
            deployment.events.setdefault(definition.ontology, []).append(definition)
    ontologies_of = {stream: definition.ontology for stream, definition in definitions.items()}
    makers = {rule.target.casefold(): rule for rule in reversed(deployment.engine.rules)}
    deployment.origins = {str(rule.label): _origin(rule, ontologies_of, makers) for rule in deployment.engine.rules}
    return deployment


def _origin(rule: CompiledRule, ontologies: Mapping[str, str], makers: Mapping[str, CompiledRule]) -> str:
    for stream in map(str.casefold, rule.streams):
        if stream in ontologies:
            return ontologies[stream]
        if stream in makers and makers[stream] is not rule:
            return _origin(makers[stream], ontologies, makers)
    return ""


def _leave_out_refused(
    deployment: Deployment,
    parsed: dict[str, Rule],
    definitions: Mapping[str, EventDefinition],
    names: Mapping[str, str],
    refuse: Refuse,
) -> None:
    """What a rule does itself is judged first: one that may not run must not make others read or write through it."""
    while True:
        for is_deep in (False, True):
            makers = _makers(parsed)
            refused: dict[str, str] = {}
            for name, rule in parsed.items():
                unknown = set(streams_of(rule)) - definitions.keys() - names.keys() - makers.keys()
                target = rule.target.casefold()
                written = [definitions[target].ontology] if target in definitions else []
                written += [names[target]] if target in names else []
                read = _ontologies_read(name, parsed, makers if is_deep else {}, definitions, names)
                reason = (
                    f"there is no event, no output of a rule and no ontology {min(unknown)!r}"
                    if unknown
                    else refuse(deployment.rules[name], sorted(read), written)
                )
                if reason is not None:
                    refused[name] = reason
            if refused:
                break
        else:
            return
        deployment.broken.update(refused)
        for name in refused:
            del parsed[name], deployment.rules[name]


def _makers(parsed: Mapping[str, Rule]) -> dict[str, list[str]]:
    """The rules that put out each stream."""
    makers: dict[str, list[str]] = {}
    for name, rule in parsed.items():
        for stream in (rule.target.casefold(), f"{(rule.name or rule.target).casefold()}__late"):
            makers.setdefault(stream, []).append(name)
    return makers


def _ontologies_read(
    name: str,
    parsed: Mapping[str, Rule],
    makers: Mapping[str, Sequence[str]],
    definitions: Mapping[str, EventDefinition],
    names: Mapping[str, str],
) -> set[str]:
    """The ontologies that a rule reads, also through the outputs of others as far as ``makers`` names them."""
    seen, waiting, read = {name}, [name], set()
    while waiting:
        for stream in streams_of(parsed[waiting.pop()]):
            if stream in definitions:
                read.add(definitions[stream].ontology)
            elif stream in names:
                read.add(names[stream])
            new = set(makers.get(stream, ())) - seen
            seen |= new
            waiting += new
    return read


def _compile(
    deployment: Deployment, parsed: dict[str, Rule], tables: Mapping[str, list[Row]], snapshot: Mapping[str, Any] | None
) -> None:
    while True:
        versions = {name: rule.version for name, rule in deployment.rules.items()}
        try:
            engine = compile_rules(
                ";\n".join(deployment.rules[name].text() for name in parsed) if parsed else (),  # "" is no rule
                tables=tables,
                timing=Timing(idle_ms=IDLE_MS),
                versions=versions,
                snapshot=snapshot,
            )
            break
        except CepSyntaxError as error:
            guilty = _guilty(deployment, parsed, error)
            for name in guilty:
                deployment.broken[name] = "; ".join(map(_said, error.problems))
                del parsed[name], deployment.rules[name]
    if snapshot is not None:
        deployment.fresh = engine.restore(snapshot)
    deployment.engine, deployment.hops = engine, Hops(engine.rules)


def _guilty(deployment: Deployment, parsed: Mapping[str, Rule], error: CepSyntaxError) -> list[str]:
    """The rules in whose lines of the whole text the problems stand; all of them if that is none."""
    lines: list[str] = []
    for name in parsed:
        lines += [name] * (deployment.rules[name].text().count("\n") + 1)
    named = {lines[p.position.line - 1] for p in error.problems if 0 < p.position.line <= len(lines)}
    return [name for name in parsed if name in named] or list(parsed)


def streams_of(rule: Rule) -> list[str]:
    """The streams and tables that a rule reads, in lower case."""
    found: list[str] = []
    _collect((rule.input, rule.select), found)
    partition = rule.partition
    if partition is not None and partition.table is not None:
        found.append(partition.table.parts[0][0].casefold())
    return list(dict.fromkeys(found))


def _collect(node: Any, found: list[str]) -> None:
    """Every source below a node of the tree, and the tables of ``in TABLE``."""
    from sib.cep.language import ast

    if isinstance(node, ast.Source):
        found.append(node.name.casefold())
    if isinstance(node, ast.InTable):
        found.append(node.table.casefold())
    if hasattr(node, "__dataclass_fields__"):
        for name in node.__dataclass_fields__:
            _collect(getattr(node, name), found)
    elif isinstance(node, (list, tuple)):
        for item in node:
            _collect(item, found)
