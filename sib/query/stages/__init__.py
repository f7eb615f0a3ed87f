"""The stages of aggregation pipelines. Each module registers its stages when it is imported."""

from sib.query.stages import grouping, joining, output, shaping, windows

__all__ = ["grouping", "joining", "output", "shaping", "windows"]
