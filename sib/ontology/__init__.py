"""Ontologies: JSON Schema, validation, instances and the catalogue of templates."""

from sib.ontology.context import context_data
from sib.ontology.ontology import Ontology, compile_ontology
from sib.ontology.templates import TEMPLATES, Template, template

__all__ = ["TEMPLATES", "Ontology", "Template", "compile_ontology", "context_data", "template"]
