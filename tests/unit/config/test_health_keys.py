"""[health]: thresholds that may be off, a command by its absolute path, a webhook on this machine unless said so."""

from __future__ import annotations

from pathlib import Path

import pytest

from offgrid_node.config import Config, ConfigError, load


def loaded(folder: Path, text: str) -> Config:
    (folder / "offgrid.toml").write_text(f'mesh.name = "home"\n[health]\n{text}', encoding="utf-8")
    return load(folder / "offgrid.toml", {})


def test_thresholds_are_there_from_the_start_and_nobody_is_told(tmp_path: Path) -> None:
    health = loaded(tmp_path, "").health
    assert (health.queue_depth, health.write_latency_ms, health.frame_us, health.memory_mb) == (500, 50, 16_670, 4_096)
    assert (health.database_warn_percent, health.database_critical_percent) == (80, 95)
    assert (health.command, health.webhook) == ((), "")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9093/alerts", "https://localhost/a", "http://[::1]:80", ""])
def test_a_webhook_on_this_machine_is_taken(tmp_path: Path, url: str) -> None:
    assert loaded(tmp_path, f'webhook = "{url}"').health.webhook == url


def test_a_webhook_elsewhere_is_taken_where_that_is_said(tmp_path: Path) -> None:
    text = 'webhook = "https://alerts.example/x"\nwebhook_elsewhere = true'
    assert loaded(tmp_path, text).health.webhook == "https://alerts.example/x"


def test_a_command_is_a_program_and_its_arguments(tmp_path: Path) -> None:
    program = (tmp_path / "tell").as_posix()
    assert loaded(tmp_path, f'command = ["{program}", "-v", ""]').health.command == (program, "-v", "")


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ('webhook = "https://alerts.example/x"', "health.webhook", "is on another machine"),
        ('webhook = "http://192.0.2.1/"', "health.webhook", "is on another machine"),
        ('webhook = "127.0.0.1:9093"', "health.webhook", "is not an HTTP URL"),
        ('command = ["tell"]', "health.command", "no absolute path"),
        ('command = ["/bin/tell", "a\\u0000b"]', "health.command", "no argument"),
        ("queue_depth = -1", "health.queue_depth", ""),
        ("database_warn_percent = 101", "health.database_warn_percent", ""),
    ],
)
def test_a_wrong_one_is_named(tmp_path: Path, text: str, key: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        loaded(tmp_path, text)
    [problem] = raised.value.problems
    assert problem.key == key
    assert message in problem.message
