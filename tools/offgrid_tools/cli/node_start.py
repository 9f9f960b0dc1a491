"""Waiting for a node of this machine that is about to answer: `offgrid-node run &` and the next line of a script."""

from __future__ import annotations

import time
from pathlib import Path

BEGIN_S = 1.0  # from a node's process to its mark that it is starting, on a slow machine
START_S = 60.0  # from there to its first answer, with a store that is looked through first
LOOK_S = 0.05


def await_start(address: str | None) -> None:
    """Until the node at this address, as `offgrid.client.find` takes it, is no longer starting; at once where no folder
    of a node is near it. Whether it answers then is for the first call to find out."""
    began = time.monotonic()
    folder, wait_s = _look(address)
    if folder is None or not wait_s:
        return
    from offgrid_tools.cli.bars import working

    with working(f"the node of {folder} is starting"):
        while time.monotonic() - began < wait_s:
            time.sleep(LOOK_S)
            wait_s = _look(address)[1]


def _look(address: str | None) -> tuple[Path | None, float]:
    """The node's folder, if one is near, and for how long to wait for its start in all."""
    from offgrid.client.address import NoNode, find, folder_near, is_url
    from offgrid.client.errors import OffgridError
    from offgrid.starting import is_starting

    if address is not None and is_url(address):
        return None, 0.0
    wait_s = 0.0
    try:
        folder = folder_near(find(address).target.removeprefix("unix:"))
    except NoNode as none:
        folder, wait_s = none.folder, BEGIN_S
    except OffgridError:  # `connect` says it
        return None, 0.0
    return folder, START_S if folder is not None and is_starting(folder) else wait_s
