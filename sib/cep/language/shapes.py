"""Checks of the shape of a rule's input: what may stand where in a chain, an absence or a join."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sib.cep.language import ast

STEPS_MAX = 30
"""Atoms in one pattern."""

COUNT_MAX = 1_000
"""Bound of the numbers in ``a<n:m>``."""

Report = Callable[[ast.Position, str], None]


def check_input(rule: ast.Rule, report: Report) -> str:
    """Report what cannot be; the kind of the rule: join, stream, absence or pattern."""
    if isinstance(rule.input, ast.JoinInput):
        return "join"
    atoms = list(_atoms(rule.input.chain))
    if len(atoms) > STEPS_MAX:
        report(rule.position, f"a pattern has at most {STEPS_MAX} steps")
    _check_chain(rule.input.chain, report)
    for atom in atoms:
        if isinstance(atom, ast.AbsentAtom):
            _check_absence(atom, report)
        else:
            _check_count(atom, report)
    if len(atoms) == 1:
        if isinstance(atoms[0], ast.AbsentAtom):
            if rule.input.within_ms is not None:
                report(atoms[0].position, "an absence has its 'for', it takes no 'within'")
            return "absence"
        if (atoms[0].count_min, atoms[0].count_max) == (1, 1):
            _check_plain(rule, rule.input, report)
            return "stream"
    _check_first(rule.input.chain, report)
    if rule.partition is not None and rule.partition.table is not None:
        report(rule.partition.table.position, "'in TABLE' belongs to an absence: not X for t partition by k in TABLE.k")
    return "pattern"


def _check_plain(rule: ast.Rule, rule_input: ast.PatternInput, report: Report) -> None:
    step = rule_input.chain.steps[0]
    if rule_input.within_ms is not None or isinstance(step.atoms[0], ast.GroupAtom):
        report(step.position, "one event alone is no pattern: leave out 'within' and the brackets")
    if rule.partition is not None and rule.partition.table is not None:
        report(rule.partition.table.position, "'in TABLE' belongs to an absence: not X for t partition by k in TABLE.k")


def _check_absence(atom: ast.AbsentAtom, report: Report) -> None:
    if atom.duration_ms is None:
        report(atom.position, "'not' needs its time: not X for 10 min")
    elif atom.duration_ms <= 0:
        report(atom.position, "the time of an absence must be above 0")


def _check_count(atom: ast.EventAtom, report: Report) -> None:
    most = atom.count_max
    if (most is not None and (most < max(1, atom.count_min) or most > COUNT_MAX)) or atom.count_min > COUNT_MAX:
        report(atom.position, f"a count goes from 0 to {COUNT_MAX}, and its second number is not below the first")


def _check_chain(chain: ast.Chain, report: Report) -> None:
    for step in chain.steps:
        if len(set(step.operators)) > 1:
            report(step.position, "join the events of a step by 'and' or by 'or', not by both")
        if len(step.atoms) > 1:
            for atom in step.atoms:
                _check_part_of_logic(atom, report)
        for atom in step.atoms:
            if isinstance(atom, ast.GroupAtom):
                _check_chain(atom.chain, report)


def _check_part_of_logic(atom: ast.Atom, report: Report) -> None:
    if isinstance(atom, ast.EventAtom) and (atom.count_min, atom.count_max) != (1, 1):
        report(atom.position, "an event beside 'and' or 'or' takes no count")
    if isinstance(atom, ast.GroupAtom):
        inner = list(_atoms(atom.chain))
        if len(inner) > 1 or atom.within_ms is not None:
            report(atom.position, "only single events may be joined by 'and' or 'or'")


def _check_first(chain: ast.Chain, report: Report) -> None:
    first = chain.steps[0]
    while isinstance(first.atoms[0], ast.GroupAtom) and len(first.atoms) == 1:
        first = first.atoms[0].chain.steps[0]
    for atom in first.atoms:
        if isinstance(atom, ast.AbsentAtom):
            report(atom.position, "a pattern begins with an event: put the absence behind one, or in a rule of its own")
        elif isinstance(atom, ast.EventAtom) and atom.count_min == 0:
            report(atom.position, "the first event of a pattern cannot be optional")


def _atoms(chain: ast.Chain) -> Iterator[ast.EventAtom | ast.AbsentAtom]:
    for step in chain.steps:
        for atom in step.atoms:
            if isinstance(atom, ast.GroupAtom):
                yield from _atoms(atom.chain)
            else:
                yield atom
