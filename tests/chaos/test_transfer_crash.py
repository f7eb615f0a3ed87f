"""kill -9 during transfers to the history: every instance is in exactly one place, whatever the moment.

``SOFIA2_TEST_KILLS`` sets how many random kills there are for each combination of databases; ``benchmarks/transfer_crash``
makes 200.
"""

import dataclasses
import os
import shutil
import uuid

import pytest

from benchmarks.servers import another_database
from benchmarks.transfer_kills import Places, count, local_places, n_resumed, run
from tests.own_servers import hdfs_urls, own_server

KILLS = int(os.environ.get("SOFIA2_TEST_KILLS", "16"))


@pytest.fixture(scope="module")
def hdfs(tmp_path_factory):
    """The address of a running HDFS."""
    with hdfs_urls(tmp_path_factory.mktemp("hdfs")) as urls:
        yield urls["hdfs"]


@pytest.fixture
def sqlite_local(tmp_path):
    return local_places(tmp_path)


@pytest.fixture
def mariadb_hdfs(tmp_path_factory, hdfs):
    with own_server("mariadb", tmp_path_factory.mktemp("mariadb")) as server:
        yield Places(server.url, another_database(server.url, "sofia2_bdc"), f"{hdfs}/{uuid.uuid4().hex}")


@pytest.fixture
def mongodb_hdfs(tmp_path, tmp_path_factory, hdfs):
    with own_server("mongodb", tmp_path_factory.mktemp("mongodb")) as server:
        yield Places(server.url, f"sqlite:///{tmp_path}/bdc.db", f"{hdfs}/{uuid.uuid4().hex}")


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "places",
    [
        "sqlite_local",
        pytest.param("mariadb_hdfs", marks=pytest.mark.server),
        pytest.param("mongodb_hdfs", marks=pytest.mark.server),
    ],
)
def test_random_kills_with_a_writer(request, tmp_path, places):
    places = request.getfixturevalue(places)
    places.save(tmp_path)
    result = run("random", tmp_path, KILLS, 11, timeout_s=580)
    assert (result.stdout, result.stderr) == ("done\n", "")
    found = count(places, tmp_path)
    wrong = ("n_lost", "n_double", "n_unknown", "n_updates_lost", "n_stray")
    assert {name: getattr(found, name) for name in wrong} == dict.fromkeys(wrong, 0)
    assert found.n_found == found.n_acknowledged > 500
    assert found.n_history > 100
    assert n_resumed(tmp_path) > 0, "no kill was in the middle of a transfer"


@pytest.mark.timeout(600)
def test_killed_at_every_point(tmp_path):
    original = tmp_path / "original"
    local_places(original).save(original)
    assert run("insert", original, 250).stdout == "done\n"
    point = 0
    while True:
        point += 1
        folder = tmp_path / f"point-{point}"
        shutil.copytree(original, folder)
        places = local_places(folder)
        places.save(folder)
        result = run("point", folder, point)
        if result.stdout == "done\n":
            break
        assert result.returncode == -9, result.stderr
        found = count(places, folder)
        expected = {"n_acknowledged": 250, "n_found": 250, "n_history": found.n_history}
        assert dataclasses.asdict(found) == {**dict.fromkeys(dataclasses.asdict(found), 0), **expected}, point
        assert found.n_history
        shutil.rmtree(folder)
    assert point > 25
