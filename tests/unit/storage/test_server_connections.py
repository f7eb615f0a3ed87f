"""What connections to database servers are made with: every wait has a bound, every reader sees one moment.

No server is asked: the driver's ``connect`` is replaced. Oracle has no server on our machines, so this is its check.
"""

from unittest.mock import MagicMock

import oracledb
import pytest
from sqlalchemy.dialects import mysql, oracle
from sqlalchemy.exc import DatabaseError

from sib.errors import ConfigurationError, StoreUnavailableError
from storage.bdc import engine as bdc_engine
from storage.bdc.engine import Database, make_engine
from storage.bdtr.servers import server_dialect
from storage.connecting import CONNECT_S, STATEMENT_S

ORACLE_URL = "oracle://u:p@host:1521/?service_name=x"
WRONG_URLS = ("mysql://u@127.0.0.1:1/db?authPassword=hunter2", "oracle://u@127.0.0.1:1/?authpassword=hunter2")


class StubOracle:
    """An Oracle's driver: keeps how it was called and which statements came."""

    def __init__(self, monkeypatch, version="19.3.0"):
        self.options, self.statements, self.raw = [], [], MagicMock()
        self.raw.version = version
        self.raw.cursor.side_effect = self._cursor
        monkeypatch.setattr(oracledb, "connect", self._connect)

    def _connect(self, *_arguments, **options):
        self.options.append(options)
        return self.raw

    def _cursor(self, *_arguments):
        cursor = MagicMock()
        cursor.execute.side_effect = lambda statement, *_: self.statements.append(statement)
        cursor.__enter__.return_value = cursor
        cursor.fetchone.return_value = ("1.1",)
        return cursor


@pytest.fixture
def server(monkeypatch):
    return StubOracle(monkeypatch)


def read_bdc(url):
    return Database(make_engine(url)).read()


def bdtr_engine(url):
    return server_dialect(url).reader_engine()


@pytest.mark.parametrize("make", [make_engine, bdtr_engine])
def test_an_oracle_has_a_bound_for_connecting_and_for_every_call(server, make):
    make(ORACLE_URL).raw_connection()
    assert server.options[0]["tcp_connect_timeout"] == CONNECT_S
    assert server.raw.call_timeout == STATEMENT_S * 1000


@pytest.mark.parametrize("read", [read_bdc, lambda url: bdtr_engine(url).connect()], ids=["bdc", "bdtr"])
def test_readers_of_an_oracle_see_one_moment(server, read):
    with read(ORACLE_URL):
        assert "ALTER SESSION SET ISOLATION_LEVEL=SERIALIZABLE" in server.statements


def test_a_writer_of_a_bdc_on_oracle_sees_what_the_one_before_it_has_written_and_waits_in_bounds(server):
    with Database(make_engine(ORACLE_URL)).write():
        isolation = [statement for statement in server.statements if "ISOLATION" in statement]
        assert isolation[-1].endswith("READ COMMITTED")
        assert server.statements[-1].rstrip().endswith("FOR UPDATE WAIT 5")


def test_only_oracle_is_told_how_long_to_wait_for_the_turn():
    turn = bdc_engine._TURN
    assert str(turn.compile(dialect=oracle.dialect())).rstrip().endswith("FOR UPDATE WAIT 5")
    assert str(turn.compile(dialect=mysql.dialect())).rstrip().endswith("FOR UPDATE")


@pytest.mark.parametrize("url", ["mysql://u@host/db", "mariadb://u@host/db"])
def test_readers_of_a_bdc_on_mysql_see_one_moment_whatever_the_server_does_by_default(url):
    assert Database(make_engine(url))._reader.get_execution_options()["isolation_level"] == "REPEATABLE READ"


@pytest.mark.parametrize("code", ["DPY-4024: call timeout of 60000 ms exceeded", "ORA-30006: resource busy"])
def test_a_bdc_on_oracle_that_is_too_slow_may_succeed_later(server, code):
    database = Database(make_engine(ORACLE_URL))
    with pytest.raises(StoreUnavailableError), database.read():
        raise DatabaseError("SELECT 1", {}, oracledb.DatabaseError(code))


@pytest.mark.parametrize("make", [make_engine, bdtr_engine])
@pytest.mark.parametrize("url", WRONG_URLS)
def test_an_option_that_the_driver_does_not_know_is_named_without_its_value(make, url):
    engine = make(url)
    with pytest.raises(ConfigurationError, match=r"auth[Pp]assword") as caught:
        engine.connect()
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize("make", [make_engine, bdtr_engine])
def test_a_password_with_an_at_sign_never_becomes_a_host(make):
    with pytest.raises(ConfigurationError, match="%40") as caught:
        make("mysql://u:a@hunter2@host/db")
    assert "hunter2" not in caught.value.message
