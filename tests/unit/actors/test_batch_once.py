"""Inserts that are stored once: repetitions are nothing to do, and are looked for only where the store refuses something."""

from types import SimpleNamespace

import pytest
from bson import ObjectId

from actors.batch import Work
from actors.writes import INSERT_ONCE, WriteBatch
from sib.errors import DuplicateKeyError, InvalidInstanceError
from sib.ontology import compile_ontology
from storage.bdtr.model import IndexSpec, context_head
from storage.open import open_bdtr

CONTEXT = {"session_key": "s", "user": "sofia", "kp": "K", "kp_instancia": "K:1", "timezoneId": "GMT"}
SCHEMA = '{"type": "object", "required": ["k"], "properties": {"k": {"type": "integer"}}}'
IDS = [ObjectId(f"{number:024x}") for number in range(5)]


class Home(SimpleNamespace):
    def ontology(self, name):
        return compile_ontology(name, SCHEMA)

    def context(self, session_key):
        return context_head(CONTEXT), CONTEXT


@pytest.fixture
def store(tmp_path):
    store = open_bdtr(f"sqlite:{tmp_path}/bdtr.db", writer=True)
    store.ensure_collection("O", [IndexSpec((("k", 1),), unique=True)])
    yield store
    store.close()


def insert_once(store, *items):
    """Store (position in IDS, text of an instance); returns the work and how often it looked for what is there."""
    batch = WriteBatch(
        bytes([INSERT_ONCE] * len(items)),
        ["s"] * len(items),
        ["O"] * len(items),
        [IDS[at].binary + text.encode() for at, text in items],
    )
    work, looked = Work(Home(machine=store.machine), batch), []
    with store.begin() as transaction:
        find = transaction.find
        transaction.find = lambda *arguments: looked.append(arguments) or find(*arguments)
        work.run(transaction)
    return work, len(looked)


def stored(store):
    return {document["_id"]: document["k"] for document in store.find("O", {})}


def test_what_is_new_is_not_looked_for(store):
    work, looked = insert_once(store, (0, '{"k": 0}'), (1, '{"k": 1}'))
    assert (work.results, work.failures, looked) == ({0: [IDS[0]], 1: [IDS[1]]}, {}, 0)
    assert stored(store) == {IDS[0]: 0, IDS[1]: 1}


def test_a_repetition_is_nothing_to_do_and_the_others_are_stored(store):
    insert_once(store, (0, '{"k": 0}'), (1, '{"k": 1}'))
    work, looked = insert_once(store, (2, '{"k": 2}'), (0, '{"k": 0}'), (1, '{"k": 7}'))
    assert (set(work.results), work.failures, looked) == ({0, 1, 2}, {}, 1)
    assert stored(store) == {IDS[0]: 0, IDS[1]: 1, IDS[2]: 2}
    assert [whole["_id"] for change in work.changes for whole in map(change.whole, range(len(change.instances)))] == [
        IDS[2]
    ]


def test_a_refused_one_fails_alone_beside_repetitions(store):
    insert_once(store, (0, '{"k": 0}'))
    work, _ = insert_once(store, (1, '{"k": 0}'), (0, '{"k": 0}'), (2, '{"k": "no"}'), (3, '{"k": 3}'), (4, '{"k": 3}'))
    assert set(work.results) == {1, 3}
    assert {at: type(error) for at, error in work.failures.items()} == {
        0: DuplicateKeyError,
        2: InvalidInstanceError,
        4: DuplicateKeyError,
    }
    assert stored(store) == {IDS[0]: 0, IDS[3]: 3}
