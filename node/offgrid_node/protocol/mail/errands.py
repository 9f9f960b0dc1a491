"""What mail has done by its node, and how it ended: an effect and an input beside those of `protocol/effects.py`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from offgrid.v1 import mail_pb2


class Serve(NamedTuple):
    """Open the parcel of a request and answer it as if its source had called; it ends as Served. `late`: its time was
    over before it was answered, say so instead."""

    source: str
    number: int
    parcel: mail_pb2.Parcel
    late: bool


class Served(NamedTuple):
    """The end of a Serve: the answer, sealed for the source; None where it is to be asked again, later."""

    source: str
    number: int
    sealed: bytes | None
