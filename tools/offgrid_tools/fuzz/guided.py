"""`python -m offgrid_tools.fuzz.guided TARGET FOLDER [OPTIONS]`: atheris, which follows what an input reaches.

A process of its own, as libFuzzer ends the one that it lives in. FOLDER holds inputs, a file each; new ones that reach
more are put there. atheris itself need not be installed: what starts this brings a folder that has it.
"""

from __future__ import annotations

import importlib
import sys

SOURCES = ["offgrid_transports"]  # whose branches are followed


def main() -> None:
    atheris = importlib.import_module("atheris")
    name, *rest = sys.argv[1:]
    with atheris.instrument_imports(include=SOURCES):
        running = importlib.import_module("offgrid_tools.fuzz.running")

    def one(data: bytes) -> None:
        running.feed(name, data)

    atheris.Setup([sys.argv[0], *rest], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
