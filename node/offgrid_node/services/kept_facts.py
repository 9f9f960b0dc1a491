"""What metrics tell of what a node keeps: its budget, summaries, backups and the copy for SQL."""

from __future__ import annotations

import msgspec


class Backups(msgspec.Struct, frozen=True):
    """Since the start; the newest also from before it, where it was made by itself."""

    done: int = 0
    failed: int = 0
    newest_us: int = 0
    newest_bytes: int = 0


class KeptFacts(msgspec.Struct, frozen=True):
    """`shares`: name, what it may take and what it takes, in bytes. `held`: something is kept that should go.
    `mirror_seq`: the newest event in the copy for SQL; None: there is no copy."""

    shares: tuple[tuple[str, int, int], ...] = ()
    dropped_events: int = 0
    dropped_session_events: int = 0
    dropped_bytes: int = 0
    held: bool = False
    summarised_seq: int = 0
    summaries_fail: bool = False
    backups: Backups = Backups()
    mirror_seq: int | None = None
    mirror_fails: bool = False
