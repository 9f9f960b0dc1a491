"""`install.py` of a kit: what it installs, whom it hands that on to, and what it refuses before anything is run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from small_kit import OTHER, OWN, make_small_kit

from offgrid_node.kit import install as script
from offgrid_node.kit.making import copy_kit
from offgrid_node.kit.manifest import complete_targets, damaged, lacking, read_manifest, sha256_of
from offgrid_node.kit.serving import KitServer
from offgrid_node.kit.typed import install_lines
from offgrid_node.protocol.errors import Corrupt

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="its commands are for a POSIX shell")


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    make_small_kit(tmp_path / "kit-made", script.this_target())
    return tmp_path / "kit-made"


@contextmanager
def served(kit: Path) -> Iterator[str]:
    with KitServer(kit, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


@contextmanager
def served_blindly(kit: Path) -> Iterator[str]:
    """By somebody who hands out whatever lies there."""
    handler = partial(SimpleHTTPRequestHandler, directory=str(kit))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def install(script_path: Path, home: Path, *words: str, piped: bool = False) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-" if piped else str(script_path), *words]
    command += ["--dir", str(home / "og"), "--commands", str(home / "bin")]
    stdin = script_path.read_text() if piped else None
    variables = {**os.environ, "HOME": str(home), "http_proxy": "http://127.0.0.1:9"}
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, env=variables, timeout=60, check=False, cwd=home
    )


@POSIX
def test_installs_from_a_folder_and_hands_the_very_same_kit_on(kit: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for home in (first, second):
        home.mkdir()
    done = install(kit / "install.py", first)
    assert (done.returncode, done.stderr) == (0, "")
    assert "is not on your PATH" in done.stdout
    said = subprocess.run([str(first / "bin" / "offgrid-node")], capture_output=True, text=True, check=True)
    assert said.stdout == "offgrid-node, version 0.1.0\n"

    kept = first / "og" / "kit"
    assert lacking(kept, read_manifest(kept)) == (OTHER,)
    assert complete_targets(kept, read_manifest(kept)) == (script.this_target(),)
    with served(kept) as place:
        piped = install(kit / "install.py", second, place, piped=True)
    assert piped.returncode == 0, piped.stderr
    assert sha256_of(second / "og" / "kit" / "install.py") == sha256_of(kit / "install.py")
    assert (second / "bin" / "offgrid").is_symlink()


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("sha256sum")), reason="there is no curl here")
def test_the_line_that_is_typed_runs_no_script_but_the_kits(kit: Path, tmp_path: Path) -> None:
    shown = tmp_path / "python3"  # in place of Python: it says that it was run
    shown.write_text('#!/bin/sh\necho "ran $*"\n')
    shown.chmod(0o755)
    digest = sha256_of(kit / "install.py")
    with served_blindly(kit) as place:
        (line,) = install_lines(place, digest, [script.this_target().replace("macos", "linux")])
        variables = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LC_ALL": "C"}
        run = lambda: subprocess.run(["sh", "-c", line], cwd=tmp_path, env=variables, capture_output=True, text=True)  # noqa: E731, PLW1510, S607
        assert f"ran install.py {place}\n" in run().stdout
        (kit / "install.py").write_bytes((kit / "install.py").read_bytes() + b"\n")
        done = run()
        assert (done.returncode, done.stdout) == (1, "")


def test_each_system_of_a_kit_has_a_line_of_its_own_shell() -> None:
    lines = install_lines(
        "http://10.0.0.1:8090", "ab" * 32, ["linux-x86_64-3.11", "macos-arm64-3.12", "windows-x86_64-3.11"]
    )
    assert [line.split()[0] for line in lines] == ["curl", "curl", "iwr"]
    assert "shasum -a 256" in lines[1]
    assert f"-like '{'ab' * 16}*') {{ py install.py http://10.0.0.1:8090 }}" in lines[2]
    assert install_lines("http://h", "ab", []) == ()


@POSIX
def test_keeps_the_files_of_all_machines_on_request(kit: Path, tmp_path: Path) -> None:
    assert install(kit / "install.py", tmp_path, "--whole").returncode == 0
    kept = tmp_path / "og" / "kit"
    assert lacking(kept, read_manifest(kept)) == damaged(kept, read_manifest(kept)) == ()


@POSIX
def test_leaves_other_programs_commands_alone_and_takes_the_place_of_its_own(kit: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "offgrid").write_text("somebody's")
    for _ in range(2):
        done = install(kit / "install.py", tmp_path)
        assert done.returncode == 0, done.stderr
        assert "bin/offgrid is another program's" in done.stdout
    assert (tmp_path / "bin" / "offgrid").read_text() == "somebody's"
    assert not list((tmp_path / "bin").glob(".*"))


@POSIX
def test_leaves_commands_that_lead_to_another_installation(kit: Path, tmp_path: Path) -> None:
    """pipx and uv put links there as well."""
    theirs = tmp_path / "pipx" / "venvs" / "offgrid-node" / "bin" / "offgrid-node"
    theirs.parent.mkdir(parents=True)
    theirs.touch()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "offgrid-node").symlink_to(theirs)
    (tmp_path / "bin" / "offgrid").symlink_to(tmp_path / "what-has-gone")
    done = install(kit / "install.py", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "bin/offgrid-node is another program's, and stays; ours is" in done.stdout
    assert (tmp_path / "bin" / "offgrid-node").readlink() == theirs
    assert (tmp_path / "bin" / "offgrid").readlink().is_relative_to(tmp_path / "og"), "a link to nothing is nobody's"


@POSIX
def test_an_upgrade_leaves_what_a_node_may_run_from_and_one_path_leads_to_the_newest(kit: Path, tmp_path: Path) -> None:
    og, made = tmp_path / "og", []
    for _ in range(4):
        done = install(kit / "install.py", tmp_path)
        assert done.returncode == 0, done.stderr
        made.append((og / "current").resolve())
        assert (tmp_path / "bin" / "offgrid-node").readlink() == og / "current" / "bin" / "offgrid-node"
    assert {*og.glob("env-*")} == {*made[-2:]}, "the one before stays, older ones go"
    assert len({*made[:2]}) == 2


@POSIX
def test_what_was_broken_off_is_done_anew_and_what_worked_goes_on_till_then(kit: Path, tmp_path: Path) -> None:
    assert install(kit / "install.py", tmp_path).returncode == 0
    og = tmp_path / "og"
    broken = og / f"{(og / 'current').resolve().name}-2"
    (broken / "bin").mkdir(parents=True)
    (broken / "bin" / "half").touch()
    assert (og / "current" / "whole").exists()
    assert install(kit / "install.py", tmp_path).returncode == 0
    assert not (broken / "bin" / "half").exists()
    assert (og / "current").resolve() == broken


def test_says_how_much_room_is_needed_before_anything_is_written(
    kit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(script.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    monkeypatch.setattr(script, "KIT_SHA256", sha256_of(kit / "kit.json"))
    assert script.main([str(kit), "--dir", str(tmp_path / "og")]) == 1
    assert f"{tmp_path} has 0 MB free, and 0 MB are needed; make room" in capsys.readouterr().err
    assert not (tmp_path / "og").exists()


def test_names_the_python_that_the_kit_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    known = ["linux-x86_64-3.11", "linux-x86_64-3.13", "windows-x86_64-3.12"]
    monkeypatch.setattr(script.shutil, "which", lambda name: f"/usr/bin/{name}" if name == "python3.11" else None)
    with pytest.raises(
        script.Refused, match=r"for Python 3\.11, 3\.13, and this one is 3\.10; run .* by /usr/bin/python3\.11"
    ):
        script.check_target("linux-x86_64-3.10", known)
    monkeypatch.setattr(script.shutil, "which", lambda _: None)
    with pytest.raises(script.Refused, match="install one of them"):
        script.check_target("linux-x86_64-3.10", known)


def test_on_windows_a_command_is_ours_if_it_calls_our_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "WINDOWS", True)
    commands, environment = tmp_path / "commands", tmp_path / "og" / "env-1"
    commands.mkdir()
    (commands / "offgrid.cmd").write_text("@echo somebody's\n")
    assert script.link_commands(environment, commands) == [commands / "offgrid.cmd"]
    newer = tmp_path / "og" / "env-2"
    assert script.link_commands(newer, commands) == [commands / "offgrid.cmd"]
    assert str(newer) in (commands / "offgrid-node.cmd").read_text()
    assert (commands / "offgrid.cmd").read_text() == "@echo somebody's\n"


def test_refuses_a_damaged_wheel_before_it_runs_anything(kit: Path, tmp_path: Path) -> None:
    wheel = kit / "wheels" / OWN
    wheel.write_bytes(wheel.read_bytes()[:-1] + b"?")
    assert damaged(kit, read_manifest(kit)) == (OWN,)
    with served_blindly(kit) as place:
        done = install(kit / "install.py", tmp_path, place)
    assert done.returncode == 1
    assert f"{OWN} at {place} is not what the kit says it is" in done.stderr
    assert [path.name for path in (tmp_path / "og").iterdir()] == ["kit"]
    assert not list((tmp_path / "og" / "kit" / "wheels").glob(f"{OWN}*"))


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "code": lambda text: text + b"import os; os.system('true')\n",
    "code, and the line that names the kit in a comment": lambda text: b"import this\n# " + text,
    "that line twice": lambda text: text + text[text.index(b"KIT_SHA256 =") :].partition(b"\n")[0],
    "the script of no kit": lambda _: Path(script.__file__).read_bytes(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_keeps_no_script_but_the_one_that_ran(kit: Path, tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    """Who serves the kit hands out another install.py than the one whose digest was compared."""
    compared = tmp_path / "compared.py"
    compared.write_bytes((kit / "install.py").read_bytes())
    with served_blindly(kit) as place:
        (kit / "install.py").write_bytes(change(compared.read_bytes()))
        done = install(compared, tmp_path, place)
    assert done.returncode == 1
    assert f"install.py at {place} is not what the kit says it is" in done.stderr
    assert not (tmp_path / "og").exists()


@pytest.mark.parametrize("name", ["install.py", "README.txt"])
def test_a_kit_with_a_changed_script_is_handed_to_nobody(kit: Path, tmp_path: Path, name: str) -> None:
    path, whole = kit / name, (kit / name).read_bytes()
    for changed in (whole + b"import os\n", b"# " + whole, None):
        if changed is None:
            path.unlink()
        else:
            path.write_bytes(changed)
        assert damaged(kit, read_manifest(kit)) == (name,)
        with pytest.raises(Corrupt, match=f"{name} is not what the kit says it is"):
            KitServer(kit, "127.0.0.1", 0)
        with pytest.raises(Corrupt):
            copy_kit(kit, tmp_path / "copy")


def test_refuses_a_manifest_that_is_not_its_own(kit: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    make_small_kit(other, "linux-riscv64-3.99")
    done = install(kit / "install.py", tmp_path, str(other))
    assert done.returncode == 1
    assert "is not the one that this install.py was made with" in done.stderr
    assert not (tmp_path / "og").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "say where the kit is"),
        (("/nowhere",), "no kit at /nowhere: No such file or directory"),
        (("http://127.0.0.1:9",), "no kit at http://127.0.0.1:9: "),
    ],
)
def test_says_where_it_found_no_kit(kit: Path, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    done = install(kit / "install.py", tmp_path, *words, piped=True)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_says_for_which_machines_the_kit_is(tmp_path: Path) -> None:
    make_small_kit(tmp_path / "kit", "linux-riscv64-3.99")
    done = install(tmp_path / "kit" / "install.py", tmp_path)
    assert done.returncode == 1
    assert f"not for {script.this_target()}; it is for linux-riscv64-3.99, windows-x86_64-3.99" in done.stderr


def test_the_script_of_no_kit_installs_nothing(kit: Path, tmp_path: Path) -> None:
    done = install(Path(script.__file__), tmp_path, str(kit))
    assert done.returncode == 1
    assert "belongs to no kit" in done.stderr


def test_takes_up_a_file_that_broke_off(kit: Path, tmp_path: Path) -> None:
    class Breaking(script.Source):
        broken = 0

        def open(self, name: str):  # type: ignore[no-untyped-def]
            if self.broken < 2:
                self.broken += 1
                raise ConnectionResetError(104, "Connection reset by peer")
            return super().open(name)

    with served(kit) as place:
        manifest, _ = script.read_manifest(script.Source(place), sha256_of(kit / "kit.json"))
        source = Breaking(place)
        waited: list[float] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("time.sleep", waited.append)
            script.fetch_all(source, manifest, [OWN], tmp_path / "wheels")
    assert waited == [0.5, 1.0]
    assert script.is_whole(tmp_path / "wheels" / OWN, manifest["files"][OWN])
