"""What the command prints: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

DONE, NO, WRONG_INPUT, TAKEN, TIMED_OUT, NOT_PERMITTED, FAULT = 0, 1, 2, 3, 4, 5, 70
"""The exit statuses of every command."""
PIPE_COLUMNS = 500
"""Tables that nobody looks at on a terminal are not squeezed."""


class CliError(Exception):
    """The command cannot do what was asked: exit status, a sentence with what to do, and facts for ``--json``."""

    def __init__(self, status: int, message: str, **facts: Any) -> None:
        super().__init__(status, message)
        self.status, self.message, self.facts = status, message, facts


class Output:
    """Where and how this command prints. One per process; ``--json`` switches it."""

    def __init__(self) -> None:
        self.is_json = False
        self._consoles: dict[bool, Console] = {}

    def console(self, *, is_result: bool = False) -> Console:
        """A console on standard output (results) or standard error."""
        from rich.console import Console

        if is_result not in self._consoles:
            file = sys.stdout if is_result else sys.stderr
            width = None if file.isatty() else PIPE_COLUMNS
            self._consoles[is_result] = Console(file=file, highlight=False, width=width)
        return self._consoles[is_result]

    def say(self, text: str) -> None:
        """A sentence about what happens, for a person."""
        print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """A sentence that the person should act on."""
        self.console().print(f"warning: {text}", style="yellow", markup=False, soft_wrap=True)

    def busy(self, text: str) -> AbstractContextManager[Any]:
        """Something moves on the terminal while the block runs; its ``update`` changes the text."""
        return self.console().status(text)

    def result(self, value: Any, lines: Iterable[str] | None = None) -> None:
        """The answer of the command: the value with ``--json``, else its lines (the value itself without any)."""
        if self.is_json:
            print(json.dumps(value, ensure_ascii=False, default=str), flush=True)
        else:
            for line in [str(value)] if lines is None else lines:
                print(line, flush=True)

    def table(
        self,
        value: Any,
        columns: Sequence[str],
        rows: Iterable[Iterable[Any]],
        *,
        title: str = "",
        instead: Iterable[str] | None = None,
    ) -> None:
        """The answer as a table; with ``--json`` the value. ``instead``: lines to print when the terminal is too narrow."""
        if self.is_json:
            self.result(value)
            return
        from rich import box
        from rich.table import Table

        table = Table(*columns, title=title or None, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
        for row in rows:
            table.add_row(*(_cell(value) for value in row))
        console = self.console(is_result=True)
        if instead is not None and console.measure(table).maximum > console.width:
            self.result(value, instead)
        else:
            console.print(table)

    def fail(self, status: int, message: str, **facts: Any) -> int:
        """An error: one sentence, and with ``--json`` also a value on standard output. Gives the exit status."""
        self.console().print(f"sofia2: {message}", style="red", markup=False, soft_wrap=True)
        if self.is_json:
            self.result({"error": message, "status": status, **facts})
        return status


def _cell(value: Any) -> str:
    from rich.markup import escape

    if value is None or value == "":
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple | set | frozenset):
        return escape(", ".join(map(str, value))) or "-"
    return escape(str(value))


output = Output()
