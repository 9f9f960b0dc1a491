"""The one list of what the documents tell to type and nothing types, with the reason of each."""

from __future__ import annotations

NOT_RUN = {
    "the-tests": "is this very run",
    "kits": "fetches 290 MB; `soak kits` makes a kit, serves it and installs from it with the network off",
    "service": "would change what this machine starts; tests/unit/system_service holds what is written and called",
    "docker": "wants a Docker daemon; test_container_start.py runs what the containers run",
    "bench": "takes minutes of a machine that does nothing else; test_bench_*.py run each group",
}
