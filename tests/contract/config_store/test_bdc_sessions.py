"""Sessions, subscriptions, instances, tokens and the process log: what must outlive a killed process."""

import multiprocessing
import sqlite3
import threading
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from sib.errors import NotFoundError, StoreUnavailableError
from storage.bdc import activity, engine
from storage.bdc.bdc import open_bdc
from storage.bdc.records import AssetRecord, LogRecord, SessionRecord, SubscriptionRecord

NOW = datetime(2026, 3, 1, 12, 30, 15, 123456)
MANY = 1200  # more than fit into one statement


def session(key="k1", **changes):
    made = SessionRecord(
        session_key=key,
        kp="KP",
        instance="i1",
        user="sofia",
        credential="token:abc",
        gateway="MqttGateway-1",
        client_ref="client",
        dialect=2,
        created_at=NOW,
        used_at=NOW,
        expires_at=NOW + timedelta(hours=2),
        ciphered=True,
    )
    return replace(made, **changes)


def subscription(subscription_id="s1", **changes):
    made = SubscriptionRecord(
        subscription_id=subscription_id,
        session_key="k1",
        ontology="Open",
        query_text="select * from Open where a='ñ'",
        query_type="SQLLIKE",
        filter_text='{"a":"ñ"}',
        ms_refresh=1000,
        dialect=0,
        created_at=NOW,
        params={"P": "1"},
        ciphered=True,
        endpoint="http://127.0.0.1/" + "x" * 3000,
        gateway="http-0",
    )
    return replace(made, **changes)


def keys(bdc):
    return {session.session_key for session in bdc.sessions.load()}


def ids(bdc):
    return {subscription.subscription_id for subscription in bdc.subscriptions.load()}


def test_sessions_come_back_as_they_were_saved(bdc):
    sessions = [session(), session("k2", instance="", gateway="", client_ref="", ciphered=False)]
    bdc.sessions.save(sessions)
    assert sorted(bdc.sessions.load(), key=lambda item: item.session_key) == sessions


def test_names_that_a_client_chose_may_be_long(bdc):
    sessions = [session(instance="i" * 70_000, client_ref="c" * 70_000)]
    bdc.sessions.save(sessions)
    assert bdc.sessions.load() == sessions


def test_saving_again_replaces(bdc):
    bdc.sessions.save([session(), session("k2")])
    bdc.sessions.save([session(gateway="HttpGateway-1")])
    assert {item.session_key: item.gateway for item in bdc.sessions.load()} == {
        "k1": "HttpGateway-1",
        "k2": "MqttGateway-1",
    }


def test_subscriptions_come_back_as_they_were_saved(bdc):
    subscriptions = [subscription(), subscription("s2", params=None, endpoint="", filter_text="", ciphered=False)]
    bdc.subscriptions.save(subscriptions)
    bdc.subscriptions.save(subscriptions[:1])
    assert bdc.subscriptions.load() == subscriptions


def test_touch_restarts_the_expiry(bdc):
    bdc.sessions.save([session(), session("k2")])
    later = NOW + timedelta(minutes=5)
    bdc.sessions.touch([("k1", later), ("unknown", later)], expiry_s=60)
    loaded = {item.session_key: (item.used_at, item.expires_at) for item in bdc.sessions.load()}
    assert loaded == {"k1": (later, later + timedelta(seconds=60)), "k2": (NOW, NOW + timedelta(hours=2))}


def test_the_end_of_a_session_is_the_end_of_its_subscriptions(bdc):
    bdc.sessions.save([session(), session("k2")])
    bdc.subscriptions.save([subscription(), subscription("s2", session_key="k2")])
    bdc.sessions.delete(["k1", "unknown"])
    assert keys(bdc) == {"k2"}
    assert ids(bdc) == {"s2"}


def test_expired_sessions_end_at_their_time_with_their_subscriptions(bdc):
    bdc.sessions.save([session(expires_at=NOW), session("k2", expires_at=NOW + timedelta(microseconds=1))])
    bdc.subscriptions.save([subscription(), subscription("s2", session_key="k2")])
    assert bdc.sessions.delete_expired(NOW) == ["k1"]
    assert bdc.sessions.delete_expired(NOW) == []
    assert keys(bdc) == {"k2"}
    assert ids(bdc) == {"s2"}


