"""One BDC per test. The same tests will run on every database that the BDC supports."""

import shutil
from datetime import datetime

import pytest
from argon2 import PasswordHasher

from sib.access import Permission, Role
from storage.bdc.bdc import open_bdc
from storage.bdc.records import KpRecord, OntologyRecord, TokenRecord, UserRecord

NOW = datetime(2026, 3, 1, 12, 30, 15, 123456)
CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
PASSWORD_HASH = CHEAP.hash("correct horse")


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch):
    """argon2 with the least cost: its real cost is not what these tests are about."""
    monkeypatch.setattr("storage.bdc.passwords._HASHER", CHEAP)


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/bdc.db"


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """A file with all tables, made once: the migrations take a quarter of a second."""
    path = tmp_path_factory.mktemp("bdc") / "empty.db"
    made = open_bdc(f"sqlite:///{path}")
    made.upgrade()
    made.close()
    return path


@pytest.fixture
def bdc(url, tmp_path, empty_database):
    shutil.copy(empty_database, tmp_path / "bdc.db")
    opened = open_bdc(url, now=lambda: NOW)
    yield opened
    opened.close()


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
