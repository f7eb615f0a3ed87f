# mypy: ignore-errors
"""The names that scripts of Sofia2 use, on top of ``sofia``.

Source: Sofia2 documentation, API of scripts (APISofia, ApiGroovy, APIUtils, APIRTDB, APISSAP, APIHttpConnection).
"""

# ``current`` (gives the ``sofia`` of the run), ``dig``, ``as_text`` and ``RuleError`` are put here by ``blocks.py``.
import json

NAMES = ("APISofia", "ApiGroovy", "APIUtils", "APIRTDB", "APIBDTR", "APISSAP", "APIHttpConnection")


class APISofia:
    """``getValue`` and ``sendMail``."""

    def getValue(self, instance, path):
        """The value at a dotted path, as text; None if there is none."""
        value = dig(json.loads(instance), path)  # noqa: F821
        return value if value is None or isinstance(value, str) else json.dumps(value)

    def sendMail(self, to, subject, body):
        """Send a mail."""
        current().sendMail(to, subject, body)  # noqa: F821


class ApiGroovy(APISofia):
    """The older name."""


class APIUtils:
    """``getValueJson``."""

    def getValueJson(self, text, key):
        """A part of a JSON object: maps and lists as JSON text, everything else as text."""
        value = json.loads(text).get(key)
        return value if value is None or isinstance(value, str) else json.dumps(value)


class APIRTDB:
    """``insertInBDTR`` and ``query``."""

    def insertInBDTR(self, token, kp_instance, ontology, instance):
        """Insert in the name of a KP instance."""
        kp, _, name = kp_instance.partition(":")
        current().insert(ontology, instance, kp=kp, instance_name=name, token=token)  # noqa: F821
        return "OK"

    def query(self, text, ontology=None, type=None):
        """What a query finds, as JSON text."""
        return json.dumps(current().query(text, ontology, type))  # noqa: F821


APIBDTR = APIRTDB


class APISSAP:
    """SSAP messages."""

    def sendInsertMessage(self, token, kp_instance, ontology, instance):
        """Insert in the name of a KP instance."""
        return APIRTDB().insertInBDTR(token, kp_instance, ontology, instance)


class APIHttpConnection:
    """HTTP requests."""

    def httpGET(self, url):
        """The body of the answer to a GET."""
        return current().http("GET", url).text  # noqa: F821

    def httpPOST(self, url, body, content_type="application/json"):
        """Make a POST when the block ends well."""
        current().http("POST", url, as_text(body), {"Content-Type": content_type})  # noqa: F821
