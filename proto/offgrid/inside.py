"""What a function may call while it runs as a job: `offgrid.progress`. Anywhere else it does nothing."""

from __future__ import annotations

import math
from collections.abc import Callable

MESSAGE_CHARS_MAX = 500


class Listener:
    """Who hears of progress: set once, by the host's worker process. It is one job's at a time, as that process is."""

    say: Callable[[float | None, str], None] | None = None


def progress(fraction: float | None = None, message: str = "") -> None:
    """Tells whoever watches the job how far it is, 0 to 1, and what it is at. Raises ValueError for another number."""
    if fraction is not None and not (math.isfinite(fraction) and 0 <= fraction <= 1):
        raise ValueError(f"progress of {fraction!r}; 0 to 1 is allowed")
    if Listener.say is not None:
        Listener.say(fraction, message[:MESSAGE_CHARS_MAX])
