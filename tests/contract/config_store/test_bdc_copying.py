"""A copy of the whole BDC from SQLite to wherever it goes, and back."""

from datetime import datetime

import pytest

from sib.access import Role
from sib.errors import ConfigurationError
from storage.bdc.all_models import metadata
from storage.bdc.bdc import open_bdc
from storage.bdc.engine import Database, make_engine
from storage.bdc.records import LogRecord, UserRecord
from storage.copying import copy_bdc, kind_of_database, upgrade

NOW = datetime(2026, 3, 1, 12, 30, 15, 123456)


def content(url):
    with Database(make_engine(url)).read() as connection:
        return {
            table.name: sorted(map(repr, connection.execute(table.select()).tuples()))
            for table in metadata.sorted_tables
        }


@pytest.fixture
def source(filled, url):
    filled.log([LogRecord("AUDIT", NOW, "ñ 😀", user="root", details={"a": [1, None]}) for _ in range(3)])
    return url


@pytest.fixture
def target(tmp_path):
    return f"sqlite:///{tmp_path}/target.db"


def test_a_copy_has_everything_and_a_second_one_writes_nothing(source, target):
    steps = []

    written = copy_bdc(source, target, steps.append)

    assert content(target) == content(source)
    assert written == sum(step.n_done for step in steps if step.n_done == step.n_total)
    assert copy_bdc(source, target) == 0
    assert open_bdc(target).identify("KP", "token-of-sofia").user == "sofia"


def test_an_interrupted_copy_goes_on(source, target):
    def interrupt(step):
        if step.name == "kps":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_bdc(source, target, interrupt)
    copy_bdc(source, target)
    assert content(target) == content(source)


def test_a_copy_comes_back(source, target, server, tmp_path):
    copy_bdc(source, target)
    again = f"sqlite:///{tmp_path}/again.db" if server is None else server.database()
    copy_bdc(target, again)
    assert content(again) == content(source)
    with open_bdc(again).change() as configuration:
        configuration.users.put(UserRecord("later", Role.USUARIO))
    assert kind_of_database(again) == "bdc"


def test_a_target_in_use_is_refused(source, target):
    upgrade(target, f"{target.replace('///', '')}tr.db")
    with open_bdc(target).change() as configuration:
        for name in "abcdefgh":
            configuration.users.put(UserRecord(name, Role.USUARIO))
    before = content(target)
    with pytest.raises(ConfigurationError, match="in use"):
        copy_bdc(source, target)
    assert content(target) == before


def test_a_database_is_not_copied_into_itself(source):
    with pytest.raises(ConfigurationError, match="same"):
        copy_bdc(source, source)
