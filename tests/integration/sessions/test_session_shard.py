"""The session shard on a real configuration database: what is not stored has not happened; settings that act at once."""

import shutil
from dataclasses import replace
from datetime import datetime

import pytest
from argon2 import PasswordHasher

from actors import session_news
from actors import sessions as module
from actors.config import Limits, PlatformConfig, Topology
from actors.runtime import ActorGoneError
from actors.sessions import JoinRefused, JoinRequest, SessionShard
from sib.access import Identity, Role
from sib.errors import AuthenticationError, LimitError, StoreUnavailableError
from sib.sessions import touch_lag_s
from storage.bdc.bdc import open_bdc
from storage.bdc.records import KpRecord, OntologyRecord, SubscriptionRecord, TokenRecord, UserRecord
from storage.bdc.sessions import SessionStore, SubscriptionStore

TOPOLOGY = Topology(("mqtt-0",), ("http-0",), ("shard-0",), ("partition-0",), ("query-0",))


class Told:
    """Instead of references to actors: writes down what they are told."""

    is_gone = False

    def __init__(self):
        self.calls = []
        self.asked = []

    def __call__(self, name):
        self._name = name
        return self

    def tell(self, method, *arguments):
        self.calls.append((self._name, method, *arguments))

    def ask(self, method, *arguments, timeout_s):
        if self.is_gone:
            raise ActorGoneError("it restarts")
        self.asked.append((self._name, method, *arguments))


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch):
    """argon2 with the least cost: its real cost is not what these tests are about."""
    monkeypatch.setattr("storage.bdc.passwords._HASHER", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))


@pytest.fixture(autouse=True)
def _no_log_files(monkeypatch):
    monkeypatch.setattr(module.logs, "configure", lambda *_: None)


@pytest.fixture
def told(monkeypatch):
    told = Told()
    monkeypatch.setattr(session_news, "Ref", told)
    return told


@pytest.fixture
def clock(monkeypatch):
    """The shard's time, as a list of one number."""
    now = [1_800_000_000.0]
    monkeypatch.setattr(module.time, "time", lambda: now[0])
    return now


@pytest.fixture(scope="module")
def filled_database(tmp_path_factory):
    """Made once: the migrations take time."""
    path = tmp_path_factory.mktemp("bdc") / "bdc.db"
    made = open_bdc(f"sqlite:///{path}")
    made.upgrade()
    with made.change() as configuration:
        configuration.users.put(UserRecord("sofia", Role.COLABORADOR))
        configuration.ontologies.put(OntologyRecord("Open", "sofia", "{}"))
        configuration.kps.put(KpRecord("KP", "sofia", frozenset({"Open"})))
        configuration.tokens.put(TokenRecord("token-of-sofia", "KP"))
    made.close()
    return path


@pytest.fixture
def bdc(tmp_path, filled_database):
    shutil.copy(filled_database, tmp_path / "bdc.db")
    opened = open_bdc(f"sqlite:///{tmp_path}/bdc.db")
    yield opened
    opened.close()


@pytest.fixture
def shard(bdc, tmp_path, told, clock):
    return new_shard(tmp_path)


@pytest.fixture
def shard_of_two(bdc, tmp_path, told, clock):
    return new_shard(tmp_path, limits=Limits(sessions_max=2))


def new_shard(folder, **options):
    url = f"sqlite:///{folder}/bdc.db"
    return SessionShard("shard-0", PlatformConfig(str(folder), url, "", TOPOLOGY, (), **options))


def ask(shard, kind, *arguments, gateway="mqtt-0"):
    (answer,) = shard.handle(gateway, [(kind, arguments)])
    return answer


def join(shard, *, token="token-of-sofia", proof=None, key=None, client="dev"):
    return ask(shard, "join", JoinRequest("KP", "1", token, proof, 0, False, client, "10.0.0.9", key))


def subscription(key, id_="s1"):
    return SubscriptionRecord(id_, key, "Open", "", "NATIVE", "{}", 0, 0, datetime(2026, 1, 1), None, False, "")


def fail_once(monkeypatch, store, method):
    """The database does not answer the next call of this kind."""
    real = getattr(store, method)

    def failing(*arguments, **options):
        monkeypatch.setattr(store, method, real)
        raise StoreUnavailableError("the database does not answer")

    monkeypatch.setattr(store, method, failing)


