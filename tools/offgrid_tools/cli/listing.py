"""What a list gives though some of the node's rows are damaged: the command goes on with that, and fails at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from offgrid.client import OffgridError
    from offgrid.v1.objects_pb2 import Object


def sound(listed: Iterator[Object]) -> tuple[list[Object], OffgridError | None]:
    """All that it gives, and what is to be raised once that is done with: it names what is damaged."""
    from offgrid.client.errors import OffgridError
    from offgrid.client.objects import ROWS_DAMAGED

    found: list[Object] = []
    try:
        found.extend(listed)
    except OffgridError as fault:
        if fault.reason != ROWS_DAMAGED:
            raise
        return found, fault
    return found, None
