"""The process of one platform: it starts Ray and the actors, answers ``status`` and ``stop``, and ends what it started.

Run as ``python -m sofia2.daemon DATA [--lock-fd N] [--with-parent]``; it reads ``DATA/run/config.json`` and reports on standard
output, a JSON object a line: ``{"event": "progress"|"ready"|"failed", ...}``. Invariant: it is the ancestor of every process of
its platform, and each of them has its data folder in the environment (``SOFIA2_DATA``); nothing else is ever ended by it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import fcntl
import hashlib
import json
import logging
import os
import resource
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from actors.config import PLATFORM, Limits, Listener, PlatformConfig, Topology

log = logging.getLogger("sofia2.daemon")

EXIT_TAKEN, EXIT_TIMEOUT, EXIT_FAULT = 3, 4, 70
STOP_S = 20.0
ENDED_S = 8.0
LOCK_WAIT_S = 0.3
"""How long a lock is waited for: whoever only looks whether it is held has it for a moment."""
CONTROL_BYTES_MAX = 64 * 1024
OPEN_FILES = 1 << 20


class StartError(Exception):
    """The platform cannot start: exit status and what to do."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(status, message)
        self.status, self.message = status, message


def config_to_json(config: PlatformConfig) -> str:
    """The configuration as the daemon reads it."""
    return json.dumps(dataclasses.asdict(config))


def config_from_json(text: str) -> PlatformConfig:
    """The inverse of :func:`config_to_json`."""
    value = json.loads(text)
    value["topology"] = Topology(**{key: tuple(names) for key, names in value["topology"].items()})
    lists = {key: tuple(item) for key, item in value["limits"].items() if isinstance(item, list)}
    value["limits"] = Limits(**{**value["limits"], **lists})
    value["listeners"] = tuple(Listener(**listener) for listener in value["listeners"])
    value["modules"] = tuple(value["modules"])
    return PlatformConfig(**value)


