"""The tree itself: defaults, paths, the frozen form, what is kept secret, and what importing it costs."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from offgrid_node.config import Config, ConfigError, Problem, load
from offgrid_node.config.addresses import admin_socket
from offgrid_node.config.fields import UNIX_PATH_BYTES_MAX, Placement, fit_name
from offgrid_node.config.tree import settings as all_settings
from offgrid_node.protocol.ids import NAME
from offgrid_node.protocol.objects.preference import Policy


def loaded(folder: Path, text: str = "") -> Config:
    folder.mkdir(exist_ok=True)
    file = folder / "offgrid.toml"
    file.write_text('mesh.name = "home"\n' + text)
    return load(file, {})


def test_the_defaults(tmp_path: Path) -> None:
    config = loaded(tmp_path)
    assert NAME.match(config.node.name)
    assert config.node.roles == ("core", "broker", "host")
    assert config.node.log_level == "info"
    assert (config.mesh.listen, config.mesh.door) == ("0.0.0.0:7440", "0.0.0.0:7441")
    assert (config.mesh.advertise, config.mesh.peers, config.mesh.mdns) == ((), (), True)
    assert config.mesh.probe_interval_ms == 1000
    assert config.mesh.hosts_file == tmp_path / "discovery" / "mesh_hosts.json"
    assert config.admin.address == ""
    assert (config.jobs.mode, config.jobs.timeout_ms, config.jobs.queue_max) == ("auto", 30_000, 100_000)
    assert (config.jobs.broker_url, config.gateway.auth_key.get_secret_value()) == ("", "")
    assert config.host.slots == min(os.cpu_count() or 1, 1024)
    assert (config.host.price_micro, config.host.kinds, config.host.labels) == (1000, ("compute",), {})
    assert (config.host.wasm.enabled, config.host.wasm.memory_mb, config.host.process.commands) == (True, 256, {})
    assert (config.storage.enabled, config.storage.hosts, config.storage.limit_mb) == (True, (), 4096)
    assert (config.storage.copies, config.storage.required_milli) == (3, 2_000)
    assert [Policy(word) for word in get_args(Placement)] == list(Policy)
    assert Policy(config.storage.placement) is Policy.BALANCED
    assert config.storage.chunk_threshold == 1_048_576
    assert (config.storage.retention_base_mb, config.storage.retention_token_level) == (128, 0)
    assert (config.storage.compaction_interval, config.economy.settlement_interval) == (1800, 3600)
    assert config.economy.enabled is True
    assert (config.economy.epoch, config.economy.keep) == (86_400, 30)


def test_paths_start_at_the_files_folder_wherever_the_process_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    loaded(tmp_path / "conf")
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = load(Path("..") / "conf" / "offgrid.toml", {})
    assert config.node.data_dir.is_absolute()
    assert config.node.data_dir.resolve() == (tmp_path / "conf" / "data").resolve()


def test_the_stores_follow_the_data_folder_unless_they_are_given(tmp_path: Path) -> None:
    first = loaded(tmp_path)
    assert first.storage.memory_db == tmp_path / "data" / "memory.db"
    second = loaded(tmp_path, '[node]\ndata_dir = "there"\n[storage]\nchunk_dir = "./data/chunks"\n')
    assert second.storage.memory_db == tmp_path / "there" / "memory.db"
    assert second.storage.summary_dir == tmp_path / "there" / "summaries"
    assert second.storage.chunk_dir == tmp_path / "data" / "chunks"


def test_values_at_their_bounds_are_good(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        f'host.labels = {{ {"k" * 63} = "{"x" * 128}" }}\nhost.slots = 1024\nhost.price_micro = 0\n'
        'mesh.probe_interval_ms = 100\njobs.timeout_ms = 86_400_000\nmesh.door = ""\n',
    )
    assert len(config.host.labels["k" * 63]) == 128
    assert (config.host.slots, config.host.price_micro, config.mesh.door) == (1024, 0, "")


def test_the_local_socket(tmp_path: Path) -> None:
    default = None if sys.platform == "win32" else tmp_path / "data" / "offgrid.sock"
    assert admin_socket(loaded(tmp_path)) == default
    assert admin_socket(loaded(tmp_path, 'admin.address = "unix:run/x"')) == tmp_path / "run" / "x"
    assert admin_socket(loaded(tmp_path, 'admin.address = "127.0.0.1:9"')) is None


@pytest.mark.skipif(sys.platform == "win32", reason="there is no unix socket")
def test_a_data_folder_too_deep_for_the_socket_is_refused_unless_the_socket_lies_elsewhere(tmp_path: Path) -> None:
    deep = f'[node]\ndata_dir = "{"d" * UNIX_PATH_BYTES_MAX}"\n'
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, deep)
    (problem,) = caught.value.problems
    assert (problem.line, problem.column, problem.key) == (3, 12, "node.data_dir")
    assert loaded(tmp_path, deep + '[admin]\naddress = "127.0.0.1:0"')


def test_nothing_in_the_tree_can_be_changed(tmp_path: Path) -> None:
    config = loaded(tmp_path, 'host.labels = { room = "attic" }')
    with pytest.raises(ValidationError, match="frozen"):
        setattr(config.mesh, "name", "other")  # noqa: B010  mypy would refuse the plain form, as it should
    assert not hasattr(config.host.labels, "__setitem__")
    assert hash(config) == hash(copy.deepcopy(config))
    assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301  our own bytes
    assert config.model_dump()["host"]["labels"] == {"room": "attic"}


def test_the_secret_shows_nowhere(tmp_path: Path) -> None:
    config = loaded(tmp_path, 'gateway.auth_key = "hunter2"')
    assert config.gateway.auth_key.get_secret_value() == "hunter2"
    for text in (repr(config), str(config), str(config.model_dump()), config.model_dump_json()):
        assert "hunter2" not in text


def test_importing_the_package_does_not_import_pydantic() -> None:
    code = "import sys, offgrid_node.config; sys.exit('pydantic' in sys.modules)"
    environ = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run([sys.executable, "-c", code], env=environ, check=False).returncode == 0


def test_every_key_says_what_it_is() -> None:
    assert all(info.description for _, info in all_settings())


@given(st.text(max_size=100))
def test_a_fitted_name_fits(text: str) -> None:
    assert fit_name(text) == "" or NAME.match(fit_name(text))


def problems(file: Path, environ: dict[str, str]) -> list[Problem]:
    """[] for a good configuration; any error but ConfigError passes through and fails the test."""
    try:
        load(file, environ)
    except ConfigError as error:
        return error.problems
    return []


@given(
    st.dictionaries(
        st.sampled_from(sorted(f"OFFGRID_{'__'.join(path).upper()}" for path, _ in all_settings())),
        st.text(max_size=12) | st.text(":[]/@.,=~0123456789\udcff", max_size=12),
        max_size=4,
    )
)
def test_no_environment_throws_anything_but_a_config_error(environ: dict[str, str]) -> None:
    found = problems(Path("no-such-folder") / "offgrid.toml", environ)
    assert found
    assert all(str(problem).isprintable() for problem in found)


TOML_VALUES = st.sampled_from(
    [
        "1",
        "-1",
        '""',
        '"x"',
        "true",
        "1.5",
        "[]",
        "{}",
        '["a:1", 2]',
        "{ a = 1 }",
        "2024-01-01",
        "nan",
        "[[]]",
        "x",
        "[",
        '"',
        '"::"',
        '"[::]"',
        '"http://[:1"',
        '"unix:"',
        "9223372036854775808",
    ]
)


@given(
    st.lists(
        st.tuples(st.sampled_from([".".join(path) for path, _ in all_settings()] + ["", "x", "node"]), TOML_VALUES),
        max_size=6,
    )
)
def test_no_file_throws_anything_but_a_config_error(
    tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[str, str]]
) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzz.toml"
    text = "".join(f"{key} = {value}\n" for key, value in lines)
    file.write_text(text)
    for problem in problems(file, {}):
        assert problem.line <= text.count("\n") + 1
        assert str(problem).isprintable()


@pytest.mark.parametrize("rate", [1, 999])
@pytest.mark.parametrize("key", ["repair_bytes_per_s", "reencrypt_bytes_per_s"])
def test_a_rate_at_which_nothing_ends_is_refused(tmp_path: Path, key: str, rate: int) -> None:
    with pytest.raises(ConfigError, match=rf"storage\.{key}.*{rate} bytes a second") as refused:
        loaded(tmp_path, f"storage.{key} = {rate}")
    assert "0 = no limit, or 1000 to " in str(refused.value)
    for allowed in (0, 1_000):
        loaded(tmp_path, f"storage.{key} = {allowed}")


def test_more_shards_are_made_than_are_needed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"storage\.shards_total.*20 shards, of which 20 are needed"):
        loaded(tmp_path, "storage.shards_needed = 20")
