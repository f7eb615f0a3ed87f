"""kill -9 of a process that writes: what it acknowledged is there, once, and the indexes agree with the documents."""

import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from storage.bdtr.model import IndexSpec
from storage.open import open_bdtr

ROOT = Path(__file__).parents[2]
KILLS = 6
WRITER = """
import sys, time, bson
from storage.bdtr import hot
from storage.bdtr.model import IndexSpec, context_head
from storage.open import open_bdtr

hot.HOT_ROWS = 300
url, start = sys.argv[1], int(sys.argv[2])
store = open_bdtr(url, writer=True)
store.ensure_collection("S", [IndexSpec((("asset", 1),)), IndexSpec((("tags", 1),)), IndexSpec((("n", 1),), unique=True)])
head = context_head({"user": "u"})
from datetime import datetime
batch = start
while True:
    documents = [{"n": batch * 10 + at, "asset": (batch * 7 + at) % 13, "tags": [at, batch % 5]} for at in range(10)]
    with store.begin() as transaction:
        if transaction.recall("g", batch) is None:
            transaction.append("S", list(map(bson.encode, documents)), documents, [head] * 10, time.time_ns() // 1_000_000)
            transaction.update("S", {"n": batch * 10}, {"$set": {"asset": 99}}, multi=False, now=datetime(2026, 1, 1))
            transaction.delete("S", {"n": batch * 10 + 9})
            transaction.remember("g", batch, b"done")
    print(batch, flush=True)
    batch += 1
"""


def run_and_kill(url: str, start: int, after: int) -> int:
    """Starts a writer, kills it after some acknowledged batches, and returns the last one acknowledged."""
    command = [sys.executable, "-c", WRITER, url, str(start)]
    writer = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    )
    last = start - 1
    for line in writer.stdout:
        last = int(line)
        if last - start >= after:
            writer.send_signal(signal.SIGKILL)
            break
    for line in writer.stdout:  # acknowledged before the kill took effect
        last = int(line)
    writer.wait()
    assert writer.returncode == -signal.SIGKILL
    return last


@pytest.mark.timeout(120)
def test_nothing_acknowledged_is_lost_or_doubled_by_kills(tmp_path):
    url = f"sqlite:{tmp_path}/bdtr.db"
    chance = random.Random(7)
    last = -1
    for _ in range(KILLS):
        # The batch after the last acknowledged one may have been committed: sent again, its write id makes it harmless.
        last = run_and_kill(url, last + 1, chance.randrange(20, 120))

    store = open_bdtr(url, writer=True)
    documents = list(store.find("S"))
    numbers = [document["n"] for document in documents]
    batches = {number // 10 for number in numbers}
    assert len(numbers) == len(set(numbers)) == store.count("S")
    assert batches >= set(range(last + 1))
    assert batches <= set(range(last + 2))
    assert numbers == sorted(batch * 10 + at for batch in batches for at in range(9))
    for path, values in (("asset", [*range(13), 99]), ("tags", range(10)), ("n", numbers[::50])):
        for value in values:
            found = [document["n"] for document in store.find("S", {path: value})]
            assert found == [
                document["n"]
                for document in documents
                if value == document[path] or (path == "tags" and value in document[path])
            ]
    ordered = [document["asset"] for document in store.find("S", sort={"asset": 1}, limit=len(documents) + 1)]
    assert ordered == sorted(document["asset"] for document in documents)
    changes = store.changes(0, 10 * len(documents))
    assert [change.seq for change in changes] == sorted({change.seq for change in changes})
    assert changes[-1].seq == store.seq
    store.close()


def test_an_index_whose_making_was_interrupted_is_made_again(tmp_path, monkeypatch):
    url = f"sqlite:{tmp_path}/bdtr.db"
    monkeypatch.setattr("storage.bdtr.relational.BUILD_DOCUMENTS", 10)
    store = open_bdtr(url, writer=True)
    with store.begin() as transaction:
        transaction.insert_documents("S", [{"n": number} for number in range(100)])
    spec = IndexSpec((("n", 1),))
    calls = iter(range(4))

    def dies(*arguments):
        next(calls)
        return real(*arguments)

    from storage.bdtr import declare

    real = declare.fill
    monkeypatch.setattr(declare, "fill", dies)
    monkeypatch.setattr(declare, "drop", lambda *_: None)  # a killed process tidies nothing up
    with pytest.raises(StopIteration):
        store.ensure_collection("S", [spec])
    store.close()
    monkeypatch.undo()

    again = open_bdtr(url, writer=True)
    assert "read all" in again.explain("S", {"n": 55})[0]
    assert again.count("S", {"n": 55}) == 1
    again.ensure_collection("S", [spec])
    assert "index n_1" in again.explain("S", {"n": 55})[0]
    assert again.count("S", {"n": 55}) == 1
    again.close()


SHARING_WRITER = """
import sys, sofia2.bdtr
with sofia2.bdtr.open(sys.argv[1]) as database:
    database["S"].create_index("n")
    for number in range(60):
        database["S"].insert_one({"writer": sys.argv[2], "n": number})
        database["total"].update_one({"_id": "all"}, {"$inc": {"n": 1}}, upsert=True)
"""


def test_processes_that_write_to_one_file_lose_nothing(tmp_path):
    url = f"sqlite:{tmp_path}/bdtr.db"
    open_bdtr(url, writer=True).close()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    commands = [[sys.executable, "-c", SHARING_WRITER, url, str(writer)] for writer in range(3)]
    writers = [subprocess.Popen(command, cwd=ROOT, env=environment) for command in commands]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]

    store = open_bdtr(url, writer=False)
    assert store.count("S") == 180 == len({document["_id"] for document in store.find("S")})
    assert [store.count("S", {"n": number}) for number in range(60)] == [3] * 60
    assert next(store.find("total"))["n"] == 180
    assert [change.seq for change in store.changes(0, 1000)][-1] == store.seq == 360
    store.close()
