"""Native queries (shell statements and bare criteria) to plans.

Source: Sofia2 clients and manuals for the forms; the Mongo shell for what each method and option means.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from sib.errors import QuerySyntaxError
from sib.query import shell_reads, shell_writes
from sib.query.arguments import criterion
from sib.query.constructors import Clock
from sib.query.parameters import Parameters
from sib.query.plan import Aggregate, Delete, Find, Plan, Update
from sib.query.relaxed import parse_relaxed
from sib.query.shell import Statement, is_statement, parse_statement

SQL_WORDS = ("select", "insert", "update", "delete")
"""What a statement of SQL begins with."""
_WORD = re.compile(r"[\s(]*([^\W\d]\w*)")
_PLANNERS: dict[str, Callable[[Statement], Plan]] = {**shell_reads.PLANNERS, **shell_writes.PLANNERS}


def plan_native(
    text: str, *, ontology: str | None, now: Clock | None = None, parameters: Parameters | None = None
) -> Plan:
    """The plan of a native text: a statement, a criterion alone, or nothing ("" and {}: every instance).

    Args:
        text: the query. A statement's own ontology counts, not the argument.
        ontology: the ontology that the message names, for criteria alone.
        now: the clock (naive UTC) for ``new Date()``; without it such a text is refused.
        parameters: typed values for ``{$name}`` (see ``bind_parameters``).

    Raises:
        QuerySyntaxError: the text cannot be read, or uses something that is refused; the sentence says what.
    """
    if is_statement(text):
        plan = plan_statement(parse_statement(text, now=now, parameters=parameters))
        _refuse_paths(plan, text, parameters)
        return plan
    if is_empty(text):
        return Find(_named(ontology))
    _refuse_words(text)
    plan = Find(_named(ontology), criterion(parse_relaxed(text, now=now, parameters=parameters)))
    _refuse_paths(plan, text, parameters)
    return plan


def plan_statement(statement: Statement) -> Plan:
    """The plan of a parsed statement of the shell."""
    name = statement.calls[0].name
    planner = _PLANNERS.get(name)
    if planner is None:
        raise QuerySyntaxError(f"{name}() is not accepted here; the methods are {', '.join(sorted(_PLANNERS))}.")
    return planner(statement)


def plan_delete(text: str, *, ontology: str | None, now: Clock | None = None) -> Plan:
    """The plan of a native DELETE: all instances that match the criterion, or what the statement says.

    Raises:
        QuerySyntaxError: the text cannot be read, or there is no condition ("" and {} are refused here).
    """
    plan = None if is_empty(text) else plan_native(text, ontology=ontology, now=now)
    if isinstance(plan, Find):
        plan = Delete(plan.ontology, plan.filter, multi=True) if plan.filter else None
    if plan is None:
        raise QuerySyntaxError(
            "A DELETE needs a condition; to remove every instance send db.ONTOLOGY.remove({}) as the query."
        )
    return plan


def _refuse_words(text: str) -> None:
    """A criterion begins with a brace: what begins with a word was meant to be a statement."""
    begin = _WORD.match(text)
    if begin is None:
        return
    word = begin.group(1)
    if word.lower() in SQL_WORDS:
        raise QuerySyntaxError(f"What begins with {word} is SQL: send it as SQLLIKE, not as NATIVE.")
    *words, last = SQL_WORDS
    raise QuerySyntaxError(
        f"A query begins with db.ONTOLOGY.METHOD(...) or {{...}} (NATIVE), or with {', '.join(words)} or {last} (SQLLIKE), "
        f"not with {word[:40]!r}."
    )


def _refuse_paths(plan: Plan, text: str, parameters: Parameters | None) -> None:
    """A parameter that begins with ``$`` would be read as a field where the query has expressions."""
    has_expressions = (
        "$expr" in text
        or isinstance(plan, Aggregate)
        or (isinstance(plan, Update) and isinstance(plan.update, list))
        or getattr(plan, "projection", None) is not None
    )
    for name, value in (parameters or {}).items():
        if has_expressions and isinstance(value, str) and value.startswith("$"):
            raise QuerySyntaxError(f"The parameter {name} cannot begin with $ in a query that has expressions.")


def is_empty(text: str) -> bool:
    """Whether the text stands for no condition at all."""
    return text.strip().rstrip(";").strip() in ("", "{}", "null") or _bare(text) == "{}"


def _bare(text: str) -> str:
    return "".join(text.split()) if len(text) < 100 else ""


def _named(ontology: str | None) -> str:
    if not ontology:
        raise QuerySyntaxError(
            "A criterion alone needs the ontology field of the message, or write db.ONTOLOGY.find(...)."
        )
    return ontology
