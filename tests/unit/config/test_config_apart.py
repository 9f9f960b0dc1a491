"""A config that another process reads: the same values under the same names, as frozen, and the same problems."""

from __future__ import annotations

import subprocess
import sys
from functools import reduce
from pathlib import Path

import pytest

from offgrid_node.config import ConfigError, load, unused_settings
from offgrid_node.config.addresses import admin_socket
from offgrid_node.config.apart import ConfigReading
from offgrid_node.config.tree import settings
from offgrid_node.protocol.errors import Internal

FULL = """
mesh.name = "home"
mesh.peers = ["10.0.0.1:7440"]
gateway.auth_key = "hunter2"
storage.summary_dir = "s"
[host]
labels = { room = "attic" }
[[host.rules]]
name = "nights"
owners = ["*"]
hours = "22:00-06:00"
[[host.rules]]
name = "rest"
deny = true
[host.process.commands]
true = "/bin/true"
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "offgrid.toml"
    file.write_text(text)
    return file


def test_every_value_is_what_load_gives(tmp_path: Path) -> None:
    file = write(tmp_path, FULL)
    expected = load(file, {})
    with ConfigReading(file) as reading:
        config, unused = reading.result()
    secret = ("gateway", "auth_key"), ("gateway", "token"), ("host", "llm", "api_key"), ("state", "sql_mirror")
    for path, _ in settings():
        got, wanted = (reduce(getattr, path, tree) for tree in (config, expected))
        if path in secret:
            assert got.get_secret_value() == wanted.get_secret_value()
        elif path == ("host", "rules"):
            assert [vars(rule) for rule in got] == [rule.model_dump() for rule in wanted]
        else:
            assert (path, got, type(got)) == (path, wanted, type(wanted))
    assert unused == unused_settings(expected) != ()
    assert admin_socket(config) == admin_socket(expected)


def test_it_stays_as_it_is_and_shows_no_secret(tmp_path: Path) -> None:
    with ConfigReading(write(tmp_path, FULL)) as reading:
        config, _ = reading.result()
    for section in (config, config.mesh, config.host.rules[0]):
        with pytest.raises(AttributeError, match="stays as it was read"):
            setattr(section, "name", "other")  # noqa: B010 - mypy knows it too
    assert "hunter2" not in repr(config)
    with pytest.raises(AttributeError, match="mesh_name"):
        getattr(config, "mesh_name")  # noqa: B009 - as above


def test_the_environment_and_the_file_beside_it_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFGRID_HOST__SLOTS", "7")
    (tmp_path / ".env").write_text("OFFGRID_NODE__LOG_LEVEL=error\n")
    with ConfigReading(write(tmp_path, FULL)) as reading:
        config, _ = reading.result()
    assert (config.host.slots, config.node.log_level) == (7, "error")


def test_problems_are_all_told(tmp_path: Path) -> None:
    file = write(tmp_path, 'mesh.name = "A B"\nhost.slots = 0\n')
    with pytest.raises(ConfigError) as expected:
        load(file, {})
    with ConfigReading(file) as reading, pytest.raises(ConfigError) as raised:
        reading.result()
    assert raised.value.problems == expected.value.problems
    assert len(raised.value.problems) == 2


def test_a_reader_that_breaks_down_is_said_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offgrid_node.config.apart.MODULE", "offgrid_node.no_such_module")
    with ConfigReading(write(tmp_path, FULL)) as reading, pytest.raises(Internal, match="no_such_module"):
        reading.result()


def test_one_that_nobody_waits_for_is_ended(tmp_path: Path) -> None:
    with ConfigReading(write(tmp_path, FULL)) as reading:
        process = reading._process
    assert process is not None
    assert process.returncode is not None


def test_where_no_process_may_be_started_it_is_read_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    with ConfigReading(write(tmp_path, FULL)) as reading:
        config, unused = reading.result()
    assert (config.mesh.name, len(unused)) == ("home", 1)


def test_a_node_holds_nothing_that_only_some_need() -> None:
    """What each of these takes is between 3 and 12 MiB, and a role may have 80 in all."""
    heavy = ("pydantic", "wasmtime", "zeroconf", "prometheus_client", "distributed", "http.client")
    program = f"import sys, offgrid_node.serving; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "[]"


def test_who_reads_a_config_reads_little_else() -> None:
    """Each start of a node waits for it."""
    heavy = ("google.protobuf", "dotenv", "cryptography", "grpc", "asyncio")
    program = f"import sys, offgrid_node.config.__main__; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "[]"
