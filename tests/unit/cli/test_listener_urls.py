"""``--listener NAME=URL?option=value&…``."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.gateway.mqtt_options import ListenerOptions
from sib.errors import ConfigurationError
from sofia2.listeners import parse_listener, split_listener


def test_the_listener_of_the_interoperability_suite():
    text = (
        "suite=mqtt://127.0.0.1:1884?ssap=false&pubsub=true&receive_max=20&server_keep_alive_s=60"
        "&topic_alias_max=10&deny_subscribe=test/nosubscribe"
    )
    listener = parse_listener(*split_listener(text))
    assert (listener.name, listener.kind, listener.host, listener.port) == ("suite", "mqtt", "127.0.0.1", 1884)
    assert ListenerOptions(**listener.options) == ListenerOptions(
        ssap=False,
        pubsub=True,
        receive_max=20,
        server_keep_alive_s=60,
        topic_alias_max=10,
        deny_subscribe=("test/nosubscribe",),
    )


def test_a_table_is_read_like_a_url():
    table = {
        "url": "mqtt://127.0.0.1:1884?auth=true",
        "pubsub": True,
        "deny_subscribe": ["a", "b"],
        "connections_max": 3,
    }
    assert parse_listener("own", table).options == {
        "auth": True,
        "pubsub": True,
        "deny_subscribe": ("a", "b"),
        "connections_max": 3,
    }


@pytest.mark.parametrize(
    ("url", "port"), [("mqtt://h", 1883), ("http://h", 8080), ("mqtt://h:0", 0), ("mqtt://[::1]:9", 9)]
)
def test_ports(url, port):
    assert parse_listener("own", url).port == port


@pytest.mark.parametrize("value", ["off", ""])
def test_off(value):
    assert parse_listener("own", value) is None


def test_a_tls_listener_may_have_a_certificate_of_its_own():
    listener = parse_listener("own", "mqtts://h?tls_cert=c.pem&tls_key=k.pem", tls_cert="other", tls_key="other")
    assert (listener.certificate, listener.key, listener.options) == ("c.pem", "k.pem", {})


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("Own", "mqtt://h", "lower-case word"),
        ("own", "ftp://h", "kind of mqtt, mqtts, http, https"),
        ("own", "mqtt://h/path", "KIND://HOST:PORT"),
        ("own", "mqtt://user:pw@h", "KIND://HOST:PORT"),
        ("own", "mqtt://h:99999", "cannot be read"),
        ("own", "mqtt://h?pubsup=1", "did you mean 'pubsub'?"),
        ("own", "mqtt://h?pubsub=maybe", "is true or false"),
        ("own", "mqtt://h?receive_max=-1", "whole number"),
        ("own", "mqtt://h?receive_max=0", "at least 1"),
        ("own", "mqtts://h", "needs a certificate"),
        ("own", {"pubsub": True}, "needs a URL"),
    ],
)
def test_wrong_ones_are_refused_with_what_is_allowed(name, value, sentence):
    with pytest.raises(ConfigurationError) as caught:
        parse_listener(name, value)
    assert sentence in caught.value.message
    assert "user:pw" not in caught.value.message


def test_a_listener_without_a_name_is_refused():
    with pytest.raises(ConfigurationError, match="NAME=URL"):
        split_listener("mqtt://127.0.0.1:1884?ssap=false")


@given(st.text(max_size=60), st.text(max_size=100))
def test_any_text_gives_a_listener_or_a_sentence(name, url):
    try:
        listener = parse_listener(name, url)
    except ConfigurationError:
        return
    assert listener is None or listener.name == name
