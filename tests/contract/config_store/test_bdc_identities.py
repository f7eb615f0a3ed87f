"""Who joins: by token, by password, and whether a session may go on."""

from dataclasses import replace

import pytest

from sib.access import Permission, Rights, Role
from sib.errors import AuthenticationError, NotFoundError
from storage.bdc.passwords import REMEMBER_S, PasswordChecker, hash_password, is_password_hash, verify_password

PASSWORD = "correct horse"


def change_user(bdc, name, **changes):
    with bdc.change() as configuration:
        configuration.users.put(replace(configuration.users.get(name), **changes))


def test_a_token_gives_the_owner_of_its_kp(filled):
    identity = filled.identify("KP", "token-of-sofia")
    assert (identity.kp, identity.user, identity.role) == ("KP", "sofia", Role.COLABORADOR)
    assert (identity.cipher_key, identity.cipher_only) == ("key0key1key2key3", False)
    assert identity.credential.startswith("token:")
    assert "token-of-sofia" not in repr(identity)


@pytest.mark.parametrize(
    ("kp", "token"),
    [
        ("KP", "token-of-ana"),
        ("KP", "token-that-is-off"),
        ("KP", "unknown-token"),
        ("KP", ""),
        ("NoKp", "token-of-sofia"),
        ("kp", "token-of-sofia"),
        ("KP", "TOKEN-OF-SOFIA"),
        ("KP", "\ud800"),
        ("\udc00", "token-of-sofia"),
    ],
)
def test_a_wrong_token_is_refused_in_the_same_words(filled, kp, token):
    with pytest.raises(AuthenticationError) as error:
        filled.identify(kp, token)
    with pytest.raises(AuthenticationError) as usual:
        filled.identify("KP", "nonsense")
    assert str(error.value) == str(usual.value)


def test_the_token_of_an_inactive_owner_is_refused(filled):
    change_user(filled, "sofia", active=False)
    with pytest.raises(AuthenticationError):
        filled.identify("KP", "token-of-sofia")


@pytest.mark.parametrize("user", ["sofia", "root"])
def test_owner_and_administrator_join_by_password(filled, user):
    identity = filled.identify_user("KP", user, PASSWORD)
    assert identity.user == user
    assert identity.credential.startswith("user:")


@pytest.mark.parametrize(
    ("kp", "user", "password"),
    [
        ("KP", "ana", PASSWORD),
        ("KP", "sofia", "wrong"),
        ("KP", "sofia", ""),
        ("KP", "Sofia", PASSWORD),
        ("KP", "nobody", PASSWORD),
        ("NoKp", "sofia", PASSWORD),
        ("KP", "sofia", "x" * 1_000_000),
        ("KP", "sofia", "\ud800"),
        ("KP", "\ud800", PASSWORD),
    ],
)
def test_wrong_passwords_and_strangers_are_refused(filled, kp, user, password):
    with pytest.raises(AuthenticationError):
        filled.identify_user(kp, user, password)


def test_a_changed_password_counts_at_once(filled):
    filled.identify_user("KP", "sofia", PASSWORD)
    change_user(filled, "sofia", password_hash=hash_password("new password"))
    with pytest.raises(AuthenticationError):
        filled.identify_user("KP", "sofia", PASSWORD)
    filled.identify_user("KP", "sofia", "new password")


def test_an_inactive_user_cannot_log_in_although_his_password_is_remembered(filled):
    assert filled.log_in("sofia", PASSWORD) is Role.COLABORADOR
    change_user(filled, "sofia", active=False)
    with pytest.raises(AuthenticationError):
        filled.log_in("sofia", PASSWORD)


def test_a_user_without_password_cannot_log_in(filled):
    change_user(filled, "sofia", password_hash="")
    for password in ("", PASSWORD):
        with pytest.raises(AuthenticationError):
            filled.log_in("sofia", password)


def test_successes_are_remembered_for_a_time_and_failures_are_not(monkeypatch):
    now = [0.0]
    checks = []
    checker = PasswordChecker(lambda: now[0])

    def verify(password_hash, password):
        checks.append(password)
        return password == "right"

    monkeypatch.setattr("storage.bdc.passwords.verify_password", verify)
    assert [checker.is_right("h", "right"), checker.is_right("h", "right")] == [True, True]
    assert [checker.is_right("h", "wrong"), checker.is_right("h", "wrong")] == [False, False]
    assert checks == ["right", "wrong", "wrong"]
    assert checker.is_right("other hash", "right")
    assert checks[3:] == ["right"]
    now[0] = REMEMBER_S
    checker.is_right("h", "right")
    assert checks[4:] == ["right"]


