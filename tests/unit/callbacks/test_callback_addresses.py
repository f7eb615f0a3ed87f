"""Which addresses callbacks may go to."""

from __future__ import annotations

import pytest

from actors.gateway.callback_post import ENDPOINT_CHARS_MAX, check_endpoint
from actors.outgoing import AddressPolicy
from sib.errors import ConfigurationError, MalformedMessageError


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"]
)
def test_public_addresses_are_always_allowed(address):
    assert AddressPolicy([]).allows(address)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.9.1",
        "::1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "::",
        "224.0.0.1",
        "ff0e::1",
        "255.255.255.255",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::1",
    ],
)
def test_other_addresses_only_when_listed(address):
    assert not AddressPolicy([]).allows(address)
    plain = address.partition("%")[0]
    if plain.startswith(("127", "10", "fc", "fe")):
        assert AddressPolicy([plain]).allows(address)


def test_a_listed_network_covers_its_forms():
    policy = AddressPolicy(["10.0.0.0/8", "fd00::/8"])
    assert policy.allows("10.255.0.1")
    assert policy.allows("::ffff:10.255.0.1")
    assert policy.allows("fd12::1")
    assert not policy.allows("11.0.0.1") or AddressPolicy([]).allows("11.0.0.1")
    assert not policy.allows("192.168.0.1")


def test_other_networks_are_taken_over_in_one_piece():
    policy = AddressPolicy(["10.0.0.0/8"])
    policy.permit(["192.168.0.0/16"])
    assert policy.allows("192.168.0.1")
    assert not policy.allows("10.0.0.1")
    with pytest.raises(ConfigurationError):
        policy.permit(["10.0.0.0/8", "ten"])
    assert policy.allows("192.168.0.1")


@pytest.mark.parametrize("text", ["ten", "10.0.0.0/33", ""])
def test_what_is_no_network_is_a_configuration_error(text):
    with pytest.raises(ConfigurationError, match=r"rest\.callback_allow"):
        AddressPolicy([text])


@pytest.mark.parametrize(
    ("hosts", "is_loopback"),
    [
        (["127.0.0.1"], True),
        (["localhost", "::1", "[::1]"], True),
        (["127.0.0.1", "0.0.0.0"], False),
        (["192.168.1.5"], False),
        (["gateway.example.org"], False),
    ],
)
def test_loopback_is_allowed_while_the_listeners_are_on_loopback(hosts, is_loopback):
    assert AddressPolicy(AddressPolicy.default_allow(hosts)).allows("127.0.0.1") is is_loopback


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://h/",
        "https://h:8443/p?a=b",
        "http://8.8.8.8/",
        "http://[2001:4860:4860::8888]:80/x",
        "http://127.0.0.1:1/",
    ],
)
def test_endpoints_that_can_be_called(endpoint):
    check_endpoint(endpoint, AddressPolicy(["127.0.0.0/8"]))


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "h:80/x",
        "//h/x",
        "ftp://h/",
        "file:///etc/passwd",
        "http://",
        "http://:80/",
        "http://h:99999/",
        "http://h:x/",
        "http://[::1/",
        "http://user:password@h/",
        "http://10.1.2.3/",
        "http://[fe80::1]/",
        "http://169.254.169.254/latest/meta-data",
        "http://h/" + "x" * ENDPOINT_CHARS_MAX,
        "http://h/\nx",
    ],
)
def test_endpoints_that_can_never_be_called(endpoint):
    with pytest.raises(MalformedMessageError):
        check_endpoint(endpoint, AddressPolicy(["127.0.0.0/8"]))