def test_subscriptions_are_removed_singly_and_by_session(bdc):
    bdc.subscriptions.save([subscription(), subscription("s2"), subscription("s3", session_key="k3")])
    bdc.subscriptions.delete(["s1", "unknown"])
    assert ids(bdc) == {"s2", "s3"}
    bdc.subscriptions.delete_of_session(["k1"])
    assert ids(bdc) == {"s3"}


def test_batches_may_be_large_and_empty(bdc):
    bdc.sessions.save([session(f"k{number}") for number in range(MANY)])
    bdc.sessions.save([session(f"k{number}") for number in range(MANY)])
    bdc.subscriptions.save([subscription(f"s{number}", session_key=f"k{number}") for number in range(MANY)])
    assert len(keys(bdc)) == len(ids(bdc)) == MANY
    for call in (bdc.sessions.save, bdc.sessions.delete, bdc.subscriptions.save, bdc.subscriptions.delete):
        call([])
    bdc.sessions.touch([], expiry_s=1)
    bdc.sessions.delete([f"k{number}" for number in range(MANY)])
    assert keys(bdc) == ids(bdc) == set()


def test_runtime_state_does_not_change_the_configuration_version(filled):
    version = filled.config_version()
    filled.sessions.save([session()])
    filled.subscriptions.save([subscription()])
    filled.instances_seen([("KP", "i1", "10.0.0.1", NOW)])
    filled.tokens_seen([("token-of-sofia", NOW)])
    filled.log([LogRecord("LOG", NOW, "x")])
    assert filled.config_version() == version


def instances(bdc, kp="KP"):
    with bdc.read() as configuration:
        return {item.name: (item.last_address, item.last_seen_at) for item in configuration.instances.all(kp)}


def test_instances_are_registered_when_they_are_seen_and_updated_later(filled):
    later = NOW + timedelta(seconds=1)
    filled.instances_seen([("KP", "i1", "a", NOW), ("KP", "i2", "b", NOW), ("NoKp", "i", "c", NOW)])
    filled.instances_seen([("KP", "i1", "d", NOW), ("KP", "i1", "e", later), ("KpOfAna", "i1", "f", NOW)])
    assert instances(filled) == {"i1": ("e", later), "i2": ("b", NOW)}
    assert instances(filled, "KpOfAna") == {"i1": ("f", NOW)}


def test_instances_with_endless_names_are_bounded_and_static_ones_stay(filled, monkeypatch):
    monkeypatch.setattr(activity, "INSTANCES_A_KP_MAX", 5)
    with filled.change() as configuration:
        configuration.instances.put_static("KP", frozenset({"static"}))
    for number in range(20):
        filled.instances_seen([("KP", f"{number:03}" + "x" * 500, "y" * 500, NOW + timedelta(seconds=number))])
    names = sorted(instances(filled))
    assert [name[:3] for name in names] == ["016", "017", "018", "019", "sta"]


def test_the_last_use_of_a_token_is_kept(filled):
    filled.tokens_seen([("token-of-sofia", NOW), ("unknown", NOW)])
    with filled.read() as configuration:
        used = {token.token: token.used_at for token in configuration.tokens.all("KP")}
    assert used == {"token-of-sofia": NOW, "token-that-is-off": None}


def test_the_process_log_is_read_newest_first(bdc):
    records = [
        LogRecord("LOG", NOW, "first", user="sofia", kp="KP", instance="i", details={"level": "WARN"}),
        LogRecord("STATUS", NOW, "second"),
        LogRecord("LOG", NOW, "third"),
    ]
    bdc.log(records)
    assert bdc.read_log(10) == records[::-1]
    assert [record.summary for record in bdc.read_log(10, kind="LOG")] == ["third", "first"]
    assert [record.summary for record in bdc.read_log(1)] == ["third"]


