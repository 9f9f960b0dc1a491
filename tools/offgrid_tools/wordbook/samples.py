"""What nodes said to each other, on disk: a line of JSON for the method and what it is, then the body in base64."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

REQUEST, RESPONSE = "request", "response"


class Sample(NamedTuple):
    method: str
    kind: str
    body: bytes


def write_sample(out: IO[bytes], sample: Sample) -> None:
    """One line, in one write: several threads may write."""
    out.write(json.dumps([sample.method, sample.kind, base64.b64encode(sample.body).decode()]).encode() + b"\n")


def read_samples(folder: Path) -> Iterator[Sample]:
    """All in a folder. A line that was cut off by a kill is passed over."""
    for path in sorted(folder.glob("**/*.samples")):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                method, kind, body = json.loads(line)
                yield Sample(method, kind, base64.b64decode(body))
