"""The only file that calls Ray's actor API: start, name, find, call and describe actors.

Everything else sees plain classes and :class:`Ref`. Ray is shown a host that imports the plain class in its own process, so
that whoever starts an actor need not load its code. The methods in ``CONTROL_METHODS`` run in a concurrency group of their
own, so that health and statistics answer while the actor works.
Invariant: an actor is restarted for ever by Ray (``max_restarts=-1``) and a call is never retried by Ray
(``max_task_retries=0``): a retry is the caller's, who gives each write an id that makes it harmless.
"""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sib.errors import SibError

NAMESPACE = "sofia2"
OBJECT_STORE_BYTES = 100 << 20
RESTART_ENVIRONMENT = {
    # Ray holds a broken call for a second and looks once a second; with these, calls go on 0.4 s after a crash instead of 3 s.
    "RAY_timeout_ms_task_wait_for_death_info": "100",
    "RAY_core_worker_internal_heartbeat_ms": "100",
    # Ray would give way to everything else on the machine; our actors are the service itself.
    "RAY_worker_niceness": "0",
    # What is longer goes through the object store: a millisecond of three processes, for a batch of 500 instances.
    "RAY_max_direct_call_object_size": str(1 << 20),
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_DEDUP_LOGS": "0",
    # A small machine needs more than the default 5 s for Serve's proxy, and 30 s of draining help nobody at a stop.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
}
CONTROL_METHODS = frozenset({"stats"})
"""Methods that run beside the others, in a thread of their own: they answer while a sync actor works."""
CONTROL_THREADS = 2


class ActorGoneError(SibError):
    """The actor died or restarts: the call may or may not have run. Retry it if that is harmless."""

    code, status, is_retryable = "platform.actor_gone", 503, True
    is_final = False
    """It has ended for good: its constructor failed, or it was ended."""


@dataclass(frozen=True)
class Ref:
    """A typed-by-name reference to an actor; survives pickling and the actor's restarts."""

    name: str

    async def call(self, method: str, *args: Any) -> Any:
        """Call a method and await its result.

        Raises:
            ActorGoneError: The actor is not there now; the call may or may not have run.
            SibError: What the method raised.
        """
        import ray

        try:
            return await self._start(method, *args)
        except ray.exceptions.RayError as error:
            raise _translate(error) from None

    def tell(self, method: str, *args: Any) -> None:
        """Call a method and forget the result: at most once, errors stay with the actor."""
        try:
            self._start(method, *args, num_returns=0)
        except ActorGoneError:
            return  # nobody is there to be told
        except ValueError:
            _handles.pop(self.name, None)

    def ask(self, method: str, *args: Any, timeout_s: float = 30.0) -> Any:
        """Call a method and block for its result: for processes without an event loop."""
        import ray

        try:
            return ray.get(self._start(method, *args), timeout=timeout_s)
        except ray.exceptions.RayError as error:
            raise _translate(error) from None

    def _start(self, method: str, *args: Any, **options: Any) -> Any:
        handle = _handle(self.name)
        entry = handle.control if method in CONTROL_METHODS else handle.call
        return (entry.options(**options) if options else entry).remote(method, *args)


_handles: dict[str, Any] = {}


def _handle(name: str) -> Any:
    import ray

    handle = _handles.get(name)
    if handle is None:
        try:
            handle = _handles[name] = ray.get_actor(name, namespace=NAMESPACE)
        except ValueError:
            raise ActorGoneError(f"the actor {name} is not running; try again") from None
    return handle


def _translate(error: Exception) -> Exception:
    cause = getattr(error, "cause", None)
    if isinstance(cause, SibError):
        return cause
    import ray

    if isinstance(error, ray.exceptions.RayActorError | ray.exceptions.GetTimeoutError):
        gone = ActorGoneError(f"the actor did not answer ({type(error).__name__}); try again")
        gone.is_final = isinstance(error, ray.exceptions.ActorDiedError)
        return gone
    return error