def test_a_leave_that_could_not_be_stored_is_repeated_and_ends_the_session(shard, bdc, told, monkeypatch):
    key = join(shard).key
    ask(shard, "subscribe", subscription(key), "dev")
    fail_once(monkeypatch, SessionStore, "delete")
    with pytest.raises(StoreUnavailableError):
        ask(shard, "leave", key)
    assert told.calls == []
    assert ask(shard, "leave", key) is None
    assert (bdc.sessions.load(), bdc.subscriptions.load()) == ([], [])
    assert ("partition-0", "unsubscribe", ["s1"]) in told.calls
    assert ("mqtt-0", "forget", [key]) in told.calls


def test_an_unsubscribe_that_could_not_be_stored_is_repeated(shard, bdc, monkeypatch):
    key = join(shard).key
    ask(shard, "subscribe", subscription(key), "dev")
    fail_once(monkeypatch, SubscriptionStore, "delete")
    with pytest.raises(StoreUnavailableError):
        ask(shard, "unsubscribe", key, "s1")
    assert ask(shard, "unsubscribe", key, "s1") == "Open"
    assert bdc.subscriptions.load() == []


def test_a_subscription_that_could_not_be_stored_is_not_in_the_session(shard, monkeypatch):
    key = join(shard).key
    fail_once(monkeypatch, SubscriptionStore, "save")
    with pytest.raises(StoreUnavailableError):
        ask(shard, "subscribe", subscription(key), "dev")
    assert ask(shard, "lease", key, "dev").subscriptions == []


def test_a_move_that_could_not_be_stored_is_told_when_it_is(shard, told, monkeypatch):
    key = join(shard).key
    ask(shard, "subscribe", subscription(key), "dev")
    fail_once(monkeypatch, SessionStore, "save")
    with pytest.raises(StoreUnavailableError):
        ask(shard, "lease", key, "", gateway="http-0")
    ask(shard, "lease", key, "", gateway="http-0")
    assert told.calls == [("mqtt-0", "moved", [key]), ("partition-0", "move_sessions", {key: "http-0"})]


def test_a_request_over_no_connection_moves_no_session(shard, bdc, told):
    key = join(shard).key
    ask(shard, "subscribe", subscription(key), "dev")
    assert ask(shard, "lease", key, None, gateway="http-0").key == key
    ask(
        shard, "join", JoinRequest("KP", "1", "token-of-sofia", None, 0, False, None, "10.0.0.9", key), gateway="http-0"
    )
    assert told.calls == []
    (stored,) = bdc.sessions.load()
    assert (stored.gateway, stored.client_ref) == ("mqtt-0", "dev")


def test_callbacks_stay_where_they_are_and_are_ended_there(shard, told):
    key = join(shard).key
    ask(shard, "subscribe", replace(subscription(key), endpoint="http://x", gateway="http-0"), None, gateway="http-0")
    assert told.calls == []
    ask(shard, "subscribe", subscription(key, "s2"), "dev")
    assert told.calls == []
    ask(shard, "unsubscribe", key, "s1")
    assert ("http-0", "end_subscription", "s1") in told.calls
    ask(shard, "subscribe", replace(subscription(key, "s3"), endpoint="http://x", gateway="gone"), None)
    ask(shard, "leave", key)
    assert ("http-0", "forget", [key]) in told.calls


def test_a_join_that_could_not_be_stored_leaves_no_session(shard, monkeypatch):
    fail_once(monkeypatch, SessionStore, "save")
    with pytest.raises(StoreUnavailableError):
        join(shard)
    assert shard.stats()["sessions"] == 0


def test_sessions_that_expire_while_the_database_is_away_end_when_it_is_back(shard, bdc, told, clock, monkeypatch):
    key = join(shard).key
    clock[0] += 7200 + touch_lag_s(7200) + 1
    fail_once(monkeypatch, SessionStore, "delete")
    with pytest.raises(StoreUnavailableError):
        shard.tick()
    shard.tick()
    assert bdc.sessions.load() == []
    assert ("mqtt-0", "forget", [key]) in told.calls


