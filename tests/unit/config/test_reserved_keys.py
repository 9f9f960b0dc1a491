"""A key that nothing reads yet may be set, and whoever sets it is told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from node_command import typed

from offgrid_node.config import load, template, unused_settings


def told(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    (folder / "offgrid.toml").write_text(text, encoding="utf-8")
    sentences = unused_settings(load(folder / "offgrid.toml", environ or {}))
    assert all(sentence.endswith(" is set, but this version does not use it yet") for sentence in sentences)
    return [sentence.partition(" ")[0] for sentence in sentences]


def test_nothing_is_said_of_defaults_wherever_the_data_lies(tmp_path: Path) -> None:
    assert told(tmp_path, template("home", "attic")) == []
    assert told(tmp_path, template("home", "attic", values={"node.data_dir": "elsewhere", "host.slots": 3})) == []
    assert told(tmp_path, 'mesh.name = "home"\nstorage.enabled = true\neconomy.enabled = false') == []


def test_each_reserved_key_that_is_set_is_named_and_no_other(tmp_path: Path) -> None:
    storage = 'enabled = false\nchunk_dir = "c"\nmemory_db = "m"\nsummary_dir = "s"'
    text = f'mesh.name = "home"\njobs.queue_max = 7\njobs.broker_url = "https://a.b"\n[storage]\n{storage}\n'
    found = told(tmp_path, text)
    assert found == ["storage.summary_dir"]


def test_it_does_not_matter_where_it_was_set_and_secrets_stay_secret(tmp_path: Path) -> None:
    environ = {"OFFGRID_BROKER_URL": "https://a.b", "OFFGRID_AUTH_KEY": "hush", "OFFGRID_SUMMARY_DIR": "s"}
    assert told(tmp_path, 'mesh.name = "home"', environ) == [
        "storage.summary_dir",
    ]
    assert not any("hush" in said for said in unused_settings(load(tmp_path / "offgrid.toml", environ)))


def test_config_check_says_so_and_is_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "offgrid.toml"
    file.write_text('mesh.name = "home"\n[storage]\nsummary_dir = "s"\n', encoding="utf-8")
    monkeypatch.delenv("OFFGRID_BROKER_URL", raising=False)
    done = typed("config", "check", file)
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        f"{file}: no problems",
        f"{file}: storage.summary_dir is set, but this version does not use it yet",
    ]
