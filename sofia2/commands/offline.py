"""``sofia2 sandbox``: a tool that needs no platform; its command line is read in its module."""

from __future__ import annotations

import typer


def sandbox(context: typer.Context) -> int:
    """Run a file exactly as a KP runs, and see how well this machine isolates: sandbox run FILE, sandbox check."""
    from sofia2.sandbox import main

    return main(context.args)
