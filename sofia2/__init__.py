"""What people type and import: the command, the settings and the Python KP client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sofia2.kp import KP

__all__ = ["KP"]


def __getattr__(name: str) -> Any:
    """``KP`` is imported when it is first asked for: the other parts of the package do not pay for it."""
    if name == "KP":
        from sofia2.kp import KP

        return KP
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
