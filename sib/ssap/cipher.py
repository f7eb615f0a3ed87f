"""XXTEA as Sofia2's clients do it: with the arithmetic shift of signed 32-bit integers, so not the standard cipher.

A ciphered payload is the Base64 of the ciphered text. In front of a JOIN stands ``<length>#<KP>``, so that the SIB can
choose the key. Sources: Sofia2 java-api kp/encryption/XXTEA.java:89,145-162 and CypheredSSAPPayloadHandler.java:32-48,
javascript-api XXTEA.js:101.
"""

from __future__ import annotations

import re
import struct
from base64 import b64decode, b64encode

from sib.errors import AuthenticationError

CIPHERED_CHARACTERS_MAX = 131_072
"""The longest ciphered payload that is read: deciphering that many takes about 60 ms of Python."""
KP_NAME_CHARACTERS_MAX = 255

_DELTA = 0x9E3779B9
_MASK = 0xFFFFFFFF
_SIGN = 0x80000000
_PREFIX = re.compile(r"\s*(\d{1,3})#")
_BASE64 = re.compile(r"[A-Za-z0-9+/=]+")


def is_clear(payload: bytes | str) -> bool:
    """Whether a payload goes to the parser as it is.

    It does if its first character that is not blank is ``{``, and also if it cannot be a ciphered one (blank, or with
    characters that Base64 does not have): then the parser says what is wrong with it.
    """
    if payload[:1] in (b"{", "{"):
        return True
    text = _text(payload)
    if text is None:
        return True
    return text.lstrip()[:1] == "{" or _BASE64.fullmatch(split_join_prefix(text)[1]) is None


def split_join_prefix(payload: bytes | str) -> tuple[str | None, str]:
    """Takes the KP's name off a ciphered JOIN: (name, Base64), or (None, Base64) without a prefix."""
    text = _text(payload) or ""
    prefix = _PREFIX.match(text)
    if prefix is None:
        return None, text.strip()
    start, length = prefix.end(), int(prefix[1])
    if length > KP_NAME_CHARACTERS_MAX or start + length > len(text):
        return None, text.strip()
    return text[start : start + length], text[start + length :].strip()


def encipher(text: str, key: str) -> str:
    """The Base64 of the ciphered UTF-8 text."""
    data = text.encode()
    words = _words(data)
    words.append(len(data))
    return b64encode(struct.pack(f"<{len(words)}I", *_encrypt(words, _key_words(key)))).decode()


def decipher(text: str, key: str, *, size_max: int = CIPHERED_CHARACTERS_MAX) -> str:
    """The text back.

    Raises:
        AuthenticationError: this key does not open it, or it is longer than ``size_max`` characters.
    """
    if len(text) > size_max:
        raise AuthenticationError(
            f"The ciphered message has {len(text)} characters, and at most {size_max} are allowed: send it in clear"
        )
    try:
        data = b64decode(text, validate=True)
        if len(data) < 8 or len(data) % 4:
            raise ValueError
        words = _decrypt(list(struct.unpack(f"<{len(data) // 4}I", data)), _key_words(key))
        length = words.pop()
        if not 4 * (len(words) - 1) < length <= 4 * len(words):
            raise ValueError
        return struct.pack(f"<{len(words)}I", *words)[:length].decode()
    except ValueError:  # also what Base64 and UTF-8 raise
        raise AuthenticationError("The message cannot be deciphered with the key of this KP: check the key") from None


def _text(payload: bytes | str) -> str | None:
    if isinstance(payload, str):
        return payload
    try:
        return payload.decode()
    except UnicodeDecodeError:
        return None


def _words(data: bytes) -> list[int]:
    data += b"\x00" * (-len(data) % 4)
    return list(struct.unpack(f"<{len(data) // 4}I", data))


def _key_words(key: str) -> list[int]:
    return _words(key.encode()[:16].ljust(16, b"\x00"))


def _encrypt(v: list[int], key: list[int]) -> list[int]:
    """Enciphers words in place. Names as in the published algorithm (Wheeler and Needham, Correction to xtea)."""
    n = len(v) - 1
    if n < 1:
        return v
    z, total = v[n], 0
    for _ in range(6 + 52 // (n + 1)):
        total = (total + _DELTA) & _MASK
        e = total >> 2 & 3
        for p in range(n + 1):
            y = v[p + 1] if p < n else v[0]
            z = v[p] = (v[p] + _mix(y, z, total, key[p & 3 ^ e])) & _MASK
    return v


def _decrypt(v: list[int], key: list[int]) -> list[int]:
    n = len(v) - 1
    if n < 1:
        return v
    y, rounds = v[0], 6 + 52 // (n + 1)
    for step in range(rounds, 0, -1):
        total = (step * _DELTA) & _MASK
        e = total >> 2 & 3
        for p in range(n, -1, -1):
            z = v[p - 1] if p > 0 else v[n]
            y = v[p] = (v[p] - _mix(y, z, total, key[p & 3 ^ e])) & _MASK
    return v


def _mix(y: int, z: int, total: int, key_word: int) -> int:
    # `(x ^ _SIGN) - _SIGN` reads an unsigned word as signed, so that `>>` copies its sign as Java's does.
    shifted = (((z ^ _SIGN) - _SIGN >> 5) ^ (y << 2)) + (((y ^ _SIGN) - _SIGN >> 3) ^ (z << 4))
    return shifted ^ ((total ^ y) + (key_word ^ z))
