"""Passwords: argon2 hashes, and a memory of the checks that just succeeded.

argon2 is slow on purpose (some 50 ms); a thousand JOINs a second of known users must not wait for it.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable

from argon2 import PasswordHasher, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError

from sib.errors import ConfigurationError

REMEMBER_S = 300.0
"""How long a successful check is remembered; a changed password is felt at once all the same."""
REMEMBERED_MAX = 10_000
PASSWORD_BYTES_MAX = 4096
PASSWORD_CHARS_ADVISED = 8

_HASHER = PasswordHasher()


def hash_password(password: str) -> str:
    """An argon2id hash with its own salt.

    Raises:
        ConfigurationError: the password is empty or above 4096 bytes.
    """
    if not password or not _is_acceptable(password):
        raise ConfigurationError(
            f"A password has at least one character and at most {PASSWORD_BYTES_MAX} bytes of UTF-8."
        )
    return _HASHER.hash(password)


def is_password_hash(text: str) -> bool:
    """Whether a text is an argon2 hash in the usual ``$argon2id$…`` form."""
    try:
        extract_parameters(text)
    except InvalidHashError:
        return False
    return True


def verify_password(password_hash: str, password: str) -> bool:
    """Whether the password belongs to the hash. An empty hash belongs to no password."""
    try:
        return _HASHER.verify(password_hash, password)
    except (VerifyMismatchError, VerificationError, InvalidHashError):
        return False


def _is_acceptable(password: str) -> bool:
    try:
        return len(password.encode()) <= PASSWORD_BYTES_MAX
    except UnicodeEncodeError:  # half a character
        return False


class PasswordChecker:
    """Verifies passwords and remembers successes under a key that lives only in this process. Safe for threads.

    The memory holds keyed digests of (hash, password), never a password; a new hash in the BDC is a new entry, so a
    changed password counts from the next JOIN on.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._key = secrets.token_bytes(32)
        self._remembered: OrderedDict[bytes, float] = OrderedDict()
        self._lock = threading.Lock()
        self._nobody = hash_password(secrets.token_hex(16))

    def is_right(self, password_hash: str, password: str) -> bool:
        """Check a password. "" as hash (no such user, or none set) is wrong, after as long as any wrong one."""
        if not _is_acceptable(password):
            return False
        digest = self._digest(password_hash, password)
        if self._is_remembered(digest):
            return True
        is_right = verify_password(password_hash or self._nobody, password) and bool(password_hash)
        if is_right:
            self._remember(digest)
        return is_right

    def _digest(self, password_hash: str, password: str) -> bytes:
        return hashlib.blake2b(f"{password_hash}\0{password}".encode(), key=self._key, digest_size=32).digest()

    def _is_remembered(self, digest: bytes) -> bool:
        with self._lock:
            return self._remembered.get(digest, float("-inf")) > self._monotonic()

    def _remember(self, digest: bytes) -> None:
        with self._lock:
            self._remembered[digest] = self._monotonic() + REMEMBER_S
            self._remembered.move_to_end(digest)
            while len(self._remembered) > REMEMBERED_MAX:
                self._remembered.popitem(last=False)
