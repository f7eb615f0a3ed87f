"""``sofia2 cep check`` and ``sofia2 cep run``: rules over files, without a platform, Ray or a clock.

Each function does what its command does and gives its exit status. Also ``python -m sofia2.cep check|run ...``.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TextIO

import orjson

from sib.cep import CepSyntaxError, Engine, check, compile_rules, parse_rules
from sib.cep.engine import TS_MAX_MS, Result
from sib.cep.lanes import Raw
from sib.cep.streams import Event
from sib.errors import SibError

DONE, WRONG_INPUT = 0, 2

LINES_PER_BATCH = 4_096

EVENTS_HELD_MAX = 65_536
"""Events of one time that are kept together."""

GARBAGE_OBJECTS = 100_000
"""New objects between two looks for garbage: a run makes many that live for a window, and no cycles."""

LINE_BYTES_MAX = 16 * 1024 * 1024
"""Longest line of a file of events or of a table."""


class FileError(Exception):
    """A file cannot be used; the message is ``FILE[:LINE]: what``."""


def check_file(rules: str, *, errors: TextIO | None = None) -> int:
    """Check a file of rules (``-`` is the standard input).

    Returns:
        0, or 2 after ``FILE:LINE:COLUMN: message`` on ``errors`` for each problem; a syntax error is followed by its line
        and a caret.
    """
    errors = errors or sys.stderr
    try:
        parsed = parse_rules(_read_text(rules))
        problems = check(parsed)
        if problems:
            raise CepSyntaxError(problems)
    except CepSyntaxError as error:
        _print_problems(rules, error, errors)
        return WRONG_INPUT
    except FileError as error:
        print(error, file=errors)
        return WRONG_INPUT
    return DONE


def run_files(
    rules: str,
    events: str,
    *,
    tables: Mapping[str, str] | None = None,
    until_ms: int | None = None,
    as_json: bool = False,
    out: BinaryIO | None = None,
    errors: TextIO | None = None,
) -> int:
    """Run rules over a file of events, in event time, and print the outputs in order.

    Args:
        rules: File of rules, separated by ``;``.
        events: File with one JSON object a line: ``stream``, ``ts`` in ms, and the attributes. ``-`` is the standard input.
        tables: Table name to file with one JSON object a line.
        until_ms: Where time goes on to behind the last event; else it ends at the newest event.
        as_json: One JSON object a line for each output, instead of a readable line.
        out: Where outputs go.
        errors: Where messages go.

    Returns:
        0, or 2 after a message: rules with problems, or a line that is no event.
    """
    out, errors = out or sys.stdout.buffer, errors or sys.stderr
    try:
        engine = compile_rules(
            _read_text(rules), tables={name: list(_read_objects(file)) for name, file in (tables or {}).items()}
        )
        form = _json_lines if as_json else _readable_lines
        _run(engine, events, until_ms, lambda results: out.write(form(results)))
        out.flush()
        _print_dropped(engine, errors)
    except BrokenPipeError:  # whoever reads the outputs has had enough
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115 - the interpreter flushes it at its end
        return DONE
    except CepSyntaxError as error:
        _print_problems(rules, error, errors)
        return WRONG_INPUT
    except (FileError, SibError) as error:
        out.flush()
        print(error, file=errors)
        return WRONG_INPUT
    return DONE


def _run(engine: Engine, events: str, until_ms: int | None, emit: Callable[[Sequence[Result]], object]) -> None:
    reader = _EventReader(engine, events)
    held: list[Raw] = []
    """The newest events: those of one time stay together, because their outputs have an order."""
    for number, values in _read_batches(events):
        stream, rows = reader.rows(values)
        if rows and all(raw[1] == stream for raw in held):
            rows = [raw[2] for raw in held] + rows
            cut = _before_newest([row[0] for row in rows])
            emit(engine.run_rows(stream, rows[:cut]))
            held = [(row[0], stream, row) for row in rows[cut:]]
            continue
        raws = held + reader.raws(number, values)
        cut = _before_newest([raw[0] for raw in raws])
        emit(engine.run_batch(raws[:cut]))
        held = raws[cut:]
    emit(engine.run_batch(held))
    newest_ms = engine.newest_ms
    if newest_ms is not None:
        emit(engine.run_advance(newest_ms if until_ms is None else max(newest_ms, until_ms)))


def _before_newest(times: Sequence[int]) -> int:
    """How many events stand before those of the last time; all where these are more than a few batches."""
    cut = len(times)
    while cut and times[cut - 1] == times[-1]:
        cut -= 1
    return cut or (len(times) if len(times) > EVENTS_HELD_MAX else 0)


class _EventReader:
    """Makes tuples of JSON values."""

    def __init__(self, engine: Engine, file: str) -> None:
        self._engine, self._file = engine, file

    def rows(self, values: Sequence[Any]) -> tuple[str, list[Event]]:
        """The fast way: stream and tuples, where all values are sound events of one stream; else no tuples."""
        try:
            streams = {value["stream"] for value in values}
            if len(streams) != 1:
                return "", []
            stream = streams.pop()
            project = self._engine.projectors.get(stream.casefold())
            if project is None or self._engine.keeps_all(stream):
                return "", []
            rows = [project(value["ts"], value) for value in values]
        except (KeyError, TypeError, AttributeError):
            return "", []
        times = [row[0] for row in rows]
        if set(map(type, times)) != {int} or max(times) >= TS_MAX_MS or min(times) <= -TS_MAX_MS:
            return "", []
        return stream, rows

    def raws(self, number: int, values: Sequence[Any]) -> list[Raw]:
        """Events of any streams.

        Raises:
            FileError: With the line, where ``number`` is that of the first value.
        """
        raws: list[Raw] = []
        projectors, find = self._engine.projectors, self._engine.find_projector
        try:
            for value in values:
                ts, stream = value.pop("ts"), value.pop("stream")
                if type(ts) is not int or not -TS_MAX_MS < ts < TS_MAX_MS:
                    ts = _whole(ts)
                project = projectors.get(stream) or find(stream)
                raws.append((ts, stream, project(ts, value)))
        except (KeyError, AttributeError, TypeError, ValueError):
            what = "an event is a JSON object with 'stream' (a text), 'ts' (whole milliseconds) and its attributes"
            raise FileError(f"{self._file}:{number + len(raws)}: {what}") from None
        return raws


def _whole(ts: Any) -> int:
    if isinstance(ts, float) and ts.is_integer() and abs(ts) < TS_MAX_MS:
        return int(ts)
    raise ValueError("not an event time")


# Reading


def _read_text(file: str) -> str:
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        return data.decode("utf-8-sig")
    except OSError as error:
        raise FileError(f"{file}: cannot be read: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise FileError(f"{file}: is not UTF-8 text") from None


def _read_batches(file: str) -> Iterator[tuple[int, list[Any]]]:
    """The JSON values of a file, in batches, each with the number of its first line. Blank lines end a batch."""
    try:
        with sys.stdin.buffer if file == "-" else Path(file).open("rb") as stream:
            number = 1
            lines: list[bytes] = []
            for line in stream:
                if len(line) > LINE_BYTES_MAX:
                    raise FileError(f"{file}:{number + len(lines)}: longer than {LINE_BYTES_MAX} bytes")
                if line.isspace():
                    yield number, _parse_lines(file, number, lines)
                    number, lines = number + len(lines) + 1, []
                    continue
                lines.append(line)
                if len(lines) >= LINES_PER_BATCH:
                    yield number, _parse_lines(file, number, lines)
                    number, lines = number + len(lines), []
            yield number, _parse_lines(file, number, lines)
    except OSError as error:
        raise FileError(f"{file}: cannot be read: {error.strerror or error}") from None


def _parse_lines(file: str, number: int, lines: list[bytes]) -> list[Any]:
    """One value a line. All lines are parsed at once; one by one only to find which is wrong."""
    try:
        values: list[Any] = orjson.loads(b"[" + b",".join(lines) + b"]")
        if len(values) == len(lines):
            return values
    except orjson.JSONDecodeError:
        pass
    values = []
    for offset, line in enumerate(lines):
        try:
            values.append(orjson.loads(line))
        except orjson.JSONDecodeError as error:
            raise FileError(f"{file}:{number + offset}: is not JSON: {error}") from None
    return values


def _read_objects(file: str) -> Iterator[dict[str, Any]]:
    for number, values in _read_batches(file):
        for offset, value in enumerate(values):
            if not isinstance(value, dict):
                raise FileError(f"{file}:{number + offset}: a row of a table is a JSON object")
            yield value


# Printing


def _json_lines(results: Sequence[Result]) -> bytes:
    if not results:
        return b""
    values = [
        {"rule": rule.label, "stream": rule.target, "ts": out[0], "data": rule.data(out[3])}
        if type(out) is tuple
        else out.as_dict()
        for _, rule, out in results
    ]
    try:
        text = orjson.dumps(values)[1:-1]
        if text.count(_BETWEEN) == len(values) - 1:  # all at once is faster, unless the data look like this too
            return text.replace(_BETWEEN, _LINE_END) + b"\n"
        return b"".join(orjson.dumps(value, None, orjson.OPT_APPEND_NEWLINE) for value in values)
    except TypeError:  # a whole number beyond 64 bits
        return b"".join(json.dumps(value, default=str).encode() + b"\n" for value in values)


_BETWEEN, _LINE_END = b'},{"rule":', b'}\n{"rule":'


def _readable_lines(results: Sequence[Result]) -> bytes:
    lines = []
    for line in _json_lines(results).splitlines():
        value = json.loads(line)
        data = json.dumps(value["data"], ensure_ascii=False)
        lines.append(f"{value['ts']}  {value['stream']} (rule {value['rule']})  {data}\n".encode())
    return b"".join(lines)


def _print_dropped(engine: Engine, errors: TextIO) -> None:
    for rule, counts in engine.counters().items():
        dropped = ", ".join(f"{what} {count}" for what, count in counts.items() if what != "held")
        if dropped:
            print(f"rule {rule} dropped: {dropped}", file=errors)


def _print_problems(file: str, error: CepSyntaxError, errors: TextIO) -> None:
    for problem in error.problems:
        print(f"{file}:{problem}", file=errors)
        if problem.snippet:
            print(problem.snippet, file=errors)


def table_option(text: str) -> tuple[str, str]:
    """``NAME=FILE`` of the option ``--table``.

    Raises:
        ValueError: Not that.
    """
    name, separator, file = text.partition("=")
    if not (name and separator and file):
        raise ValueError(f"{text!r} is not NAME=FILE.jsonl")
    return name, file


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of ``python -m sofia2.cep``."""
    parser = argparse.ArgumentParser(prog="sofia2 cep", description="CEP rules over files.")
    commands = parser.add_subparsers(dest="command", required=True)
    checking = commands.add_parser("check", help="Check a file of rules.")
    checking.add_argument("file")
    running = commands.add_parser("run", help="Run rules over a file of events.")
    running.add_argument("rules")
    running.add_argument("--events", required=True, metavar="FILE.jsonl")
    running.add_argument("--table", action="append", default=[], type=table_option, metavar="NAME=FILE.jsonl")
    running.add_argument("--until", type=int, metavar="MS")
    running.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    if options.command == "check":
        return check_file(options.file)
    gc.set_threshold(GARBAGE_OBJECTS, 20, 20)
    return run_files(
        options.rules, options.events, tables=dict(options.table), until_ms=options.until, as_json=options.json
    )


if __name__ == "__main__":
    sys.exit(main())