class SyncHost:
    """What Ray runs for a sync actor: the plain class that ``path`` names, made in its own process."""

    def __init__(self, path: str, *args: Any) -> None:
        self._actor = load_class(path)(*args)

    def call(self, method: str, *args: Any) -> Any:
        return getattr(self._actor, method)(*args)

    def control(self, method: str, *args: Any) -> Any:
        return getattr(self._actor, method)(*args)


class AsyncHost:
    """The same for an async actor; every call runs on its event loop."""

    def __init__(self, path: str, *args: Any) -> None:
        self._actor = load_class(path)(*args)

    async def call(self, method: str, *args: Any) -> Any:
        result = getattr(self._actor, method)(*args)
        return await result if inspect.isawaitable(result) else result

    async def control(self, method: str, *args: Any) -> Any:
        return await self.call(method, *args)


def load_class(path: str) -> Any:
    """The class that ``module:Class`` names."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def spawn(path: str, name: str, *args: Any, threads: int = 1, is_async: bool = False) -> Ref:
    """Create a named, detached actor of the plain class ``module:Class``, or find the one that is there.

    ``threads``: how many ordinary calls a sync actor runs at once (1 keeps the order of each caller's calls).
    The constructor's arguments must be plain values: it runs again with them after every crash.
    """
    import ray

    options: dict[str, Any] = {
        "name": name,
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "get_if_exists": True,
        "num_cpus": 0,
        "max_restarts": -1,
        "max_task_retries": 0,
        "enable_task_events": False,
        "max_concurrency": 10_000 if is_async else threads,
    }
    # The name of the host's class is what the process list shows.
    host = type(path.partition(":")[2], (AsyncHost if is_async else SyncHost,), {"__module__": __name__})
    if is_async:
        remote_class = ray.remote(host)
    else:
        ray.method(concurrency_group="control")(SyncHost.control)
        remote_class = ray.remote(concurrency_groups={"control": CONTROL_THREADS})(host)
    _handles[name] = remote_class.options(**options).remote(path, *args)
    return Ref(name)


def _without_side_processes() -> None:
    """Leave out Ray's autoscaler monitor, log monitor and API server: a platform of one machine uses none of them.

    They would take 170 MiB, and the start would wait for the last one. The methods are private; Ray's version is pinned.
    """
    from ray._private.node import Node

    for method in ("start_monitor", "start_log_monitor", "start_api_server"):
        setattr(Node, method, _nothing)


def _nothing(*_: Any, **__: Any) -> None:
    pass


def start_ray(temp_folder: Path, *, environment: Mapping[str, str], token_file: Path, cpu_count: int = 4) -> None:
    """Start a private Ray on this machine, loopback and token authentication on; its processes are our children.

    ``temp_folder`` must be short (Unix socket names hold 107 characters). ``environment`` is what every actor process gets.
    """
    os.environ.update(RESTART_ENVIRONMENT)
    os.environ.update(environment)
    os.environ.pop("RAY_ADDRESS", None)
    # Without this Ray takes the machine's outer address even for one node, and listens there.
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ["RAY_AUTH_MODE"] = "token"
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(token_file)
    import ray

    _without_side_processes()
    ray.init(
        num_cpus=cpu_count,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        log_to_driver=False,
        logging_level="ERROR",
        namespace=NAMESPACE,
        _temp_dir=str(temp_folder),
        _node_ip_address="127.0.0.1",
    )


def actor_names(prefix: str) -> list[str]:
    """The named actors that are there, also those that restart, whose name begins so."""
    import ray

    return [name for name in ray.util.list_named_actors() if name.startswith(prefix)]


def kill(ref: Ref) -> None:
    """End an actor for good."""
    import ray

    try:
        ray.kill(ray.get_actor(ref.name, namespace=NAMESPACE), no_restart=True)
    except (ValueError, ray.exceptions.RayError):
        return
    finally:
        _handles.pop(ref.name, None)
