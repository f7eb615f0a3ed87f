"""The pre-processing hook of a transfer: a pipeline that reshapes each instance on its way to the history.

Source: the original's "Clase Preprocesamiento Paso BDTR a BDH", a Java class inside the server. Here it is the pipeline of an
update: it can compute and rearrange the fields of one instance and do nothing else, whoever wrote it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sib.errors import SibError
from sib.query.budget import Context
from sib.query.pipeline import compile_document_pipeline

KEPT = ("_id", "contextData")
"""What the pipeline cannot change: it says which instance it is, and of what day."""


class Preparation:
    """Reshapes instances. One that the pipeline fails on (a value of another type) goes as it is, and is counted."""

    def __init__(self, stages: Sequence[Mapping[str, Any]], now: datetime) -> None:
        self._run = compile_document_pipeline(list(stages), Context(None, now))
        self.n_unprepared = 0

    def __call__(self, documents: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [self._prepared(document) for document in documents]

    def _prepared(self, document: dict[str, Any]) -> dict[str, Any]:
        try:
            made = self._run(document)
        except (SibError, RecursionError):
            self.n_unprepared += 1
            return document
        head = {name: document[name] for name in KEPT if name in document}
        return {**head, **{name: value for name, value in made.items() if name not in KEPT}}