def test_the_process_log_forgets_its_oldest_lines(bdc, monkeypatch):
    monkeypatch.setattr(activity, "LOG_ROWS_MAX", 10)
    for number in range(7):
        bdc.log([LogRecord("LOG", NOW, f"{number}-{item}") for item in range(3)])
    summaries = [record.summary for record in bdc.read_log(100)]
    assert len(summaries) == 10
    assert summaries[0] == "6-2"


def test_over_long_lines_of_devices_are_cut(bdc):
    bdc.log([LogRecord("LOG", NOW, "x" * 1_000_000, kp="k" * 1000)])
    (record,) = bdc.read_log(1)
    assert len(record.summary) == activity.SUMMARY_CHARS_MAX
    assert len(record.kp) == 191


def test_assets_of_one_user_and_of_all(filled):
    assert filled.assets(None) == []
    with filled.change() as configuration:
        configuration.assets.put(AssetRecord("a1", "sofia", "text", "virtual", "KP", {"x": 1}))
        configuration.assets.put(AssetRecord("a2", "ana"))
    assert filled.assets("sofia") == [
        {
            "identificacion": "a1",
            "descripcion": "text",
            "tipo": "virtual",
            "propietario": "sofia",
            "kp": "KP",
            "propiedades": {"x": 1},
        }
    ]
    assert [row["identificacion"] for row in filled.assets(None)] == ["a1", "a2"]
    assert filled.assets("nobody") == []


@pytest.mark.parametrize(
    "name", ["Asset", "usuario", "ONTOLOGIA", "Permiso", "Kp", "instanciakp", "Consulta", "plantilla"]
)
def test_tables_can_be_read_in_any_case_and_hold_no_secret(filled, name):
    filled.instances_seen([("KP", "i1", "x", NOW)])
    printed = str(filled.table(name))
    for secret in ("token-of", "argon2", "key0key1"):
        assert secret not in printed


@pytest.mark.parametrize("name", ["token", "tokens", "users", "sqlite_master", "", "kp; drop table kps"])
def test_other_tables_do_not_exist(filled, name):
    with pytest.raises(NotFoundError):
        filled.table(name)


def test_threads_share_one_bdc(filled):
    failures = []

    def work(number):
        try:
            for turn in range(20):
                filled.sessions.save([session(f"{number}-{turn}")])
                filled.identify("KP", "token-of-sofia")
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(keys(filled)) == 160


def _save_until_killed(url, started):
    bdc = open_bdc(url)
    number = 0
    while True:
        bdc.sessions.save([session(f"k{number}")])
        started.put(number)
        number += 1


def test_what_was_saved_survives_kill_9(bdc, url):
    context = multiprocessing.get_context("fork")
    saved = context.SimpleQueue()
    process = context.Process(target=_save_until_killed, args=(url, saved), daemon=True)
    process.start()
    acknowledged = [saved.get() for _ in range(50)]
    process.kill()
    process.join()
    assert {f"k{number}" for number in acknowledged} <= keys(bdc)


def _work(url, number, failures):
    try:
        bdc = open_bdc(url)
        for turn in range(30):
            bdc.sessions.save([session(f"{number}-{turn}")])
            with bdc.change() as configuration:
                configuration.settings.put(f"s{number}", turn)
    except Exception as error:
        failures.put(repr(error))


def test_processes_share_one_database(bdc, url):
    context = multiprocessing.get_context("fork")
    failures = context.SimpleQueue()
    processes = [context.Process(target=_work, args=(url, number, failures), daemon=True) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert failures.empty()
    assert len(keys(bdc)) == bdc.config_version() == 120


@pytest.mark.adapters("sqlite")
def test_a_locked_database_is_unavailable_and_comes_back(url, bdc, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_MS", 50)
    other = open_bdc(url)
    with sqlite3.connect(tmp_path / "bdc.db") as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match="locked"):
            other.sessions.save([session()])
        assert "locked" in other.last_write[1]
        assert other.sessions.load() == []
        holder.execute("ROLLBACK")
    other.sessions.save([session()])
    assert other.last_write[1] is None
    assert keys(bdc) == {"k1"}
