"""[metrics]: off unless an address is given, and the address is its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from offgrid_node.config import Config, ConfigError, load


def loaded(folder: Path, text: str) -> Config:
    (folder / "offgrid.toml").write_text(f'mesh.name = "home"\n{text}', encoding="utf-8")
    return load(folder / "offgrid.toml", {})


def test_metrics_are_off_until_an_address_is_given(tmp_path: Path) -> None:
    assert (loaded(tmp_path, "").metrics.listen, loaded(tmp_path, "").metrics.hosts) == ("", ())
    config = loaded(tmp_path, '[metrics]\nlisten = "127.0.0.1:9464"\nhosts = ["attic.local"]')
    assert (config.metrics.listen, config.metrics.hosts) == ("127.0.0.1:9464", ("attic.local",))


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ('metrics.listen = "9464"', "metrics.listen", "has no port"),
        ('metrics.hosts = ["attic:9464"]', "metrics.hosts[0]", "bad host name"),
        ('metrics.hosts = ["a", "a"]', "metrics.hosts", "twice"),
        ('metrics.listen = "0.0.0.0:7440"', "metrics.listen", "the same address as mesh.listen"),
        ('metrics.listen = "0.0.0.0:7441"', "metrics.listen", "the same address as mesh.door"),
        ('metrics.listen = "[::1]:1"\ngateway.listen = "[::1]:1"', "metrics.listen", "same address as gateway.listen"),
    ],
)
def test_a_wrong_one_is_named(tmp_path: Path, text: str, key: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        loaded(tmp_path, text)
    [problem] = raised.value.problems
    assert problem.key == key
    assert message in problem.message
