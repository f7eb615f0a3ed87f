"""Who may do what."""

import itertools

import pytest

from sib.access import (
    Identity,
    Permission,
    Rights,
    Role,
    authorize,
    check_may_join,
    may_create_ontologies,
    may_manage,
    permission_name,
    rights_of,
)
from sib.errors import AuthenticationError, AuthorizationError, OntologyNotFoundError

OPERATIONS = ("INSERT", "QUERY", "SUBSCRIBE", "UPDATE", "DELETE")


def rights_for(*, user="ana", role=Role.USUARIO, is_public=False, permission=None):
    return rights_of(user, role, owner="sofia", is_public=is_public, permission=permission)


def may(operation, rights):
    try:
        authorize(operation, "O", {"O": rights}, is_known=True, is_active=True)
    except AuthorizationError:
        return False
    return True


@pytest.mark.parametrize(
    ("rights", "allowed"),
    [
        (rights_for(user="sofia"), set(OPERATIONS)),
        (rights_for(role=Role.ADMINISTRADOR), set(OPERATIONS)),
        (rights_for(permission=Permission.ALL), set(OPERATIONS)),
        (rights_for(permission=Permission.INSERT), {"INSERT"}),
        (rights_for(permission=Permission.QUERY), {"QUERY", "SUBSCRIBE"}),
        (rights_for(is_public=True), {"QUERY", "SUBSCRIBE"}),
        (rights_for(is_public=True, permission=Permission.INSERT), {"INSERT", "QUERY", "SUBSCRIBE"}),
        (rights_for(), set()),
        (rights_for(role=Role.COLABORADOR), set()),
    ],
)
def test_operations_follow_owner_role_publicity_and_permission(rights, allowed):
    assert {operation for operation in OPERATIONS if may(operation, rights)} == allowed


def test_user_names_are_case_sensitive():
    assert rights_for(user="Sofia") is Rights.NONE


@pytest.mark.parametrize(("registered", "is_active"), itertools.product((False, True), (False, True)))
def test_an_unknown_ontology_is_not_found_whatever_else_is_wrong(registered, is_active):
    rights = {"O": Rights.ALL} if registered else {}
    with pytest.raises(OntologyNotFoundError, match="'O'"):
        authorize("INSERT", "O", rights, is_known=False, is_active=is_active)


def test_an_ontology_that_the_kp_is_not_registered_for_is_refused():
    with pytest.raises(AuthorizationError, match="not registered"):
        authorize("QUERY", "O", {"P": Rights.ALL}, is_known=True, is_active=True)


def test_an_inactive_ontology_is_refused_even_to_its_owner():
    with pytest.raises(AuthorizationError, match="not active"):
        authorize("QUERY", "O", {"O": Rights.ALL}, is_known=True, is_active=False)


def test_a_message_that_is_no_operation_on_an_ontology_is_a_fault_of_the_caller():
    with pytest.raises(KeyError):
        authorize("JOIN", "O", {"O": Rights.ALL}, is_known=True, is_active=True)


@pytest.mark.parametrize(
    ("rights", "name"),
    [(Rights.ALL, "ALL"), (Rights.INSERT, "INSERT"), (Rights.QUERY, "QUERY"), (Rights.NONE, "")],
)
def test_permission_name_of_rights(rights, name):
    assert permission_name(rights) == name


def test_only_the_owner_or_an_administrator_joins_by_password():
    check_may_join("KP", "sofia", "sofia", Role.USUARIO)
    check_may_join("KP", "sofia", "root", Role.ADMINISTRADOR)
    with pytest.raises(AuthenticationError):
        check_may_join("KP", "sofia", "ana", Role.COLABORADOR)


def test_management():
    assert may_manage("sofia", Role.USUARIO, owner="sofia")
    assert may_manage("root", Role.ADMINISTRADOR, owner="sofia")
    assert not may_manage("ana", Role.COLABORADOR, owner="sofia")
    assert [role for role in Role if may_create_ontologies(role)] == [Role.ADMINISTRADOR, Role.COLABORADOR]


def test_an_identity_does_not_print_its_cipher_key():
    identity = Identity("KP", "sofia", Role.ADMINISTRADOR, "key0key1key2key3", cipher_only=False)
    assert "key0" not in repr(identity)
    assert identity.is_administrator
