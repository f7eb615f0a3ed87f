"""One BDC per test. The same tests run on every database that the BDC supports and that is there."""

import shutil
from datetime import datetime

import pytest
from argon2 import PasswordHasher

from sib.access import Permission, Role
from storage.bdc.all_models import metadata
from storage.bdc.bdc import open_bdc
from storage.bdc.engine import make_engine
from storage.bdc.records import KpRecord, OntologyRecord, TokenRecord, UserRecord

NOW = datetime(2026, 3, 1, 12, 30, 15, 123456)
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PASSWORD_HASH = CHEAP.hash("correct horse")


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch):
    """argon2 with the least cost: its real cost is not what these tests are about."""
    monkeypatch.setattr("storage.bdc.passwords._HASHER", CHEAP)


def pytest_generate_tests(metafunc):
    if "server" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("adapters")
        chosen = [name for name in ("sqlite", "mariadb", "oracle") if marker is None or name in marker.args]
        names = [name if name == "sqlite" else pytest.param(name, marks=pytest.mark.server) for name in chosen]
        metafunc.parametrize("server", names, indirect=True, scope="session")


@pytest.fixture
def url(request, server, tmp_path):
    """The URL of an empty database, or that of ``bdc``."""
    if server is None:
        return f"sqlite:///{tmp_path}/bdc.db"
    return request.getfixturevalue("migrated")[0] if "bdc" in request.fixturenames else server.database()


@pytest.fixture(scope="session")
def migrated(server):
    """A database with all tables on the server: the migrations take a second there, so it is emptied for each test."""
    if server is None:
        return None
    url = server.database()
    made = open_bdc(url)
    made.upgrade()
    seeds = {}
    with made._database.read() as connection:
        for table in metadata.sorted_tables:
            seeds[table] = [dict(row) for row in connection.execute(table.select()).mappings()]
    made.close()
    return url, seeds


@pytest.fixture
def bdc(request, server, tmp_path, empty_database, migrated):
    if server is None:
        shutil.copy(empty_database, tmp_path / "bdc.db")
        url = request.getfixturevalue("url")
    else:
        url, seeds = migrated
        _empty(url, seeds)
    opened = open_bdc(url, now=lambda: NOW)
    yield opened
    opened.close()


def _empty(url, seeds):
    engine = make_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("SET FOREIGN_KEY_CHECKS = 0")
        for table, rows in seeds.items():
            connection.execute(table.delete())
            if rows:
                connection.execute(table.insert(), rows)
    engine.dispose()


@pytest.fixture
def filled(bdc):
    """Sofia owns KP and Open and Closed; Ana may query Closed; Root is administrator."""
    with bdc.change() as configuration:
        configuration.users.put(UserRecord("sofia", Role.COLABORADOR, password_hash=PASSWORD_HASH))
        configuration.users.put(UserRecord("ana", Role.USUARIO, password_hash=PASSWORD_HASH))
        configuration.users.put(UserRecord("root", Role.ADMINISTRADOR, password_hash=PASSWORD_HASH))
        configuration.ontologies.put(OntologyRecord("Open", "sofia", "{}", public=True))
        configuration.ontologies.put(OntologyRecord("Closed", "sofia", "{}", permissions={"ana": Permission.QUERY}))
        configuration.ontologies.put(OntologyRecord("Other", "sofia", "{}"))
        configuration.kps.put(KpRecord("KP", "sofia", frozenset({"Open", "Closed"}), cipher_key="key0key1key2key3"))
        configuration.kps.put(KpRecord("KpOfAna", "ana", frozenset({"Open", "Closed"})))
        configuration.tokens.put(TokenRecord("token-of-sofia", "KP"))
        configuration.tokens.put(TokenRecord("token-that-is-off", "KP", active=False))
        configuration.tokens.put(TokenRecord("token-of-ana", "KpOfAna"))
    return bdc
