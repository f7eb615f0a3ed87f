"""The cipher of the old clients: vectors made by java-api's and javascript-api's own classes."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sib.errors import AuthenticationError
from sib.ssap.cipher import CIPHERED_CHARACTERS_MAX, decipher, encipher, is_clear, split_join_prefix

VECTORS = [
    ("key0key1key2key3", "hello world", "rlfipU+FDNJUXGi9DvRTVA=="),
    (
        "key0key1key2key3",
        '{"body":"","direction":"REQUEST","messageType":"LEAVE","sessionKey":"0d9ba4be-6a4c-4d8e-b8f1-0c1a2b3c4d5e"}',
        "+QI+hctPTu9MFakobkITc1E0qF1VF5ZJ2f9NfRsmmc9r9kPNMr8sOWI6/9RAt0vjkn+0yBgn7dWjw6OGXEhFLk56gS+Ow+QT+Hni0MDptK4mD1Gh"
        "DUzzfpAH0h00+KANZTyWED08Yh4pbc/Cdgi60A==",
    ),
    ("k", "áéí ñ €", "7cY3vtw4n7y9bkZ2KB/w94blzsM="),
]


@pytest.mark.parametrize(("key", "text", "ciphered"), VECTORS)
def test_vectors(key, text, ciphered):
    assert encipher(text, key) == ciphered
    assert decipher(ciphered, key) == text


def test_it_is_not_the_standard_cipher():
    assert encipher("hello world", "key0key1key2key3") != "0n4lJDEcuAE0fz3/FGo1/g=="


@given(st.text(min_size=1, max_size=200), st.text(max_size=20))
def test_round_trip(text, key):
    assert decipher(encipher(text, key), key) == text


def test_only_sixteen_bytes_of_the_key_count_and_short_keys_are_padded():
    assert encipher("text", "0123456789abcdef") == encipher("text", "0123456789abcdefXYZ")
    assert encipher("text", "k") == encipher("text", "k\0\0\0")


@pytest.mark.parametrize(("key", "text", "ciphered"), VECTORS)
def test_a_wrong_key_is_refused(key, text, ciphered):
    with pytest.raises(AuthenticationError):
        decipher(ciphered, "another key")


@pytest.mark.parametrize(
    "text", ["", "A", "AAAA", "====", "not base64!", "rlfipU+FDNJUXGi9DvRTVA", "AAAAAAAAAAA=", "é"]
)
def test_what_is_no_cipher_is_refused(text):
    with pytest.raises(AuthenticationError):
        decipher(text, "key")


@given(st.binary(max_size=80))
def test_no_other_exception(data):
    try:
        decipher(base64.b64encode(data).decode(), "key")
    except AuthenticationError:
        return


def test_the_length_is_bounded():
    with pytest.raises(AuthenticationError, match=str(CIPHERED_CHARACTERS_MAX)):
        decipher("A" * (CIPHERED_CHARACTERS_MAX + 4), "key")


def test_the_key_is_not_in_the_error():
    with pytest.raises(AuthenticationError) as caught:
        decipher("AAAA", "S3CRET")
    assert "S3CRET" not in str(caught.value)


@pytest.mark.parametrize(
    ("payload", "kp", "rest"),
    [
        (b"17#KPTestTemperaturarlfipU+FDNJUXGi9DvRTVA==", "KPTestTemperatura", "rlfipU+FDNJUXGi9DvRTVA=="),
        (" 2#KPAAAA\n", "KP", "AAAA"),
        ("3#a#bAAAA", "a#b", "AAAA"),
        ("4#KPñ1AAAA", "KPñ1", "AAAA"),
        ("rlfipU+FDNJUXGi9DvRTVA==", None, "rlfipU+FDNJUXGi9DvRTVA=="),
        ("99#short", None, "99#short"),
        ("256#" + "A" * 300, None, "256#" + "A" * 300),
        ("#AAAA", None, "#AAAA"),
        ("", None, ""),
        (b"\xff\xfe", None, ""),
    ],
)
def test_join_prefix(payload, kp, rest):
    assert split_join_prefix(payload) == (kp, rest)


@pytest.mark.parametrize(
    ("payload", "clear"),
    [
        (b'{"messageType":"JOIN"}', True),
        ('{"messageType":"JOIN"}', True),
        (b' \r\n\t{"a":1', True),
        ("{", True),
        (b"", True),
        (b"  ", True),
        (b"\xff\xfe", True),
        (b"not json", True),
        (b"[1,2]", True),
        (b"17#KPTestTemperaturarlfipU+FDNJUXGi9DvRTVA==", False),
        ("rlfipU+FDNJUXGi9DvRTVA==", False),
        (b" AAAA\n", False),
        (b"3#a#bAAAA", False),
    ],
)
def test_is_clear(payload, clear):
    assert is_clear(payload) is clear


def test_long_payloads_are_judged_in_one_pass():
    assert is_clear("9#" + "A" * 1_900_000 + "!")
    assert not is_clear("9#" + "A" * 1_900_000)
