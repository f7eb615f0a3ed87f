"""The tables: migrations, portable names and types, and databases of other versions."""

import multiprocessing
import stat
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import JSON, Boolean, Column, Integer, MetaData, Table, column, select
from sqlalchemy.dialects.mysql.pymysql import MySQLDialect_pymysql
from sqlalchemy.dialects.mysql.reserved_words import RESERVED_WORDS_MARIADB, RESERVED_WORDS_MYSQL
from sqlalchemy.dialects.oracle.base import OracleDialect
from sqlalchemy.dialects.oracle.oracledb import OracleDialect_oracledb
from sqlalchemy.schema import CreateIndex, CreateTable

from sib.errors import ConfigurationError, StoreError
from storage.bdc import schema
from storage.bdc.all_models import metadata
from storage.bdc.bdc import open_bdc
from storage.bdc.engine import Database, make_engine
from storage.bdc.models import SCHEMA_REVISION, Template, User
from tests.contract.portability import VERSIONS, faults, oracle

NAME_CHARS_MAX = 30  # Oracle up to 12.1


def all_names():
    for table in metadata.sorted_tables:
        yield table.name
        yield from (column.name for column in table.columns)
        yield from (index.name for index in table.indexes)
        yield from (constraint.name for constraint in table.constraints if constraint.name)


def test_names_fit_every_database():
    oracle_reserved = {word.lower() for word in OracleDialect.preparer.reserved_words}
    reserved = oracle_reserved | RESERVED_WORDS_MYSQL | RESERVED_WORDS_MARIADB
    for name in all_names():
        assert len(name) <= NAME_CHARS_MAX, name
        assert name == name.lower()
        assert name not in reserved, name


def ddl(dialect):
    return {table.name: str(CreateTable(table).compile(dialect=dialect)) for table in metadata.sorted_tables}


def test_types_on_mysql_keep_case_length_and_microseconds():
    statements = ddl(MySQLDialect_pymysql())
    assert "name VARCHAR(191) COLLATE utf8mb4_bin NOT NULL" in statements["users"]
    assert "schema_text LONGTEXT" in statements["ontology_versions"]
    assert "payload LONGBLOB" in statements["mqtt_messages"]
    assert "created_at DATETIME(6)" in statements["users"]
    assert "is_active SMALLINT" in statements["users"]
    assert not any(" JSON" in statement or " BOOL" in statement for statement in statements.values())


@pytest.mark.parametrize("table", metadata.sorted_tables, ids=str)
def test_every_table_can_be_made_on_oracle(table):
    statements = [CreateTable(table), *(CreateIndex(index) for index in table.indexes)]
    assert [fault for statement in statements for fault in faults(statement)] == []


@pytest.mark.parametrize("version", VERSIONS, ids=str)
def test_types_on_oracle_do_not_depend_on_its_version(version):
    assert ddl(oracle(version)) == ddl(OracleDialect_oracledb())


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        (select(column("a", Boolean()).is_(True)), "IS 1"),
        (CreateTable(Table("t", MetaData(), Column("a", Boolean()))), "BOOLEAN"),
        (CreateTable(Table("t", MetaData(), Column("a", JSON()))), "JSON"),
        (select(User).where(User.name == ""), "empty string"),
        (select(Template).where(Template.schema_text == "x"), "does not compare"),
        (select(Template.schema_text).distinct(), "does not order"),
        (select(Template).order_by(Template.schema_text), "does not order"),
        (CreateTable(Table("t" * 31, MetaData(), Column("a", Integer()))), "longer"),
    ],
    ids=str,
)
def test_the_check_finds_what_oracle_cannot(statement, fault):
    assert fault in str(faults(statement))


def test_types_on_oracle_need_no_new_version():
    statements = ddl(OracleDialect_oracledb())
    assert "created_at TIMESTAMP" in statements["users"]
    assert "schema_text CLOB" in statements["ontology_versions"]
    assert not any(" JSON" in statement or " BOOLEAN" in statement for statement in statements.values())


def test_the_migrations_end_where_the_models_stand(bdc, url):
    with make_engine(url).connect() as connection:
        config = schema.alembic_config(connection)
        command.check(config)
        assert ScriptDirectory.from_config(config).get_current_head() == SCHEMA_REVISION


def test_upgrade_is_idempotent_and_keeps_what_is_there(filled):
    version = filled.config_version()
    filled.upgrade()
    filled.check()
    assert filled.config_version() == version
    assert len(filled.catalog().ontologies) == 3


