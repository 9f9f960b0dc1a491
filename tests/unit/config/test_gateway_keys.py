"""[gateway]: on this machine alone unless told otherwise, and never open to others without a token."""

from __future__ import annotations

from pathlib import Path

import pytest

from offgrid_node.config import Config, ConfigError, load
from offgrid_node.config.http_ports import auto_ports


def loaded(folder: Path, text: str) -> Config:
    (folder / "offgrid.toml").write_text(f'mesh.name = "home"\n{text}', encoding="utf-8")
    return load(folder / "offgrid.toml", {"OFFGRID_AUTH_KEY": "shared"})


def test_it_is_on_for_this_machine_at_the_port_of_the_first_role(tmp_path: Path) -> None:
    gateway = loaded(tmp_path, "").gateway
    assert (gateway.listen, gateway.hosts, gateway.token.get_secret_value()) == ("auto", (), "")
    assert gateway.auth_key.get_secret_value() == "shared"
    assert auto_ports(["core", "host"])[0] == 8001
    assert auto_ports(["host", "broker"])[0] == 8081
    assert list(auto_ports(["broker"])) == list(range(9000, 9021))


@pytest.mark.parametrize(
    "text",
    [
        'gateway.listen = "off"',
        'gateway.listen = "[::1]:0"',
        'gateway.listen = "localhost:8001"',
        'gateway.listen = "127.3.2.1:8001"',
        'gateway.listen = "0.0.0.0:8001"\ngateway.token = "0123456789abcdef"\ngateway.hosts = ["attic.local"]',
    ],
)
def test_these_are_right(tmp_path: Path, text: str) -> None:
    assert loaded(tmp_path, text).gateway.listen in text


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ('gateway.listen = "0.0.0.0:8001"', "gateway.token", "which other machines can reach"),
        ('gateway.listen = "attic.local:8001"', "gateway.token", "which other machines can reach"),
        ('gateway.listen = "[::]:8001"', "gateway.token", "which other machines can reach"),
        ('gateway.listen = "8001"', "gateway.listen", "has no port"),
        ('gateway.listen = ""', "gateway.listen", "has no port"),
        ('gateway.listen = "http://127.0.0.1:8001"', "gateway.listen", "is a URL"),
        ('gateway.listen = "127.0.0.1:7440"\nmesh.listen = "127.0.0.1:7440"', "gateway.listen", "as mesh.listen"),
        ('gateway.token = "short"', "gateway.token", "has 5 characters, soon guessed"),
        ('gateway.token = "0123456789 abcdef"', "gateway.token", "other characters"),
        ('gateway.hosts = ["attic:8001"]', "gateway.hosts[0]", "bad host name"),
    ],
)
def test_a_wrong_one_is_named_and_the_token_never_shown(tmp_path: Path, text: str, key: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        loaded(tmp_path, text)
    [problem] = raised.value.problems
    assert problem.key == key
    assert message in problem.message
    assert "0123456789" not in str(problem)
