"""The stages of aggregation pipelines. Each module registers its stages when it is imported."""
