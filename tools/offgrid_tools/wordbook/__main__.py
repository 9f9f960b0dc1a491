"""`python -m offgrid_tools.wordbook record FOLDER | train FOLDER OUT | measure FOLDER`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m offgrid_tools.wordbook", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="write down what meshes of real nodes say to each other")
    recording.add_argument("folder", type=Path)
    recording.add_argument("--meshes", type=int, default=3, help="of each kind (3)")
    training = commands.add_parser("train", help="make a dictionary of what was recorded")
    training.add_argument("folder", type=Path)
    training.add_argument("out", type=Path)
    measuring = commands.add_parser("measure", help="bytes and airtime of what was recorded, plain and packed")
    measuring.add_argument("folder", type=Path, help="other recordings than those the dictionary was made of")
    asked = parser.parse_args()
    if asked.command == "record":
        from offgrid_tools.wordbook.recording import record

        record(asked.folder, asked.meshes)
        return
    from offgrid_tools.wordbook.samples import read_samples

    if asked.command == "train":
        from offgrid_tools.wordbook.training import train

        asked.out.write_bytes(train(read_samples(asked.folder)))
    else:
        from offgrid_tools.wordbook.measuring import measured

        sys.stdout.write(measured(read_samples(asked.folder)))


if __name__ == "__main__":
    main()
