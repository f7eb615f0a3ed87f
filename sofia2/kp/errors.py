"""What can go wrong on the client's side; what the platform refuses comes as the ``SibError`` of its SSAP code."""

from __future__ import annotations

from sib import errors
from sib.errors import SibError, SSAPErrorCode


class ConnectionLostError(SibError):
    """The connection ended before the answer came: a write may or may not be stored. Send it again if that is harmless."""

    code, status, is_retryable = "kp.connection_lost", 503, True


class RequestTimeoutError(SibError):
    """No answer came in time: a write may or may not be stored."""

    code, status, is_retryable = "kp.time_out", 503, True


class RefusedError(SibError):
    """The platform refused with code OTHER, or with one that this client does not know."""

    code, status = "kp.refused", 400


class ProcessorError(SibError):
    """The platform refused with code PROCESSOR."""

    code, ssap_code, status = "kp.processor", SSAPErrorCode.PROCESSOR, 400


_BY_CODE: dict[str, type[SibError]] = {
    SSAPErrorCode.AUTHENTICATION: errors.AuthenticationError,
    SSAPErrorCode.AUTHORIZATION: errors.AuthorizationError,
    SSAPErrorCode.PROCESSOR: ProcessorError,
    SSAPErrorCode.PERSISTENCE: errors.StoreError,
    SSAPErrorCode.PARSE_SQL: errors.SqlSyntaxError,
    SSAPErrorCode.ONTOLOGY_NOT_FOUND: errors.OntologyNotFoundError,
    SSAPErrorCode.SIB_DEFINED_QUERY_NOT_FOUND: errors.DefinedQueryNotFoundError,
    SSAPErrorCode.MAX_CONCURRENT_QUERIES_REACHED: errors.TooManyQueriesError,
}


def error_of(code: object, sentence: object) -> SibError:
    """The exception for an answer's errorCode, with the server's sentence."""
    return _BY_CODE.get(str(code), RefusedError)(str(sentence or "the platform refused the request"))