class RunFolder:
    """``DATA/run``: the lock, what runs there, and where to talk to it."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.path = data / "run"
        self.config = self.path / "config.json"
        self.state = self.path / "platform.json"
        self.token = self.path / "ray_token"
        self.log = self.path / "platform.log"
        # Ray's and our own sockets need a short path, whatever the data folder's is.
        name = hashlib.blake2b(str(data.resolve()).encode(), digest_size=6).hexdigest()
        self.temp = Path(tempfile.gettempdir()) / f"sofia2-{name}"
        self.control = self.temp / "control"

    def lock(self) -> IO[str]:
        """Hold the data folder for this process.

        Raises:
            StartError: a platform runs on it already.
        """
        file = (self.path / "lock").open("a+")
        deadline = time.monotonic() + LOCK_WAIT_S
        while not _is_locked_by_us(file):
            if time.monotonic() > deadline:
                file.close()
                raise StartError(
                    EXIT_TAKEN,
                    f"a platform runs already on {self.data}: use 'sofia2 status' or 'sofia2 stop --data {self.data}'",
                )
            time.sleep(LOCK_WAIT_S / 10)
        self.sign(file)
        return file

    @staticmethod
    def sign(file: IO[str]) -> None:
        """Note in the lock who holds it."""
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()

    def holder(self) -> int | None:
        """The process that holds the lock: a platform that runs, starts or stops. None when there is none."""
        try:
            with (self.path / "lock").open("r+") as file:
                # Locked and still empty: it has just begun. 0 would mean our own process group to whoever signals it.
                return None if _is_locked_by_us(file) else int(file.read() or 0) or None
        except (OSError, ValueError):
            return None

    def running(self) -> dict[str, Any] | None:
        """What the platform on this folder wrote when it was ready, None when none runs."""
        try:
            state: dict[str, Any] = json.loads(self.state.read_text())
        except (OSError, ValueError):
            return None
        return state if self.holder() == state.get("pid") else None


def _is_locked_by_us(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def claim_ports(listeners: tuple[Listener, ...]) -> tuple[Listener, ...]:
    """Check that every port is free, and choose one for those that said 0.

    Raises:
        StartError: a port is taken or may not be used; it is named.
    """
    claimed = []
    for listener in listeners:
        family = socket.AF_INET6 if ":" in listener.host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind((listener.host, listener.port))
                # SO_REUSEADDR lets us bind beside a listener of the wildcard address: ask whether anybody answers.
                trial.listen(1)
            except OSError as error:
                raise StartError(
                    EXIT_TAKEN,
                    f"the port {listener.port} of listener {listener.name} on {listener.host} cannot be used ({error.strerror}): "
                    f"stop what uses it, or choose another one {_where_to_choose(listener)}",
                ) from None
            claimed.append(dataclasses.replace(listener, port=trial.getsockname()[1]))
    return tuple(claimed)


def _where_to_choose(listener: Listener) -> str:
    standard = ("mqtt", "mqtts", "http", "https", "serve")
    return f"with --{listener.name}-port" if listener.name in standard else f"in the URL of listeners.{listener.name}"


def endpoints(config: PlatformConfig) -> dict[str, str]:
    """The URLs of the listeners, by name."""
    return {listener.name: _url(listener) for listener in config.listeners}


def _url(listener: Listener) -> str:
    scheme = "http" if listener.kind == "serve" else listener.kind
    host = f"[{listener.host}]" if ":" in listener.host else listener.host
    return f"{scheme}://{host}:{listener.port}"


class Daemon:
    """One running platform."""

    def __init__(self, folder: RunFolder, config: PlatformConfig, *, is_with_parent: bool = False) -> None:
        self._folder, self._config = folder, config
        self._is_with_parent = is_with_parent
        self._stopping = asyncio.Event()
        self._began = time.time()
        self._told: dict[str, Any] = {}
        self._platform_pid = self._platform_restarts = 0

    async def run(self) -> None:
        """Start, serve until told to stop, and stop.

        Raises:
            StartError: the platform could not start; what was started has ended again.
        """
        from actors import runtime

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        if self._is_with_parent:
            loop.add_reader(sys.stdin.fileno(), self._parent_spoke)
        report("progress", text="starting Ray")
        self._prepare()
        await asyncio.to_thread(
            runtime.start_ray,
            self._folder.temp / "r",
            environment={"SOFIA2_DATA": self._config.data},
            token_file=self._folder.token,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        try:
            await self._start_platform()
            server = await asyncio.start_unix_server(self._serve_control, self._folder.control)
            self._folder.control.chmod(0o600)
            state = {"pid": os.getpid(), "data": self._config.data, "endpoints": endpoints(self._config)}
            write_private(self._folder.state, json.dumps(state))
            report("ready", **state, seconds=round(time.time() - self._began, 1))
            await self._stopping.wait()
            server.close()
            await self._stop_gateways()
        finally:
            self._folder.state.unlink(missing_ok=True)
            # What was answered is on disk, so nothing is lost by not asking Ray for its slow farewell.
            await asyncio.to_thread(end_processes, self._config.data, descendants())
            shutil.rmtree(self._folder.temp, ignore_errors=True)

    def _parent_spoke(self) -> None:
        """Our parent never writes: its end is closed, so it is gone."""
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        self._stopping.set()

    def _prepare(self) -> None:
        shutil.rmtree(self._folder.temp, ignore_errors=True)
        self._folder.temp.mkdir(mode=0o700)
        write_private(self._folder.token, secrets.token_hex(32))

    async def _start_platform(self) -> None:
        from actors.roster import spawn_all

        report("progress", text="starting the actors")
        platform = spawn_all(self._config)
        ready = asyncio.ensure_future(self._ready(platform))
        stopping = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait({ready, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not ready.done():
            raise StartError(EXIT_FAULT, "stopped while starting")
        try:
            ready.result()
        except Exception as error:
            raise StartError(EXIT_FAULT, f"the platform did not start: {getattr(error, 'message', error)}") from error

    async def _ready(self, platform: Any) -> None:
        await platform.call("ready")
        serving = [listener for listener in self._config.listeners if listener.name == "serve"]
        if self._config.topology.serve_gateways and serving:
            from serve import app

            report("progress", text="starting Ray Serve")
            await asyncio.to_thread(app.start, self._config, serving[0])

    async def _stop_gateways(self) -> None:
        from actors.runtime import Ref

        for name in self._config.topology.gateways:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(_stop_gateway(Ref(name)), 5)

    async def _serve_control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await asyncio.wait_for(reader.readline(), 5)
            answer = await self._answer(json.loads(line[:CONTROL_BYTES_MAX]))
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except (OSError, ValueError, TimeoutError):
            pass
        finally:
            writer.close()

    async def _status(self) -> dict[str, Any]:
        """What the platform actor tells; while it restarts, what it told last, and that it restarts."""
        from actors.runtime import ActorGoneError, Ref

        try:
            self._told = await Ref(PLATFORM).call("status")
        except ActorGoneError:
            actors = [actor for actor in self._told.get("actors", ()) if actor["kind"] != "Platform"]
            entry: dict[str, Any] = {"name": PLATFORM, "kind": "Platform", "pid": None, "node": "head"}
            entry["state"] = "restarting"
            entry["restarts"] = self._platform_restarts
            return {"modules": list(self._config.modules), **self._told, "ready": False, "actors": [entry, *actors]}
        entry = next(actor for actor in self._told["actors"] if actor["kind"] == "Platform")
        self._platform_restarts += self._platform_pid not in (0, entry["pid"])
        self._platform_pid = entry["pid"]
        entry["restarts"] = self._platform_restarts
        return self._told

    async def _is_applied(self, version: int) -> bool:
        """Whether every actor has this version; not yet while the platform actor restarts, which takes it over then."""
        from actors.runtime import ActorGoneError, Ref

        try:
            return bool(await Ref(PLATFORM).call("applied", version))
        except ActorGoneError:
            return False

    async def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        from actors.runtime import Ref
        from sib.errors import SibError

        command = request.get("command")
        try:
            if command == "stop":
                self._stopping.set()
                return {"stopping": True}
            if command == "status":
                status = await self._status()
                return {"pid": os.getpid(), "data": self._config.data, "endpoints": endpoints(self._config), **status}
            if command == "applied":
                return {"applied": await self._is_applied(request["version"])}
            if command == "metrics":
                samples = await Ref(PLATFORM).call("samples")
                return {"samples": [[name, dict(labels), value] for (name, labels), value in samples.items()]}
            if command == "call":
                return {"result": await Ref(request["actor"]).call(request["method"], *request.get("arguments", ()))}
        except SibError as error:
            return {"error": error.message, "code": error.code}
        except Exception as error:
            return {"error": str(error)}
        return {"error": f"unknown command {command!r}"}


async def _stop_gateway(ref: Any) -> None:
    await ref.call("stop")


def report(event: str, **fields: Any) -> None:
    """One line to whoever started us; nobody may be there any more."""
    with contextlib.suppress(OSError):
        print(json.dumps({"event": event, **fields}), flush=True)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, all at once."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    temporary.replace(path)


def descendants() -> list[Any]:
    """Every process that this one has started, and theirs."""
    import psutil

    return list(psutil.Process().children(recursive=True))


def end_processes(data: str, started: Sequence[Any] = ()) -> None:
    """End what is left of a platform: what ``started`` names, and every process that belongs to its data folder."""
    import psutil

    def left() -> list[psutil.Process]:
        found = [process for process in started if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
        for process in psutil.process_iter(["pid"]):
            with contextlib.suppress(psutil.Error):
                is_ours = process.pid != os.getpid() and process.pid not in ancestors
                if is_ours and _belongs(process, data, temp):
                    found.append(process)
        return found

    temp = f"{RunFolder(Path(data)).temp}/"
    for process in started:
        with contextlib.suppress(psutil.Error):
            process.kill()
    ancestors = {parent.pid for parent in psutil.Process().parents()}
    deadline = time.monotonic() + ENDED_S
    while (processes := left()) and time.monotonic() < deadline:
        psutil.wait_procs(processes, timeout=0.2)
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(processes, timeout=2)


def _belongs(process: Any, data: str, temp: str) -> bool:
    """Whether a process is of the platform on this data folder: by its environment, or by the log files it has open."""
    if process.environ().get("SOFIA2_DATA_RUN") == data:
        return True
    # Ray's agents write their title over their environment, and they outlive their parents.
    title = process.cmdline()
    is_ray = bool(title) and title[0].startswith("ray::")
    return is_ray and any(file.path.startswith(temp) for file in process.open_files())


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has waited for does not."""
    import psutil

    try:
        return pid > 0 and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sofia2.daemon")
    parser.add_argument("data", type=Path)
    parser.add_argument("--lock-fd", type=int, help="the lock of the data folder, held by whoever starts us")
    parser.add_argument("--with-parent", action="store_true", help="stop when the standard input is closed")
    return parser.parse_args()


def _take_lock(folder: RunFolder, inherited: int | None) -> IO[str]:
    if inherited is None:
        return folder.lock()
    os.set_inheritable(inherited, False)
    file = os.fdopen(inherited, "a+")
    folder.sign(file)
    return file


def _allow_many_files() -> None:
    """Each connection is an open file; the usual soft limit of 1,024 is meant for programs of another age."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def main() -> None:
    """Entry of the daemon process."""
    arguments = _parse_arguments()
    folder = RunFolder(arguments.data)
    os.environ["SOFIA2_DATA"] = os.environ["SOFIA2_DATA_RUN"] = str(folder.data)
    status = 0
    try:
        with _take_lock(folder, arguments.lock_fd):
            config = config_from_json(folder.config.read_text())
            _allow_many_files()
            asyncio.run(Daemon(folder, config, is_with_parent=arguments.with_parent).run())
    except StartError as error:
        report("failed", status=error.status, text=error.message)
        status = error.status
    except Exception as error:
        log.exception("the platform ended")
        report("failed", status=EXIT_FAULT, text=f"{type(error).__name__}: {error}")
        status = EXIT_FAULT
    # Ray's exit hooks would talk to processes that have ended already.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
