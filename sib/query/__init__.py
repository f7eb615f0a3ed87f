"""Queries: shell text and SQL-like to one plan, and the exact semantics that every store is compared with."""
