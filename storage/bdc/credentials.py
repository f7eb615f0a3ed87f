"""What a session keeps of the secret it was opened with: enough to check it again, useless to join with."""

from __future__ import annotations

import hashlib

_DIGEST_BYTES = 16


def token_credential(token: str) -> str:
    """The credential of a JOIN by token; the table of tokens is indexed by it."""
    return f"token:{_digest(token)}"


def password_credential(password_hash: str) -> str:
    """The credential of a JOIN by password: another one as soon as the password is changed."""
    return f"user:{_digest(password_hash)}"


def is_token_credential(credential: str) -> bool:
    """Whether a session was opened by token."""
    return credential.startswith("token:")


def _digest(secret: str) -> str:
    return hashlib.blake2b(secret.encode(), digest_size=_DIGEST_BYTES).hexdigest()