def test_the_migrations_do_not_depend_on_the_current_directory(url, tmp_path, monkeypatch):
    folder = tmp_path / "100% other"
    folder.mkdir()
    monkeypatch.chdir(folder)
    open_bdc(url).upgrade()
    assert list(folder.iterdir()) == []


def test_an_older_database_is_refused_by_check_and_upgraded_with_its_content(url):
    database = Database(make_engine(url))
    with database.migration() as connection:
        command.upgrade(schema.alembic_config(connection), "0001")
        connection.exec_driver_sql(
            "INSERT INTO users (name, user_role, is_active, api_key, created_at) "
            "VALUES ('sofia', 'USUARIO', 1, 'key', '2026-01-01 00:00:00.000000')"
        )
        connection.exec_driver_sql(
            "INSERT INTO kps (name, owner_id, cipher_key, is_cipher_only, meta, created_at) "
            "VALUES ('KP', 1, 'key', 0, '{}', '2026-01-01 00:00:00.000000')"
        )
        connection.exec_driver_sql(
            "INSERT INTO tokens (token, kp_id, is_active, created_at) "
            "VALUES ('old-token', 1, 1, '2026-01-01 00:00:00.000000')"
        )
    bdc = open_bdc(url)
    with pytest.raises(ConfigurationError, match="no tables of this version"):
        bdc.check()
    bdc.upgrade()
    identity = bdc.identify("KP", "old-token")
    assert bdc.recheck([("KP", "sofia", identity.credential)]) == [identity]


def test_an_empty_database_is_refused_by_check(url):
    with pytest.raises(ConfigurationError, match="no tables"):
        open_bdc(url).check()


def test_a_database_of_a_newer_version_is_refused_clearly(bdc, url):
    with make_engine(url).begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    try:
        for call in (bdc.upgrade, bdc.check):
            with pytest.raises(ConfigurationError, match=r"newer version.*9999"):
                call()
    finally:
        with make_engine(url).begin() as connection:
            connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{SCHEMA_REVISION}'")


@pytest.mark.adapters("sqlite")
def test_an_aborted_upgrade_leaves_an_empty_database(url):
    database = Database(make_engine(url))

    def upgrade():
        with database.migration() as connection:
            schema.upgrade(connection)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        upgrade()
    with database.read() as connection:
        assert schema.current_revision(connection) is None


@pytest.mark.adapters("sqlite")
def test_the_file_is_for_its_owner_only(url, tmp_path):
    bdc = open_bdc(url)
    bdc.upgrade()
    files = list(tmp_path.glob("bdc.db*"))
    assert tmp_path / "bdc.db-wal" in files
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


@pytest.mark.adapters("sqlite")
def test_connections_are_durable_and_check_references(bdc):
    def pragma(name):
        with bdc._database.read() as connection:
            return connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()

    assert pragma("journal_mode") == "wal"
    assert pragma("synchronous") == 2  # FULL
    assert pragma("foreign_keys") == 1
    assert pragma("busy_timeout") >= 1000


@pytest.mark.parametrize(
    "bad", ["", "nonsense", "sqlite://", "sqlite:///:memory:", "mongodb://host/db", "sqlite:////proc/no/such/bdc.db"]
)
def test_urls_that_cannot_be_a_bdc(bad):
    with pytest.raises(ConfigurationError):
        open_bdc(bad)


def test_a_password_in_a_bad_url_is_not_repeated():
    with pytest.raises(ConfigurationError) as error:
        open_bdc("mongodb://user:secret@host/db")
    assert "secret" not in str(error.value)


def test_a_file_that_is_no_database_is_refused(tmp_path):
    path = tmp_path / "bdc.db"
    path.write_bytes(b"this is not a database" * 100)
    with pytest.raises(StoreError):
        open_bdc(f"sqlite:///{path}").upgrade()


def _upgrade(url, barrier):
    barrier.wait()
    bdc = open_bdc(url)
    bdc.upgrade()
    bdc.check()


def test_several_processes_may_upgrade_at_once(url):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(4)
    processes = [context.Process(target=_upgrade, args=(url, barrier)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0, 0, 0]
    with make_engine(url).connect() as connection:
        rows = connection.exec_driver_sql("SELECT id, version FROM config_counter").fetchall()
    assert [tuple(row) for row in rows] == [(1, 0)]


def test_every_migration_is_shipped():
    versions = Path(schema.MIGRATIONS) / "versions"
    assert [path.name[:4] for path in sorted(versions.glob("*.py"))][-1] == SCHEMA_REVISION
