"""Ontologies: JSON Schema, validation, instances and the catalogue of templates."""
