"""Whether the owner of a script rule may read what makes it run: a script gets what triggered it, and may pass it on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from sib.access import Rights, may_hear
from sib.rules.rule import Rule, RuleType
from storage.bdc.records import OntologyRecord, UserRecord

Outputs = Mapping[str, Sequence[tuple[str, frozenset[str]]]]
"""By output of CEP rules, in lower case: the owner of each such rule and the ontologies that it reads."""


class Judge:
    """The rights of one version of the configuration."""

    def __init__(
        self, users: Mapping[str, UserRecord], ontologies: Mapping[str, OntologyRecord], outputs: Outputs
    ) -> None:
        self._users, self._ontologies, self._outputs = users, ontologies, outputs

    def may_read(self, user: str, ontology: str) -> bool:
        """Whether a user may QUERY an ontology."""
        record, known = self._ontologies.get(ontology), self._users.get(user)
        if record is None or known is None:
            return False
        return Rights.QUERY in record.rights(user, known.role)

    def refusal(self, rule: Rule) -> str | None:
        """Why a rule must not run, or None."""
        owner = self._users.get(rule.owner)
        if owner is None or not owner.active:
            return f"its owner {rule.owner!r} is not active"
        if rule.type is RuleType.ONTOLOGY:
            for name in rule.ontologies:
                if name in self._ontologies and not self.may_read(rule.owner, name):
                    return f"its owner {rule.owner!r} may not QUERY the ontology {name!r}"
        if rule.type is RuleType.CEP:
            makers = self._outputs.get(rule.cep.casefold(), ())
            if makers and not may_hear(makers, rule.owner, partial(self.may_read, rule.owner)):
                return f"its owner {rule.owner!r} may not QUERY what the CEP output {rule.cep!r} is made of"
        return None
