"""For tests that listen by IPv6: some machines have none."""

from __future__ import annotations

import socket

import pytest


def _is_here() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_six = pytest.mark.skipif(not _is_here(), reason="no IPv6 on this machine")
