"""What a host says of its machine: asked, bounded, and overruled by its owner."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from offgrid_node import machine_facts
from offgrid_node.config import Config, ConfigError, load


def config(folder: Path, text: str = "") -> Config:
    (folder / "offgrid.toml").write_text(f'mesh.name = "home"\n{text}')
    return load(folder / "offgrid.toml", {})


def tool(folder: Path, script: str) -> Path:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return folder


def test_this_machine_has_memory_processors_and_a_platform(tmp_path: Path) -> None:
    profile = machine_facts.machine_profile(config(tmp_path, "host.slots = 3\n"), {"wasm": "wasmtime"})
    assert profile.slots == 3
    assert 16 <= profile.memory_mb < 2**30
    assert profile.cpus >= 1
    system, _, processor = profile.platform.partition("/")
    assert system
    assert processor


def test_what_the_owner_says_goes_first(tmp_path: Path) -> None:
    cards = 'gpus = ["RTX 4090:24564", "A100 80GB:81920"]'
    text = f'[host]\nmemory_mb = 512\ncpus = 7\n{cards}\nlabels = {{ room = "attic" }}\n'
    profile = machine_facts.machine_profile(config(tmp_path, text), {})
    assert (profile.memory_mb, profile.cpus, dict(profile.labels)) == (512, 7, {"room": "attic"})
    assert [(gpu.model, gpu.memory_mb) for gpu in profile.gpus] == [("RTX 4090", 24_564), ("A100 80GB", 81_920)]


@pytest.mark.parametrize("entry", ["RTX 4090", "RTX 4090:", ":8", "RTX:0", "RTX:8GB", "auto"])
def test_a_card_that_is_none_is_refused_by_its_key(tmp_path: Path, entry: str) -> None:
    with pytest.raises(ConfigError, match=r"host\.gpus: has .*, no card"):
        config(tmp_path, f'host.gpus = ["{entry}", "x:1"]')


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(machine_facts, "CGROUP_MEMORY", limit)
    limit.write_text("max\n")
    whole = machine_facts.memory_mb()
    limit.write_text("67108864\n")
    assert machine_facts.memory_mb() == 64 < whole


def test_work_of_roots_that_no_sandbox_holds_is_warned_of() -> None:
    held = {"process": "bwrap", "process_limits": "cgroup", "wasm": "wasmtime"}
    unheld = {**held, "process": "rlimits", "python": "rlimits", "python_limits": "each"}
    assert machine_facts.unheld_notices(held, root=True) == ()
    assert machine_facts.unheld_notices(unheld, root=False) == ()
    [notice] = machine_facts.unheld_notices(unheld, root=True)
    assert notice.startswith("process and python jobs run as root without a sandbox: ")


class TestNvidiaSmi:
    def test_says_model_and_memory_of_each_card(self) -> None:
        said = "NVIDIA GeForce RTX 4090, 24564\nTesla T4, 15360\nNo devices were found\n, 5\nbroken, [N/A]\n"
        cards = [(gpu.model, gpu.memory_mb) for gpu in machine_facts.read_nvidia_smi(said)]
        assert cards == [("NVIDIA GeForce RTX 4090", 24_564), ("Tesla T4", 15_360)]

    @pytest.mark.skipif(sys.platform == "win32", reason="the tool of this test is a shell script")
    @pytest.mark.parametrize(
        ("script", "cards", "timeout_s"),
        [("echo 'Tesla T4, 15360'", 1, 60), ("exit 9", 0, 60), ("exec sleep 60", 0, 0.3)],
    )
    def test_is_waited_for_no_longer_than_it_may_take(
        self, script: str, cards: int, timeout_s: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(machine_facts, "NVIDIA_TIMEOUT_S", timeout_s)
        monkeypatch.setenv("PATH", f"{tool(tmp_path, script)}:/bin:/usr/bin")
        assert len(machine_facts.probed_gpus()) == cards

    def test_that_is_missing_means_no_cards(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert machine_facts.probed_gpus() == []