def test_a_use_that_is_told_late_keeps_the_session(shard, clock):
    key = join(shard).key
    clock[0] += 7200
    used_at_s = clock[0] - 0.5
    clock[0] += touch_lag_s(7200) / 2
    shard.tick()
    assert ask(shard, "touch", {key: used_at_s}) == []
    assert ask(shard, "lease", key, "dev").key == key


def test_an_expired_session_is_refused_to_the_second(shard, clock):
    key = join(shard).key
    clock[0] += 7200.5
    assert isinstance(ask(shard, "lease", key, "dev"), AuthenticationError)


def test_a_touch_names_the_sessions_that_are_over(shard, clock):
    """A gateway that missed the end of a session forgets it all the same."""
    key, left = join(shard).key, join(shard).key
    ask(shard, "leave", left)
    assert ask(shard, "touch", {key: clock[0], left: clock[0], "never": clock[0]}) == [left, "never"]


def test_hot_settings_act_at_once_and_after_a_crash_of_the_shard(shard, bdc, tmp_path, clock):
    with bdc.change() as configuration:
        configuration.settings.put("sessions.expiry_s", 10)
        configuration.settings.put("limits.join_failures_per_minute", 2)
        configuration.settings.put("limits.join_failure_delay_s_max", 0.25)
    for one in (shard, new_shard(tmp_path)):
        refusals = [join(one, token="wrong") for _ in range(5)]
        assert all(isinstance(refused, JoinRefused) for refused in refusals)
        assert [refused.delay_s for refused in refusals] == [0, 0, 0.1, 0.2, 0.25]
        assert join(one).expiry_s == 10


def test_a_password_is_checked_elsewhere_and_its_failures_count_here(shard, bdc):
    """argon2 would hold back every other session."""
    refusals = [join(shard, token=None, proof=AuthenticationError("wrong")) for _ in range(32)]
    assert [refused.error.message for refused in refusals] == ["wrong"] * 32
    assert refusals[-1].delay_s > 0
    assert isinstance(join(shard, token=None), JoinRefused)
    identity = Identity("KP", "sofia", Role.COLABORADOR, "key", cipher_only=False, credential="user:1")
    lease = join(shard, token=None, proof=identity)
    assert lease.user == "sofia"
    assert "Open" in lease.rights


def test_failures_that_are_slowed_down_are_logged_once_and_counted(shard, caplog):
    for _ in range(34):
        join(shard, token="wrong-token")
    lines = [record.getMessage() for record in caplog.records if record.name == "sofia2.sessions"]
    assert lines == ["too many failed JOINs as KP 'KP' from 10.0.0.9: further ones are slowed down"]
    assert (shard.stats()["join_failures"], shard.stats()["join_delays"]) == (34, 4)


def test_what_a_restarting_partition_may_have_missed_is_told_until_it_confirms(shard, told):
    key = join(shard).key
    ended, kept = subscription(key), subscription(key, "s2")
    for record in (ended, kept):
        ask(shard, "subscribe", record, "dev")
    ask(shard, "unsubscribe", key, ended.subscription_id)
    ask(shard, "lease", key, "", gateway="http-0")
    told.is_gone = True
    shard.tick()
    assert told.asked == []
    told.is_gone = False
    for _ in range(2):
        shard.tick()
    assert told.asked == [
        ("partition-0", "unsubscribe", [ended.subscription_id]),
        ("partition-0", "move_sessions", {key: "http-0"}),
    ]


def test_a_session_that_ended_is_not_said_to_have_moved(shard, told):
    key = join(shard).key
    record = subscription(key)
    ask(shard, "subscribe", record, "dev")
    ask(shard, "lease", key, "", gateway="http-0")
    ask(shard, "leave", key)
    shard.tick()
    assert ("partition-0", "unsubscribe", [record.subscription_id]) in told.asked
    assert ("partition-0", "move_sessions", {}) in told.asked


def test_more_sessions_than_the_bound_are_refused(shard_of_two):
    keys = [join(shard_of_two).key for _ in range(2)]
    refused = join(shard_of_two)
    assert isinstance(refused, JoinRefused)
    assert isinstance(refused.error, LimitError)
    ask(shard_of_two, "leave", keys[0])
    assert join(shard_of_two).key
