"""What has been written to a disk so far, as the system counts it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

SECTOR_BYTES = 512  # of /sys/dev/block, whatever the disk's own are
SECTORS_WRITTEN = 6  # the field of its `stat`


def disk_bytes_written(folder: Path) -> int | None:
    """What has reached the disk under `folder` since the system started; None where the system does not say."""
    if sys.platform != "linux":
        return None
    device = folder.stat().st_dev
    try:
        stat = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text(encoding="ascii")
    except OSError:
        return None
    return int(stat.split()[SECTORS_WRITTEN]) * SECTOR_BYTES
