"""The sample application: an agent's run as it would be recorded, all four kinds, frame by frame.

    python tests/e2e/agent_run.py NODE_FOLDER NAME [FRAMES]

Prints the session's id. What it does follows from the frame's number alone, so that every run comes to the same.
"""

from __future__ import annotations

import hashlib
import math
import sys

import offgrid
from offgrid.client.sessions import Session

FRAMES = 180
BEGAN_US = 1_790_000_000_000_000
FRAME_US = 16_667
MODELS = ("north", "south", "east")


def run(session: Session, frames: int = FRAMES) -> float:
    """What its energy came to."""
    accumulator = 0.0
    for frame in range(frames):
        at_us = BEGAN_US + frame * FRAME_US
        if frame % 6 == 0:  # ten times a second
            energy = 1 + math.sin(frame / 10)
            accumulator += energy
            update = {
                "energy": energy,
                "accumulator": accumulator,
                "model_id": MODELS[frame % 3],
                "fps": 60.0,
                "frame_budget_used": (frame % 10) / 10,
                "diversity_index": frame / frames,
                "token_count": frame * 7,
            }
            session.record("energy.update", update, frame=frame, energy_delta=energy, timestamp_us=at_us)
        if frame % 45 == 0:
            text = f"what of frame {frame}?"
            prompt = {
                "prompt_id": f"p-{frame}",
                "interface": "cli",
                "length": len(text),
                "truncated": False,
                "hash": hashlib.sha256(text.encode()).hexdigest(),
                "language": "en",
                "intent": "ask",
            }
            session.record("user.prompt", prompt, frame=frame, timestamp_us=at_us + 1)
        if frame % 30 == 15:
            pattern = {
                "models_involved": list(MODELS[: 1 + frame % 3]),
                "interference_type": "constructive",
                "strength": frame / 100,
                "frequency": 2.5,
                "duration_ms": 120,
            }
            session.record("pattern.interference", pattern, frame=frame, energy_delta=-0.25, timestamp_us=at_us + 2)
            accumulator -= 0.25
        if frame % 60 == 59:
            beat = {"status": "ok", "uptime_s": frame / 60, "frame_ms": 16.5, "queue_depth": 0, "load": [0.5, 0.25]}
            session.record("health.heartbeat", beat, timestamp_us=at_us + 3)
        if frame % 100 == 99:
            session.flush()
    return accumulator


def main(folder: str, name: str, frames: str = str(FRAMES)) -> None:
    with offgrid.connect(folder) as client, client.session(name) as session:
        run(session, int(frames))
    sys.stdout.write(session.session_id + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
