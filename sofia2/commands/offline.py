"""``sofia2 cep`` and ``sofia2 sandbox``: tools that need no platform. Each has a command line of its own, read in its module."""

from __future__ import annotations

import typer


def cep(context: typer.Context) -> int:
    """Check rules and run them over files of events: cep check FILE, cep run RULES --events FILE.jsonl."""
    from sofia2.cep import main

    return main(context.args)


def sandbox(context: typer.Context) -> int:
    """Run a file exactly as a KP runs, and see how well this machine isolates: sandbox run FILE, sandbox check."""
    from sofia2.sandbox import main

    return main(context.args)
