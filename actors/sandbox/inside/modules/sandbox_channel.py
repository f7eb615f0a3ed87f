"""``import sandbox_channel`` in a sandboxed program: the way to its supervisor."""

from inside.channel import (  # type: ignore[import-not-found]
    FRAME_BYTES_MAX,
    CallError,
    Channel,
    ChannelClosedError,
    FrameError,
    Message,
    call,
    current,
    notify,
    serve,
)

__all__ = [
    "FRAME_BYTES_MAX",
    "CallError",
    "Channel",
    "ChannelClosedError",
    "FrameError",
    "Message",
    "call",
    "current",
    "notify",
    "serve",
]
