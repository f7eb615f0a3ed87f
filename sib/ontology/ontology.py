"""An ontology in use: its compiled schema, and instances through it into the store and out again."""

from __future__ import annotations

from typing import Any

import bson
import jsonschema_rs
import orjson

from sib.errors import InvalidInstanceError
from sib.ontology import sample, schema
from sib.ontology.conversion import UnconvertibleError, to_bson, unwrap_numbers
from sib.ontology.instance import INSTANCE_BYTES_MAX, as_json, check_integers, explain, parse_instance
from sib.ontology.messages import describe, print_value
from sib.ontology.shape import Shape
from sib.query.extended import to_extended

Text = bytes | str


def compile_ontology(name: str, schema_text: str, *, version: int = 1) -> Ontology:
    """Compile the text of a schema (draft-03 or draft-04) for the ontology ``name``.

    Raises:
        SchemaError: the text is no usable schema; the message says what to do.
    """
    return Ontology(name, schema_text, version)


class Ontology:
    """One version of an ontology. Immutable, safe to share between threads, and pickled as its text.

    ``root`` is the key under which instances live, None if un-rooted; ``schema`` the normalised draft-04 schema;
    ``schema_text`` the text as it was given.
    """

    __slots__ = ("_convert", "_is_valid", "_shape", "_validator", "name", "root", "schema", "schema_text", "version")

    def __init__(self, name: str, schema_text: str, version: int = 1) -> None:
        self.name = name
        self.version = version
        self.schema_text = schema_text
        written = schema.parse_schema(schema_text)
        self.schema = schema.normalise(written)
        self._validator = schema.compile_validator(self.schema, schema.draft_of(written))
        schema.check_expansion(self.schema)
        self._is_valid = self._validator.is_valid
        self._shape = Shape(self.schema)
        self._convert = self._shape.converter()
        self.root = self._shape.root

    def __reduce__(self) -> tuple[Any, ...]:
        return Ontology, (self.name, self.schema_text, self.version)

    def __repr__(self) -> str:
        return f"Ontology({self.name!r}, version={self.version}, root={self.root!r})"

    def encode(self, text: Text | dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
        """Read an instance; return its BSON and its fields as BSON values.

        A top-level ``_id`` and ``contextData`` are taken out, whether or not the schema names them; then the instance
        is validated and its extended JSON converted. A dict (of a parsed statement) may hold BSON values already and
        is not changed. This is the hot path of INSERT.

        Raises:
            InvalidInstanceError: it cannot be read, does not conform, cannot be stored, or is over
                ``INSTANCE_BYTES_MAX``; path, value and rule are named.
        """
        try:
            document = orjson.loads(text)  # type: ignore[arg-type]
        except (ValueError, TypeError):
            document = parse_instance(text)
        else:
            check_integers(text)  # type: ignore[arg-type]
        if type(document) is not dict:
            document = parse_instance(text)
        if "_id" in document:
            del document["_id"]
        if "contextData" in document:
            del document["contextData"]
        is_valid = self._conforms(document)
        if not is_valid:
            self._validate_unwrapped(document)
        try:
            document = self._convert(document) if is_valid else to_bson(document)
            encoded = bson.encode(document)
        except Exception as error:  # dates, integers and names that are good JSON and no BSON: they must fail alone
            raise explain(document, error) from error
        if len(encoded) > INSTANCE_BYTES_MAX:
            raise InvalidInstanceError(f"instance: {len(encoded)} bytes are more than {INSTANCE_BYTES_MAX}: send less.")
        return encoded, document

    def read(self, text: Text | dict[str, Any]) -> dict[str, Any]:
        """Read an instance like ``encode``; return its fields as BSON values only."""
        return self.encode(text)[1]

    def validate(self, instance: dict[str, Any]) -> None:
        """Validate an instance that is plain JSON, without ``_id`` and ``contextData``. ``format`` is not asserted.

        ``{"$numberLong": "5"}`` and its like are valid where a number is.

        Raises:
            InvalidInstanceError: names path, value and rule of one fault.
        """
        if not self._conforms(instance):
            self._validate_unwrapped(instance)

    def validate_document(self, document: dict[str, Any]) -> None:
        """Validate a stored document (BSON values, ``_id``, ``contextData``), as after an update.

        Raises:
            InvalidInstanceError: names path, value and rule of one fault.
        """
        self.validate(as_json({key: value for key, value in document.items() if key not in schema.TAKEN_OUT}))

    def to_json(self, document: dict[str, Any]) -> dict[str, Any]:
        """A stored document as extended JSON."""
        printed: dict[str, Any] = to_extended(document)
        return printed

    def resolve_column(self, path: str) -> str:
        """The path in a stored document that a column of a SQL-like statement means.

        Raises:
            UnknownFieldError: the ontology has no such field.
        """
        return self._shape.resolve_column(self.name, path)

    def is_date(self, path: str) -> bool:
        """Whether the values at a path of a stored document are dates."""
        return self._shape.is_date(path)

    def type_of(self, path: str) -> str:
        """The JSON type of the values at a path of a stored document; "string" if the schema names none or several."""
        return self._shape.type_of(path)

    def has_path(self, path: str) -> bool:
        """Whether an instance may have a value at a path; false only where the schema is closed."""
        return self._shape.has_path(path)

    def fields(self) -> list[str]:
        """The names of the declared fields: those of the root, or of the schema if it has none."""
        return self._shape.fields()

    def sample(self) -> dict[str, Any]:
        """A generated instance that validates, as plain JSON.

        Raises:
            SchemaError: none could be made (a schema that no instance fits, or a pattern).
        """
        return sample.generate(self._shape, self.schema, self.validate)

    def _conforms(self, instance: dict[str, Any]) -> bool:
        try:
            return self._is_valid(instance)
        except ValueError as error:  # the validator has a bound on nesting, too, higher than ours
            raise explain(instance, RecursionError()) from error

    def _validate_unwrapped(self, document: dict[str, Any]) -> None:
        """``{"$numberLong": "5"}`` is another spelling of a number, so it is valid where the number is."""
        try:
            plain = unwrap_numbers(document)
        except UnconvertibleError as error:
            raise explain(document, error) from error
        if not self._conforms(plain):
            raise InvalidInstanceError(self._fault(plain))

    def _fault(self, instance: dict[str, Any]) -> str:
        try:
            self._validator.validate(instance)
        except jsonschema_rs.ValidationError as error:
            hint = f": put the fields under {print_value(self.root)}" if self.root and not error.instance_path else ""
            return f"{describe(error)}{hint}"
        return "instance: it does not conform to its schema"
