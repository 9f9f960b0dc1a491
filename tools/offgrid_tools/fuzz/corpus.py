"""Inputs that were kept, a text file for each target: an input to a line, in hex; a line with # says what the next is.

Those of old finds stay for ever; the rest is what reaches the most of a target's code with the fewest bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

CORPUS = Path(__file__).resolve().parents[3] / "tests" / "corpus"


def kept(target: str, folder: Path = CORPUS) -> list[bytes]:
    """In the order of the file; empty where there is none. Raises ValueError for a line that is no hex."""
    path = folder / f"{target}.txt"
    if not path.exists():
        return []
    lines = path.read_text(encoding="ascii").splitlines()
    return [bytes.fromhex(line) for line in lines if not line.startswith("#")]


def finds(target: str, folder: Path = CORPUS) -> list[tuple[str, bytes]]:
    """Those with a word about them."""
    path = folder / f"{target}.txt"
    lines = path.read_text(encoding="ascii").splitlines() if path.exists() else []
    return [(said[1:].strip(), bytes.fromhex(line)) for said, line in pairwise(lines) if said.startswith("#")]


def write(target: str, inputs: Iterable[bytes], found: Iterable[tuple[str, bytes]], folder: Path = CORPUS) -> None:
    """The file anew: the finds, then the others, the short ones first."""
    found = list(found)
    known = {data for _, data in found}
    lines = [line for said, data in found for line in (f"# {said}", data.hex())]
    lines += [data.hex() for data in sorted(set(inputs) - known, key=lambda data: (len(data), data))]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{target}.txt").write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
