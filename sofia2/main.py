"""Entry of the command: tools that need no platform start at once, everything else through the tree of commands.

Loading the tree takes longer than a whole run of such a tool.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Carry out the command line of this process and end it with its status."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["sandbox"]:
        from sofia2 import sandbox

        sys.exit(sandbox.main(arguments[1:]))
    if arguments[:1] == ["cep"] and arguments[1:2] in (["check"], ["run"]):
        from sofia2 import cep

        sys.exit(cep.main(arguments[1:]))
    from sofia2.cli import main as run_tree

    run_tree()
