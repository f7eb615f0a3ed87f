"""Errors as data: every refusal of the platform has a stable code, an SSAP code, an HTTP status and a sentence.

All fields are in ``args``, so an error survives pickling and reaches the caller of a Ray actor as what it was.
The sentence says what happened and what to do. It is shown to users: never put a secret into it.
"""

from __future__ import annotations

from enum import StrEnum


class SSAPErrorCode(StrEnum):
    """The error codes of the wire, spelled as on the wire (``AUTENTICATION`` is misspelt there).

    Source: Sofia2 android-api ssap/SSAPErrorCode.java.
    """

    AUTHENTICATION = "AUTENTICATION"
    AUTHORIZATION = "AUTHORIZATION"
    PROCESSOR = "PROCESSOR"
    PERSISTENCE = "PERSISTENCE"
    PARSE_SQL = "PARSE_SQL"
    ONTOLOGY_NOT_FOUND = "ONTOLOGY_NOT_FOUND"
    SIB_DEFINED_QUERY_NOT_FOUND = "SIB_DEFINED_QUERY_NOT_FOUND"
    MAX_CONCURRENT_QUERIES_REACHED = "MAX_CONCURRENT_QUERIES_REACHED"
    OTHER = "OTHER"


class SibError(Exception):
    """A refusal or failure with a stable code. Subclasses set the class attributes.

    ``status`` is the HTTP status over REST; ``is_retryable`` says whether the same request may succeed later unchanged.
    """

    code = "sib.internal"
    ssap_code = SSAPErrorCode.OTHER
    status = 500
    is_retryable = False

    def __init__(self, message: str) -> None:
        super().__init__(message)

    @property
    def message(self) -> str:
        return str(self.args[0])


class AuthenticationError(SibError):
    """Wrong token or password, or a session that is dead or unknown: JOIN again."""

    code, ssap_code, status = "access.unauthenticated", SSAPErrorCode.AUTHENTICATION, 401


class AuthorizationError(SibError):
    """The session is good but this KP or user may not do this."""

    code, ssap_code, status = "access.denied", SSAPErrorCode.AUTHORIZATION, 400


class OntologyNotFoundError(SibError):
    """No such ontology."""

    code, ssap_code, status = "ontology.not_found", SSAPErrorCode.ONTOLOGY_NOT_FOUND, 400


class SchemaError(SibError):
    """The text is not a usable JSON Schema for an ontology."""

    code, ssap_code, status = "ontology.bad_schema", SSAPErrorCode.PERSISTENCE, 400


class InvalidInstanceError(SibError):
    """The instance does not conform to its ontology; the message names path, rule and value."""

    code, ssap_code, status = "ontology.invalid_instance", SSAPErrorCode.PERSISTENCE, 400


class MalformedMessageError(SibError):
    """The SSAP message cannot be read."""

    code, ssap_code, status = "ssap.malformed", SSAPErrorCode.OTHER, 400


class QuerySyntaxError(SibError):
    """The native query cannot be read, or uses something that is refused."""

    code, ssap_code, status = "query.syntax", SSAPErrorCode.OTHER, 400


class SqlSyntaxError(SibError):
    """The SQL-like statement cannot be read, or uses something that is refused."""

    code, ssap_code, status = "query.sql_syntax", SSAPErrorCode.PARSE_SQL, 400


class UnknownFieldError(SibError):
    """A SQL-like statement names a field that its ontology does not have."""

    code, ssap_code, status = "query.unknown_field", SSAPErrorCode.PERSISTENCE, 400


class QueryError(SibError):
    """The query was read but cannot be carried out on these data (an operator on a wrong type, for example)."""

    code, ssap_code, status = "query.failed", SSAPErrorCode.OTHER, 400


class QueryTimeoutError(SibError):
    """The query was over its time and has been stopped."""

    code, ssap_code, status = "query.time_limit", SSAPErrorCode.OTHER, 400


class DefinedQueryNotFoundError(SibError):
    """No predefined (SIB_DEFINED) query has this name."""

    code, ssap_code, status = "query.defined_not_found", SSAPErrorCode.SIB_DEFINED_QUERY_NOT_FOUND, 400


class DuplicateKeyError(SibError):
    """A write would give two instances the same value of a unique index. Nothing of it was written."""

    code, ssap_code, status = "store.duplicate_key", SSAPErrorCode.PERSISTENCE, 400


class NotConfiguredError(SibError):
    """The request needs a module that is off or does not exist yet."""

    code, ssap_code, status = "platform.not_configured", SSAPErrorCode.OTHER, 400


class UnsupportedError(SibError):
    """The platform refuses this kind of request on purpose."""

    code, ssap_code, status = "platform.unsupported", SSAPErrorCode.OTHER, 400


class NotFoundError(SibError):
    """What the request names does not exist (a subscription, an instance id)."""

    code, ssap_code, status = "platform.not_found", SSAPErrorCode.OTHER, 400


class LimitError(SibError):
    """A named bound was reached; the message gives the bound."""

    code, ssap_code, status = "platform.limit", SSAPErrorCode.OTHER, 400


class OverloadedError(SibError):
    """Too much is waiting; nothing of this request was done."""

    code, ssap_code, status, is_retryable = "platform.overloaded", SSAPErrorCode.OTHER, 503, True


class TooManyQueriesError(SibError):
    """As many queries as allowed run already; nothing of this one was done."""

    code, ssap_code, status = "query.too_many", SSAPErrorCode.MAX_CONCURRENT_QUERIES_REACHED, 503
    is_retryable = True


class StoreUnavailableError(SibError):
    """The database cannot decide now. A write may or may not have been stored: send it again.

    ``reason`` is why, in few words of ours that anybody may read ("" if not known); the message may also quote the driver.
    """

    code, ssap_code, status, is_retryable = "store.unavailable", SSAPErrorCode.PERSISTENCE, 503, True

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.args = message, reason

    @property
    def reason(self) -> str:
        return str(self.args[1])


class StoreError(SibError):
    """The database refused the operation."""

    code, ssap_code, status = "store.failed", SSAPErrorCode.PERSISTENCE, 400


class ConfigurationError(SibError):
    """A setting, an applied file or an option is wrong; the message says which and what is allowed."""

    code, ssap_code, status = "platform.configuration", SSAPErrorCode.OTHER, 400


def error_of_code(code: str, message: str) -> SibError:
    """The error that another process told by its code, as its own class; SibError itself if the code is unknown here."""
    kinds = [SibError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    return next((kind for kind in kinds if kind.code == code), SibError)(message)
