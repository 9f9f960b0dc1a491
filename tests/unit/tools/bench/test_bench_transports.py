"""The figures of links: their names have goals, Reticulum may be missing, and airtime is checked independently."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from offgrid_tools.bench import reticulum, transports_air, transports_lora, transports_udp
from offgrid_tools.bench.figures import read_goals
from offgrid_tools.bench.groups import Plan
from offgrid_tools.bench.transports_lora import Seen

GOALS = read_goals()["transports"]


def test_a_share_says_what_reticulum_made_of_it_and_what_did_not_arrive() -> None:
    figure = transports_lora._share(20, Seen([0.5, 0.6, 0.7], [0.0, 0.2, 0.0], [True, True, False]), 150)
    assert figure.name in GOALS
    assert (figure.value, figure.peer, figure.peer_value) == (0.6, "Reticulum", 0.0)
    assert "2 of 3 not there in 150 s; 2 of 3 links" in figure.note


def test_without_reticulum_a_share_is_measured_all_the_same() -> None:
    figure = transports_lora._share(0, Seen([0.8]), 150)
    assert (figure.value, figure.peer, figure.peer_value) == (0.8, "", None)


def test_where_reticulum_cannot_be_installed_it_is_said_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = subprocess.CompletedProcess([], 1, "", "no network")
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: refused)
    assert reticulum.install(tmp_path) == "they cannot be installed: no network"


def test_what_sessions_take_on_the_air_has_goals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transports_air, "SESSIONS_QUICK", 5)
    monkeypatch.setattr(transports_air, "soak_duty", lambda seed, days, say: (say(f"{days} days"), [])[1])
    figures = {each.name: each for each in transports_air.measure(Plan(tmp_path, quick=True, say=lambda line: None))}
    assert figures.keys() <= GOALS.keys()
    assert all(GOALS[name].judge(each.value).value != "missed" for name, each in figures.items() if "1000" not in name)
    assert figures["handshakes_of_1000_loss20"].value == 5


@pytest.mark.parametrize("loss", transports_udp.LOSSES)
def test_every_share_of_loss_has_goals(loss: int) -> None:
    assert {f"udp_20ms_mb_s_loss{loss}", f"udp_loss{loss}_vs_reticulum"} <= GOALS.keys()
