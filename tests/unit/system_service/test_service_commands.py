"""`offgrid-node service`: what is written, which commands are run, and what is refused with a way on."""

from __future__ import annotations

import getpass
import shlex
import sys
from pathlib import Path

import pytest
from node_command import Typed, typed

from offgrid_node.founding import found
from offgrid_node.system_service import acting, systemd

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it plays systemd's part")

SYSTEMCTL = '#!/bin/sh\necho "$@" >> "{log}"\ncase "$*" in *{refused}*) echo "no such thing" >&2; exit 1;; esac\n'


@pytest.fixture
def attic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node's folder, and a systemctl that writes down what it is asked."""
    monkeypatch.setattr(systemd, "SYSTEM_UNITS", tmp_path / "units")
    monkeypatch.setattr(systemd, "BOOTED", tmp_path)
    (tmp_path / "bin").mkdir()
    play(tmp_path, refused="nothing-at-all")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    folder = tmp_path / "attic"
    found(folder, "home", "attic", ["core"], {"storage.chunk_dir": str(tmp_path / "disk" / "chunks")})
    return folder


def play(tmp_path: Path, *, refused: str) -> None:
    program = tmp_path / "bin" / "systemctl"
    program.write_text(SYSTEMCTL.format(log=tmp_path / "asked", refused=refused))
    program.chmod(0o755)


def service(*words: str | Path) -> Typed:
    return typed("service", *words)


def asked(attic: Path) -> list[str]:
    return (attic.parent / "asked").read_text().splitlines()


def test_installs_starts_asks_and_removes(attic: Path) -> None:
    unit = attic.parent / "units" / "offgrid-node.service"
    done = service("install", "--dir", attic)
    assert done.exit_code == 0, done.output
    assert asked(attic) == ["daemon-reload", "enable offgrid-node.service", "restart offgrid-node.service"]
    lines = unit.read_text().splitlines()
    assert f"User={getpass.getuser()}" in lines
    assert f"ReadWritePaths={attic} {attic.parent / 'disk' / 'chunks'}" in lines
    assert any(line.startswith("ExecStart=") and line.endswith(f"run --dir {attic}") for line in lines)

    assert service("status", "--dir", attic).exit_code == 0
    assert service("uninstall", "--dir", attic).exit_code == 0
    assert not unit.exists()
    assert asked(attic)[-2:] == ["disable --now offgrid-node.service", "daemon-reload"]
    assert attic.is_dir()


def test_what_a_kit_laid_is_started_by_the_path_that_upgrades_keep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment, current = tmp_path / "env-1", tmp_path / "current"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "offgrid-node").touch()
    monkeypatch.setattr(acting.sys, "prefix", str(environment))
    monkeypatch.setattr(acting.sys, "executable", str(environment / "bin" / "python"))
    assert acting.own_command() == (str(environment / "bin" / "offgrid-node"),)
    current.symlink_to("env-1")
    assert acting.own_command() == (str(current / "bin" / "offgrid-node"),)


def test_print_shows_and_writes_nothing(attic: Path) -> None:
    done = service("install", "--dir", attic, "--print")
    assert done.output.startswith(f"# {attic.parent / 'units' / 'offgrid-node.service'}\n[Unit]\n")
    assert not (attic.parent / "units").exists()
    assert not (attic.parent / "asked").exists()


def test_another_nodes_service_of_that_name_stays(attic: Path) -> None:
    (attic.parent / "units").mkdir()
    unit = attic.parent / "units" / "offgrid-node.service"
    for other in ("/srv/other", f"{attic}2", f"/srv{attic}", "/srv/the attic"):
        unit.write_text(text := f"[Service]\nExecStart=offgrid-node run --dir {other}\nWorkingDirectory={other}\n")
        done = service("install", "--dir", attic)
        assert f"{unit} is the service of the node in {other}; choose another name: --name NAME" in done.stderr
        done = service("uninstall", "--dir", attic)
        assert f"{unit} is the service of the node in {other}; to remove it: --dir {shlex.quote(other)}" in done.stderr
        assert unit.read_text() == text
    assert not (attic.parent / "asked").exists()
    assert service("install", "--dir", attic, "--name", "attic").exit_code == 0


def test_what_the_manager_refuses_is_said_in_its_words(attic: Path) -> None:
    play(attic.parent, refused="restart")
    done = service("install", "--dir", attic)
    assert "`systemctl restart offgrid-node.service` ended with 1: no such thing" in done.stderr


def test_a_machine_without_a_manager_is_told_the_command(attic: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acting.shutil, "which", lambda _: None)
    done = service("install", "--dir", attic)
    assert f"run --dir {attic}" in done.stderr


def test_unit_lines(attic: Path) -> None:
    evil = attic.parent / "n\nExecStartPre=+e"
    attic.rename(evil)
    for words in (("install",), ("install", "--print"), ("uninstall",)):
        done = service(*words, "--dir", evil)
        assert "has signs that cannot be printed" in done.stderr
        assert "\nExecStartPre" not in done.output
    assert not (evil.parent / "units").exists()


def test_names_are_checked_and_what_is_not_there_is_not_removed(attic: Path) -> None:
    assert "is no name" in service("install", "--dir", attic, "--name", "../x").output
    done = service("uninstall", "--dir", attic)
    assert (done.exit_code, "there is no service offgrid-node" in done.output) == (3, True)
    assert not (attic.parent / "asked").exists(), "a service of that name, which somebody else wrote, goes on"


@pytest.mark.parametrize("verb", ["install", "status"])
def test_where_systemd_does_not_run_the_machine_nothing_is_written(
    attic: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setattr(systemd, "BOOTED", attic / "missing")
    done = service(verb, "--dir", attic)
    assert done.exit_code == 5
    assert "systemd does not run this machine" in done.output
    assert f"run --dir {attic}" in done.output
    assert not (attic.parent / "units").exists()
