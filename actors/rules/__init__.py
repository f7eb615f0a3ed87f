"""Script rules: programs of users that run when something happens. How they are written: ``docs/rules.md``."""

from actors.rules.runner import RuleRunner

__all__ = ["RuleRunner"]
