"""`python -m offgrid_tools.emulators NAME ...`: one emulator; each is a module with `main(arguments) -> exit code`."""

from __future__ import annotations

import sys
from importlib import import_module

PARTS = {
    "ble": "offgrid_tools.emulators.ble",
    "lora": "offgrid_tools.emulators.lora",
    "udp-proxy": "offgrid_tools.emulators.udp_proxy",
}


def main(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in PARTS:
        sys.stderr.write(f"usage: python -m offgrid_tools.emulators {'|'.join(PARTS)} ...\n")
        return 2
    code: int = import_module(PARTS[arguments[0]]).main(arguments[1:])
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
