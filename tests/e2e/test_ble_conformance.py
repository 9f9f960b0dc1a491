"""Bluetooth keeps the rules of a link."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

pytest.importorskip("bumble", reason="the extra ble")

from offgrid_transports.ble import adapter
from offgrid_transports.conformance.test_transport import *  # noqa: F403
from offgrid_transports.registry import TransportRegistry


@pytest.fixture
def registry() -> TransportRegistry:
    return TransportRegistry({"ble": adapter.open_transport})


@pytest.fixture(scope="module")
def ports() -> Iterator[list[str]]:
    command = [sys.executable, "-m", "offgrid_tools.emulators", "ble", "0", "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as emulator:
        assert emulator.stdin is not None
        assert emulator.stdout is not None
        yield emulator.stdout.readline().split()[1:]
        emulator.stdin.close()


@pytest.fixture
def descriptions(ports: list[str]) -> tuple[str, str]:
    a, b = (f"ble:tcp-client:127.0.0.1:{port}" for port in ports)
    return a, b
