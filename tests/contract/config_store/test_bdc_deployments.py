"""KPs that run inside the platform: releases, states, and what is kept."""

import pytest

from sib.access import Role
from sib.errors import LimitError, NotFoundError
from storage.bdc.deployments import RELEASES_KEPT, SECRET_CHARS_MAX, RunState
from storage.bdc.records import KpRecord, UserRecord


def deploy(bdc, content, instance="one", kp="KP1"):
    with bdc.change() as configuration:
        return configuration.deployments.deploy(kp, instance, content, {"entry": "main.py"}, user="sofia")


def get(bdc, instance="one"):
    with bdc.read() as configuration:
        return configuration.deployments.get("KP1", instance)


@pytest.fixture
def deployed(bdc):
    with bdc.change() as configuration:
        configuration.users.put(UserRecord("sofia", Role.ADMINISTRADOR))
        configuration.kps.put(KpRecord("KP1", "sofia"))
    assert deploy(bdc, b"first") == 1
    return bdc


def test_a_deployment_shall_run_for_its_owner(deployed):
    found = get(deployed)
    assert (found.kp, found.instance, found.owner, found.state) == ("KP1", "one", "sofia", RunState.RUNNING)
    assert (found.release, found.starts, found.manifest) == (1, 1, {"entry": "main.py"})
    with deployed.read() as configuration:
        assert configuration.deployments.bundle(found.bundle) == b"first"
        assert configuration.deployments.all() == [found]
        assert configuration.deployments.get("KP1", "two") is None


def test_a_new_release_replaces_and_an_old_one_can_be_taken_again(deployed):
    before = deployed.config_version()
    assert deploy(deployed, b"second") == 2
    assert deployed.config_version() > before
    assert (get(deployed).release, get(deployed).starts) == (2, 2)
    with deployed.change() as configuration:
        configuration.deployments.start("KP1", "one", release=1)
        assert configuration.deployments.releases("KP1", "one") == [1, 2]
    assert (get(deployed).release, get(deployed).starts) == (1, 3)
    assert deploy(deployed, b"third") == 3
    with deployed.change() as configuration, pytest.raises(NotFoundError):
        configuration.deployments.start("KP1", "one", release=9)


def test_old_releases_and_their_files_go(deployed):
    first = get(deployed).bundle
    for number in range(RELEASES_KEPT):
        deploy(deployed, b"release %d" % number)
    with deployed.read() as configuration:
        assert configuration.deployments.releases("KP1", "one") == list(range(2, RELEASES_KEPT + 2))
        with pytest.raises(NotFoundError):
            configuration.deployments.bundle(first)


def test_the_same_files_are_kept_once(deployed):
    deploy(deployed, b"first", instance="two")
    assert get(deployed).bundle == get(deployed, "two").bundle
    with deployed.change() as configuration:
        configuration.deployments.delete("KP1", "one")
        digest = configuration.deployments.get("KP1", "two").bundle
        assert configuration.deployments.bundle(digest) == b"first"
        configuration.deployments.delete("KP1", "two")
        with pytest.raises(NotFoundError):
            configuration.deployments.bundle(digest)
        with pytest.raises(NotFoundError):
            configuration.deployments.delete("KP1", "two")


def test_a_worker_that_is_late_does_not_stop_what_was_started_since(deployed):
    with deployed.change() as configuration:
        assert configuration.deployments.set_state("KP1", "one", RunState.PAUSED, "it failed", starts=1)
    assert (get(deployed).state, get(deployed).detail) == (RunState.PAUSED, "it failed")
    with deployed.change() as configuration:
        configuration.deployments.start("KP1", "one")
    with deployed.change() as configuration:
        assert not configuration.deployments.set_state("KP1", "one", RunState.PAUSED, "it failed", starts=1)
        assert configuration.deployments.set_state("KP1", "one", RunState.STOPPED)
        assert not configuration.deployments.set_state("KP1", "one", RunState.STOPPED)
    assert get(deployed).state is RunState.STOPPED
    with deployed.change() as configuration:
        with pytest.raises(NotFoundError):
            configuration.deployments.set_state("KP1", "two", RunState.STOPPED)
        with pytest.raises(NotFoundError):
            configuration.deployments.deploy("Nobody", "one", b"x", {}, user="sofia")


def test_they_go_with_their_kp(deployed):
    with deployed.change() as configuration:
        configuration.kps.delete("KP1")
    with deployed.read() as configuration:
        assert configuration.deployments.all() == []


def test_secrets_of_a_kp(deployed):
    with deployed.change() as configuration:
        repository = configuration.deployments
        repository.put_secret("KP1", "mail", "first")
        repository.put_secret("KP1", "mail", "second")
        repository.put_secret("KP1", "empty", "")
        assert repository.secret_names("KP1") == ["empty", "mail"]
        assert (repository.secret("KP1", "mail"), repository.secret("KP1", "empty")) == ("second", "")
        for name in ("Mail", "other"):
            with pytest.raises(NotFoundError):
                repository.secret("KP1", name)
        with pytest.raises(LimitError):
            repository.put_secret("KP1", "long", "x" * (SECRET_CHARS_MAX + 1))
        with pytest.raises(NotFoundError):
            repository.put_secret("Nobody", "mail", "x")
        repository.delete_secret("KP1", "mail")
        repository.delete_secret("KP1", "mail")
        assert repository.secret_names("KP1") == ["empty"]
