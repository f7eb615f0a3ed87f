"""BDTR, the real-time database: the instances of every ontology."""
