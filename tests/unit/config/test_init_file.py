"""The file that `offgrid-node init` writes: it loads, its comments are true, and nothing is missing from it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from offgrid_node.config import Config, ConfigError, load, template
from offgrid_node.config.env import SHORT_NAMES
from offgrid_node.config.init_file import toml_value
from offgrid_node.config.tree import settings


def read(folder: Path, text: str) -> Config:
    (folder / "offgrid.toml").write_text(text, encoding="utf-8")
    return load(folder / "offgrid.toml", {})


def test_it_loads_with_what_was_asked_and_defaults_for_the_rest(tmp_path: Path) -> None:
    written = read(tmp_path, template("home", "attic", ["host"]))
    asked = read(tmp_path, 'mesh.name = "home"\nnode = { name = "attic", roles = ["host"] }')
    assert written == asked


def test_every_commented_default_is_the_default(tmp_path: Path) -> None:
    text = template("home", "attic", ["host"])
    uncommented = re.sub(r"^# ([a-z_]+ = )", r"\1", text, flags=re.MULTILINE)
    assert uncommented != text
    assert read(tmp_path, uncommented) == read(tmp_path, text)
    keys = {line.partition(" = ")[0] for line in uncommented.splitlines() if re.match(r"[a-z_]+ = ", line)}
    assert keys == {path[-1] for path, _ in settings()}


def test_every_key_is_explained_with_its_rule() -> None:
    lines = template("home", "attic").splitlines()
    for number, line in enumerate(lines):
        if re.match(r"(# )?[a-z_]+ = ", line):
            above = []
            while lines[number - 1]:
                number -= 1
                above.append(lines[number])
            assert any(text.startswith("# allowed: ") for text in above), line
            assert not above[-1].startswith("# allowed: "), line
    assert max(map(len, lines)) <= 110


def test_further_values_can_be_set(tmp_path: Path) -> None:
    values = {
        "mesh.listen": "127.0.0.1:0",
        "mesh.peers": ["a:1", "[::1]:2"],
        "mesh.mdns": False,
        "host.slots": 3,
        "host.labels": {"room": 'the "attic"\\ é'},
        "host.wasm.memory_mb": 64,
        "node.data_dir": str(tmp_path / "da ta"),
    }
    config = read(tmp_path, template("home", "attic", values=values))
    assert config.mesh.listen == "127.0.0.1:0"
    assert config.mesh.peers == ("a:1", "[::1]:2")
    assert config.mesh.mdns is False
    assert config.host.slots == 3
    assert config.host.labels == {"room": 'the "attic"\\ é'}
    assert config.host.wasm.memory_mb == 64
    assert config.node.data_dir == tmp_path / "da ta"


@pytest.mark.parametrize(
    ("mesh", "node", "roles", "values", "key"),
    [
        ("My Mesh", "a", ["core"], {}, "mesh.name"),
        ("m", "", ["core"], {}, "node.name"),
        ("m", "a", ["cook"], {}, "node.roles[0]"),
        ("m", "a", [], {}, "node.roles"),
        ("m", "a", ["core"], {"mesh.lisen": "a:1"}, "mesh.lisen"),
        ("m", "a", ["core"], {"nod.x": 1}, "nod"),
    ],
)
def test_what_would_not_load_is_not_written(
    mesh: str, node: str, roles: list[str], values: dict[str, object], key: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        template(mesh, node, roles, values=values)
    assert [problem.key for problem in caught.value.problems] == [key]


def test_reserved_keys_are_named_at_the_top_and_at_their_place() -> None:
    head, _, body = template("home", "attic").partition("[node]")
    named = re.search(r"by this version: (.*) This node\.", " ".join(head.replace("#", "").split()))
    assert named
    reserved = named[1].split(", ")
    used = {"jobs.mode", "storage.memory_db", "storage.enabled", "storage.chunk_dir", "storage.hosts"}
    used |= {"storage.chunk_threshold", "storage.compaction_interval", "economy.settlement_interval"}
    used |= {"storage.retention_base_mb", "storage.retention_token_level", "gateway.auth_key"}
    used |= {"jobs.broker_url"}
    unused = {".".join(path) for path in SHORT_NAMES.values()} - used
    assert set(reserved) == unused
    assert body.count("(reserved)") == len(reserved)


@pytest.mark.parametrize("value", ["", 'a"b', "tab\t", "\x7f", "\x1f\x00", "é😀", "\\", "#", "a\nb"])
def test_every_text_survives(value: str) -> None:
    assert tomllib.loads(f"v = {toml_value(value)}") == {"v": value}
