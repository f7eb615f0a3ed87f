"""The only file that calls Ray's actor API: start, name, find, call and describe actors.

Everything else sees plain classes and :class:`Ref`. An actor class marks its control methods with :func:`control`; they run
in a concurrency group of their own, so that health and statistics answer while the actor works.
Invariant: an actor is restarted for ever by Ray (``max_restarts=-1``) and a call is never retried by Ray
(``max_task_retries=0``): a retry is the caller's, who gives each write an id that makes it harmless.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from sib.errors import SibError

NAMESPACE = "sofia2"
OBJECT_STORE_BYTES = 100 << 20
RESTART_ENVIRONMENT = {
    # Ray holds a broken call for a second and looks once a second; with these, calls go on 0.4 s after a crash instead of 3 s.
    "RAY_timeout_ms_task_wait_for_death_info": "100",
    "RAY_core_worker_internal_heartbeat_ms": "100",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_DEDUP_LOGS": "0",
    # A small machine needs more than the default 5 s for Serve's proxy, and 30 s of draining help nobody at a stop.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
}
Method = TypeVar("Method", bound=Callable[..., Any])


def control(method: Method) -> Method:
    """Mark a method of a sync actor as a control call: it runs beside the others, in a thread of its own."""
    method.is_control = True  # type: ignore[attr-defined]
    return method


class ActorGoneError(SibError):
    """The actor died or restarts: the call may or may not have run. Retry it if that is harmless."""

    code, status, is_retryable = "platform.actor_gone", 503, True


@dataclass(frozen=True)
class Ref:
    """A typed-by-name reference to an actor; survives pickling and the actor's restarts."""

    name: str

    def call(self, method: str, *args: Any) -> Awaitable[Any]:
        """Call a method and await its result.

        Raises:
            ActorGoneError: The actor is not there now; the call may or may not have run.
            SibError: What the method raised.
        """
        return _await_result(self._method(method).remote(*args))

    def tell(self, method: str, *args: Any) -> None:
        """Call a method and forget the result: at most once, errors stay with the actor."""
        try:
            self._method(method).options(num_returns=0).remote(*args)
        except ValueError:
            _handles.pop(self.name, None)

    def ask(self, method: str, *args: Any, timeout_s: float = 30.0) -> Any:
        """Call a method and block for its result: for processes without an event loop."""
        import ray

        try:
            return ray.get(self._method(method).remote(*args), timeout=timeout_s)
        except ray.exceptions.RayError as error:
            raise _translate(error) from None

    def _method(self, method: str) -> Any:
        return getattr(_handle(self.name), method)


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


async def _await_result(ref: Any) -> Any:
    import ray

    try:
        return await ref
    except ray.exceptions.RayError as error:
        raise _translate(error) from None


def _translate(error: Exception) -> Exception:
    cause = getattr(error, "cause", None)
    if isinstance(cause, SibError):
        return cause
    import ray

    if isinstance(error, ray.exceptions.RayActorError | ray.exceptions.GetTimeoutError):
        return ActorGoneError(f"the actor did not answer ({type(error).__name__}); try again")
    return error


def spawn(cls: type, name: str, *args: Any, threads: int = 1, is_async: bool = False) -> Ref:
    """Create a named, detached actor of a plain class, or find the one that is there.

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
    if is_async:
        remote_class = ray.remote(cls)
    else:
        for method in vars(cls).values():
            if getattr(method, "is_control", False):
                ray.method(concurrency_group="control")(method)
        remote_class = ray.remote(concurrency_groups={"control": 2})(cls)
    _handles[name] = remote_class.options(**options).remote(*args)
    return Ref(name)


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


def kill(ref: Ref) -> None:
    """End an actor for good."""
    import ray

    try:
        ray.kill(ray.get_actor(ref.name, namespace=NAMESPACE), no_restart=True)
    except (ValueError, ray.exceptions.RayError):
        return
    finally:
        _handles.pop(ref.name, None)
