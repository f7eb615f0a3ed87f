"""The words of SSAP: message types, query types, and the three dialects of the published clients."""

from __future__ import annotations

from enum import IntEnum, StrEnum


class MessageType(StrEnum):
    """What a message asks for. Source: Sofia2 android-api ssap/SSAPMessageTypes.java:21-67."""

    NONE = "NONE"
    JOIN = "JOIN"
    LEAVE = "LEAVE"
    INSERT = "INSERT"
    UPDATE = "UPDATE"
    DELETE = "DELETE"
    QUERY = "QUERY"
    SUBSCRIBE = "SUBSCRIBE"
    UNSUBSCRIBE = "UNSUBSCRIBE"
    INDICATION = "INDICATION"
    BULK = "BULK"
    CONFIG = "CONFIG"
    CREATE = "CREATE"
    DELETEINDEX = "DELETEINDEX"
    GETINDEXES = "GETINDEXES"
    LOG = "LOG"
    ERROR = "ERROR"
    STATUS = "STATUS"
    LOCATION = "LOCATION"
    SUBSCRIBECOMMAND = "SUBSCRIBECOMMAND"
    COMMAND = "COMMAND"


class QueryType(StrEnum):
    """How the text of a query is to be read, in the order of the ordinals that dotnet-api sends.

    ``SQL`` behaves as ``SQLLIKE``. Source: Sofia2 android-api ssap/SSAPQueryType.java:24-29.
    """

    NATIVE = "NATIVE"
    SQLLIKE = "SQLLIKE"
    SIB_DEFINED = "SIB_DEFINED"
    CEP = "CEP"
    BDH = "BDH"
    BDC = "BDC"
    SQL = "SQL"

    @property
    def is_sql_like(self) -> bool:
        """Whether the text is a SQL-like statement on ontologies."""
        return self is QueryType.SQLLIKE or self is QueryType.SQL


class Dialect(IntEnum):
    """How the body of a question was shaped; the answer has the same shape.

    STRING: the body is a JSON string (C, Arduino, Node.js, Node-RED, Java of 2016).
    OBJECT: an object or array without ``@type`` (Python, JavaScript, iOS).
    ONE: the body has ``@type``, or the envelope says version ONE (Android, Java of 2018, .NET).
    """

    STRING = 0
    OBJECT = 1
    ONE = 2


QUERY_TYPES: dict[object, QueryType] = {
    None: QueryType.NATIVE,
    "": QueryType.NATIVE,
    "null": QueryType.NATIVE,
    **{kind.value: kind for kind in QueryType},
    **dict(enumerate(QueryType)),
    **{str(ordinal): kind for ordinal, kind in enumerate(QueryType)},
    "HDB": QueryType.BDH,  # python-api's names for BDH and BDC
    "CDB": QueryType.BDC,
}
"""Every spelling of a query type on the wire. Absent means NATIVE over SSAP."""
