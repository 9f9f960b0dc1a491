"""Damaged configuration files: each is read, or refused with every problem's place; nothing else may happen."""

from __future__ import annotations

import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from offgrid_node.config import ConfigError, load, template
from offgrid_tools.soak.chance import chance

LOAD_S_MAX = 2.0
DAMAGES_MAX = 4  # in one file
STEP = 2_000
PLACE = re.compile(r":\d+:\d+: ")
SCRAPS = (
    b"\x00", b"\xff", b'"', b"'''", b"[", b"]", b"{", b"}", b"=", b"\n", b"\r", b"#", b"\\u12", b"\xe2\x80\xae",
    b"9" * 400, b"1e999", b"-0", b"nan", b"1979-05-27", b"true", b"[" * 300, b"[mesh]\n", b"[[node]]\n", b"a.b.c = 1\n",
    b"name = 1\n",
)  # fmt: skip


def soak_configs(seed: int, rounds: int, say: Callable[[str], None]) -> list[str]:
    """Damages the template in `rounds` ways; returns what was not answered as it should be."""
    rng = chance(f"{seed}/configs")
    broken: list[str] = []
    refused, slowest = 0, 0.0
    whole = template("soak", "node", ["core"], values={}).encode()
    with tempfile.TemporaryDirectory(prefix="offgrid-soak-") as folder:
        path = Path(folder) / "offgrid.toml"
        for number in range(rounds):
            content = damaged(whole, rng)
            path.write_bytes(content)
            began = time.perf_counter()
            wrong = _fault_of(path)
            took = time.perf_counter() - began
            refused += wrong != "read"
            slowest = max(slowest, took)
            if wrong.startswith("!") or took > LOAD_S_MAX:
                broken.append(f"round {number}: {wrong} after {took:.2f} s on {content[:200]!r}…")
            if (number + 1) % STEP == 0:
                say(f"   {number + 1:6} files, {refused} refused, {len(broken)} violations, slowest {slowest:.2f} s")
    return broken


def damaged(whole: bytes, rng: Random) -> bytes:
    """The file with one to DAMAGES_MAX things wrong."""
    for _ in range(rng.randint(1, DAMAGES_MAX)):
        at = rng.randrange(len(whole) + 1)
        match rng.randrange(6):
            case 0:
                whole = whole[:at] + bytes([rng.randrange(256)]) + whole[at + 1 :]
            case 1:
                whole = whole[:at] + rng.choice(SCRAPS) + whole[at:]
            case 2:
                whole = whole[:at] + whole[at + rng.randint(1, 40) :]
            case 3:
                lines = whole.splitlines(keepends=True)
                rng.shuffle(lines)
                whole = b"".join(lines)
            case 4:
                lines = whole.splitlines(keepends=True)
                line = rng.choice(lines or [b""])
                whole += line.lstrip(b"# ")
            case _:
                whole = re.sub(rb"= (\S+)", lambda found: b"= " + _other(found[1], rng), whole, count=rng.randint(1, 5))
    return whole


def _other(value: bytes, rng: Random) -> bytes:
    return rng.choice([value[::-1], b'"' + value + b'"', b"[" + value + b"]", b"-1", b"{}", b'"\\u0000"', value * 2])


def _fault_of(path: Path) -> str:
    """ "read", "refused", or what went wrong with a "!" before it."""
    try:
        load(path, {})
    except ConfigError as error:
        lines = [str(problem) for problem in error.problems]
        if not lines or not all(PLACE.search(line) for line in lines):
            return f"!no place is named: {lines}"
        return "refused"
    except Exception as error:  # noqa: BLE001 - whatever else comes out of it is what is looked for
        return f"!{type(error).__name__}: {error}"
    return "read"
