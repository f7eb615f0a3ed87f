"""Restarts, grants and names of KPs that the platform runs."""

import pytest

from actors.kp.grants import check_may_deploy, unregistered
from actors.kp.manifest import Manifest
from actors.kp.places import worker_name
from actors.kp.restarts import FAILURES_MAX, PAUSE_S_MAX, STEADY_S, Restarts
from sib.access import Role
from sib.errors import AuthorizationError
from storage.bdc.records import KpRecord, UserRecord


def test_pauses_grow_and_then_it_is_paused():
    restarts = Restarts()
    pauses = [restarts.failed(0.1) for _ in range(FAILURES_MAX)]
    assert pauses[:3] == [1.0, 2.0, 4.0]
    assert all(pause <= PAUSE_S_MAX for pause in pauses[:-1])
    assert pauses[-1] is None


def test_failures_in_a_row_are_counted():
    restarts = Restarts()
    restarts.failed(0.1)
    restarts.failed(0.1)
    assert restarts.failed(STEADY_S) == 1.0
    restarts.failed(0.1)
    restarts.succeeded()
    assert restarts.failed(0.1) == 1.0


def test_whose_kps_are_run():
    check_may_deploy(UserRecord("admin", Role.ADMINISTRADOR), ())
    check_may_deploy(UserRecord("ana", Role.COLABORADOR), ["ana"])
    for user, deployers in (
        (None, ("ana",)),
        (UserRecord("ana", Role.COLABORADOR), ("sofia",)),
        (UserRecord("ana", Role.USUARIO), ("ana",)),
        (UserRecord("admin", Role.ADMINISTRADOR, active=False), ()),
    ):
        with pytest.raises(AuthorizationError):
            check_may_deploy(user, deployers)


def test_ontologies_that_are_not_the_kps():
    kp = KpRecord("A", "sofia", frozenset({"X"}))
    assert unregistered(Manifest("A", "b", "main.py", ("X", "Y")), kp) == ["Y"]
    assert unregistered(Manifest("A", "b", "main.py"), kp) == []


def test_names_of_actors_are_different_and_fit_for_files():
    names = {worker_name(kp, instance) for kp, instance in (("a", "b:c"), ("a:b", "c"), ("a/b", "c"), ("a b", "c"))}
    assert len(names) == 4
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for name in names)
    assert len(worker_name("K" * 191, "i" * 191)) < 60
