"""The configuration inside one transaction: repositories by name over one connection."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, insert, select, update

from sib.errors import LimitError, NotFoundError
from storage.bdc.activity import log_row
from storage.bdc.models import Base, ConfigCounter, Kp, Ontology, ProcessLog, User
from storage.bdc.records import LogRecord

if TYPE_CHECKING:
    from storage.bdc.cep import CepEventRepository, CepRuleRepository
    from storage.bdc.definitions import AssetRepository, QueryRepository, SettingRepository, TemplateRepository
    from storage.bdc.deployments import DeploymentRepository
    from storage.bdc.kps import InstanceRepository, KpRepository, TokenRepository
    from storage.bdc.ontologies import OntologyRepository
    from storage.bdc.processes import ProcessRepository
    from storage.bdc.rules import RuleRepository
    from storage.bdc.users import UserRepository


class Configuration:
    """Users, ontologies, KPs and the rest, as one transaction sees and changes them.

    Given by ``Bdc.read()`` (nothing is kept) and ``Bdc.change()`` (everything is kept together, and the configuration
    version is counted up if anything changed). Not to be used after its block.
    """

    def __init__(self, connection: Connection, now: Callable[[], datetime]) -> None:
        from storage.bdc import definitions, deployments, kps, ontologies, processes, rules, users

        self.connection = connection
        self.now = now
        self.is_changed = False
        self.users: UserRepository = users.UserRepository(self)
        self.templates: TemplateRepository = definitions.TemplateRepository(self)
        self.ontologies: OntologyRepository = ontologies.OntologyRepository(self)
        self.kps: KpRepository = kps.KpRepository(self)
        self.tokens: TokenRepository = kps.TokenRepository(self)
        self.instances: InstanceRepository = kps.InstanceRepository(self)
        self.queries: QueryRepository = definitions.QueryRepository(self)
        self.assets: AssetRepository = definitions.AssetRepository(self)
        self.settings: SettingRepository = definitions.SettingRepository(self)
        self.deployments: DeploymentRepository = deployments.DeploymentRepository(self)
        self.rules: RuleRepository = rules.RuleRepository(self)
        self.processes: ProcessRepository = processes.ProcessRepository(self)

    # Apart: the language of CEP rules takes long to load, and most processes have nothing to do with it.

    @cached_property
    def cep_events(self) -> CepEventRepository:
        from storage.bdc.cep import CepEventRepository

        return CepEventRepository(self)

    @cached_property
    def cep_rules(self) -> CepRuleRepository:
        from storage.bdc.cep import CepRuleRepository

        return CepRuleRepository(self)

    def version(self) -> int:
        """The number of the configuration before this transaction's own changes."""
        return int(self.connection.execute(select(ConfigCounter.version)).scalar_one())

    def finish(self) -> None:
        """Count the version up if anything changed; the owner of the transaction calls it before the commit."""
        if self.is_changed:
            self.connection.execute(update(ConfigCounter).values(version=ConfigCounter.version + 1))

    def audit(self, summary: str, *, user: str = "", details: Any = None) -> None:
        """Note in the process log who changed what, in the same transaction. Never pass a secret."""
        row = log_row(LogRecord("AUDIT", self.now(), summary, user=user, details=details))
        self.connection.execute(insert(ProcessLog).values(row))

    # What repositories share.

    def store(self, table: type[Base], key: Mapping[str, Any], values: Mapping[str, Any], *, is_new: bool) -> None:
        """Insert or update the one row that ``key`` (columns and values) names.

        Raises:
            LimitError: a text is longer than its column, or the name is empty.
        """
        if "" in key.values():
            raise LimitError("A name has at least one character.")
        _check_lengths(table, {**key, **values})
        self.is_changed = True
        if is_new:
            self.connection.execute(insert(table).values(**key, **values))
        else:
            self.connection.execute(update(table).filter_by(**key).values(**values))

    def user_id(self, name: str) -> int:
        return self._id_of(User, name, "user")

    def ontology_id(self, name: str) -> int:
        return self._id_of(Ontology, name, "ontology")

    def kp_id(self, name: str) -> int:
        return self._id_of(Kp, name, "KP")

    def _id_of(self, table: type[User] | type[Ontology] | type[Kp], name: str, kind: str) -> int:
        found = self.connection.execute(select(table.id).where(table.name == name)).scalar()
        if found is None:
            raise NotFoundError(f"There is no {kind} {name!r} (names are case-sensitive).")
        return int(found)


def _check_lengths(table: type[Base], values: Mapping[str, Any]) -> None:
    # SQLite takes texts of any length; what it took would not fit into another database.
    for name, value in values.items():
        chars_max = getattr(table.__table__.columns[name].type, "length", None)
        if isinstance(value, str) and chars_max is not None and len(value) > chars_max:
            raise LimitError(f"{name.replace('_', ' ').capitalize()} may have at most {chars_max} characters.")