def test_the_memory_of_passwords_is_bounded(monkeypatch):
    monkeypatch.setattr("storage.bdc.passwords.REMEMBERED_MAX", 3)
    monkeypatch.setattr("storage.bdc.passwords.verify_password", lambda *_: True)
    checker = PasswordChecker(lambda: 0.0)
    for number in range(10):
        assert checker.is_right("h", str(number))
    assert len(checker._remembered) == 3


def test_hashes_are_argon2id_with_their_own_salt():
    first, second = hash_password("x"), hash_password("x")
    assert first.startswith("$argon2id$")
    assert first != second
    assert verify_password(first, "x")
    assert not verify_password(first, "y")
    assert not verify_password("nonsense", "x")
    assert is_password_hash(first)
    assert not is_password_hash("$2b$12$bcrypt")


def test_rights_of_owner_administrator_and_others(filled):
    assert filled.rights("KP", "sofia") == {"Open": Rights.ALL, "Closed": Rights.ALL}
    assert filled.rights("KP", "root") == {"Open": Rights.ALL, "Closed": Rights.ALL}
    assert filled.rights("KpOfAna", "ana") == {"Open": Rights.QUERY, "Closed": Rights.QUERY}
    assert filled.rights("NoKp", "ana") == {}
    assert filled.rights("KP", "nobody") == {}


def test_rights_follow_the_permissions(filled):
    with filled.change() as configuration:
        configuration.ontologies.grant("Open", "ana", Permission.INSERT)
        configuration.ontologies.grant("Closed", "ana", None)
    assert filled.rights("KpOfAna", "ana") == {"Open": Rights.QUERY | Rights.INSERT, "Closed": Rights.NONE}


def test_an_inactive_user_has_no_rights(filled):
    change_user(filled, "ana", active=False)
    assert filled.rights("KpOfAna", "ana") == {}


def test_cipher_keys_and_owner_of_a_kp(filled):
    assert filled.cipher_keys()["KP"] == "key0key1key2key3"
    assert filled.owner_of("KpOfAna") == "ana"
    with pytest.raises(NotFoundError):
        filled.owner_of("NoKp")


def holders(bdc):
    by_token = bdc.identify("KP", "token-of-sofia")
    by_user = bdc.identify_user("KP", "root", PASSWORD)
    of_ana = bdc.identify("KpOfAna", "token-of-ana")
    return [(identity.kp, identity.user, identity.credential) for identity in (by_token, by_user, of_ana)]


def test_sessions_go_on_while_nothing_changed(filled):
    assert [identity.user for identity in filled.recheck(holders(filled))] == ["sofia", "root", "ana"]
    assert filled.recheck([]) == []


def turn_off_token(configuration):
    configuration.tokens.put(replace(configuration.tokens.get("token-of-sofia"), active=False))


def delete_token(configuration):
    configuration.tokens.delete("token-of-sofia")


def give_away_kp(configuration):
    configuration.kps.put(replace(configuration.kps.get("KP"), owner="ana"))


def deactivate_owner(configuration):
    configuration.users.put(replace(configuration.users.get("sofia"), active=False))


def change_password(configuration):
    configuration.users.put(replace(configuration.users.get("root"), password_hash=hash_password("new")))


def delete_kp(configuration):
    configuration.kps.delete("KP")


def demote_administrator(configuration):
    configuration.users.put(replace(configuration.users.get("root"), role=Role.USUARIO))


@pytest.mark.parametrize(
    ("revoke", "alive"),
    [
        (turn_off_token, [False, True, True]),
        (delete_token, [False, True, True]),
        (give_away_kp, [False, True, True]),
        (deactivate_owner, [False, True, True]),
        (change_password, [True, False, True]),
        (delete_kp, [False, False, True]),
        (demote_administrator, [True, False, True]),
    ],
)
def test_a_session_ends_when_it_could_not_be_opened_again(filled, revoke, alive):
    sessions = holders(filled)
    with filled.change() as configuration:
        revoke(configuration)
    assert [identity is not None for identity in filled.recheck(sessions)] == alive


def test_a_recheck_gives_the_new_cipher_key(filled):
    sessions = holders(filled)
    with filled.change() as configuration:
        configuration.kps.put(replace(configuration.kps.get("KP"), cipher_key="new", cipher_only=True))
    identity = filled.recheck(sessions)[0]
    assert (identity.cipher_key, identity.cipher_only) == ("new", True)


def test_more_sessions_than_fit_into_one_statement(filled):
    strangers = [(f"kp{number}", f"user{number}", "user") for number in range(1200)]
    checked = filled.recheck([*strangers, *holders(filled)])
    assert [identity is not None for identity in checked] == [False] * 1200 + [True] * 3
