"""What goes into a kit: what a node needs on each machine, and nothing that only builds it; and the project's wheel."""

from __future__ import annotations

import re
import sys
import tomllib
import zipfile
from contextlib import nullcontext
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest
from node_command import typed
from small_kit import OWN, make_small_kit

from offgrid_node.config import load
from offgrid_node.kit import finding, making
from offgrid_node.kit.extras import extras_of, pins_for
from offgrid_node.kit.locked import IN_CHECKOUT, needed, pins_of, read_lock
from offgrid_node.kit.own_wheel import repacked
from offgrid_node.kit.targets import EXTRAS, Target
from offgrid_node.protocol.errors import Unavailable

PINS = needed(pins_of(read_lock("runtime")))


def names_at(platform: str, python: str = "3.11") -> set[str]:
    return {pin.name for pin in PINS if pin.wanted_at(Target(platform, python))}


def test_each_machine_gets_what_its_markers_ask_for() -> None:
    assert {"grpcio", "wasmtime", "cffi", "zfec", "pyeclib"} <= names_at("linux-x86_64")
    assert names_at("linux-x86_64") - names_at("linux-aarch64") == {"zfec"}
    assert names_at("windows-x86_64") - names_at("linux-x86_64") == {"tzdata"}
    assert "pyeclib" not in names_at("windows-x86_64") | names_at("macos-arm64")


def test_what_the_project_asks_for_is_there_and_what_builds_it_is_not() -> None:
    project = tomllib.loads((IN_CHECKOUT.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {re.split(r"[<>=; \[]", line)[0].lower() for line in project["dependencies"]}
    assert asked <= {pin.name for pin in PINS}
    assert {pin.name for pin in PINS}.isdisjoint({"hatchling", "grpcio-tools", "mypy-protobuf"})
    assert all(pin.hashes for pin in PINS)


@pytest.mark.parametrize(
    ("extra", "brings"),
    [("lora", {"serialx"}), ("ble", {"bumble", "pyusb"}), ("dask", {"distributed", "tornado"}), ("sql", {"pymysql"})],
)
def test_an_extra_brings_its_packages_and_what_these_ask_for(extra: str, brings: set[str]) -> None:
    pins = {pin.name: pin for pin in pins_for([extra])}
    assert brings <= pins.keys()
    assert brings.isdisjoint({pin.name for pin in PINS})
    assert {pin.name for pin in PINS} <= pins.keys()
    assert all(pin.hashes for pin in pins.values())
    assert pins_for([]) == PINS


def test_the_extras_are_the_projects() -> None:
    project = tomllib.loads((IN_CHECKOUT.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert [*EXTRAS] == sorted(project["optional-dependencies"])


@pytest.mark.parametrize(
    ("text", "used"),
    [
        ("", ()),
        ('links.open = ["udp:*:7700?multicast=on"]', ()),
        ('links.open = ["lora:/dev/ttyUSB0?sf=8", "ble:usb:0"]', ("ble", "lora")),
        ('links.open = ["meshtastic:/dev/ttyUSB0"]', ("lora",)),
        ('host.dask.scheduler = "tcp://127.0.0.1:8786"', ("dask",)),
        ('state.sql_mirror = "mysql://me:secret@127.0.0.1:3306/copy"', ("sql",)),
    ],
)
def test_a_config_says_which_extras_it_cannot_do_without(text: str, used: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "offgrid.toml").write_text(f'mesh.name = "home"\n{text}\n')
    assert extras_of(load(tmp_path / "offgrid.toml", {})) == used


def test_one_pin_of_pip_comes_along() -> None:
    (pip,) = pins_of(read_lock("pip"))
    assert re.fullmatch(r"pip==\S+( --hash=sha256:[0-9a-f]{64})+", pip.requirement)


def installed(folder: Path) -> PathDistribution:
    """As pip leaves a small wheel behind."""
    info = folder / "offgrid_node-0.1.0.dist-info"
    info.mkdir()
    (folder / "small.py").write_text("x = 1\n")
    (info / "METADATA").write_text("Metadata-Version: 2.4\nName: offgrid-node\nVersion: 0.1.0\n")
    (info / "WHEEL").write_text("Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    (info / "INSTALLER").write_text("pip\n")
    from base64 import urlsafe_b64encode
    from hashlib import sha256

    def line(path: Path) -> str:
        digest = urlsafe_b64encode(sha256(path.read_bytes()).digest()).rstrip(b"=").decode()
        return f"{path.relative_to(folder).as_posix()},sha256={digest},{path.stat().st_size}"

    lines = [line(path) for path in (folder / "small.py", *sorted(info.iterdir()))]
    lines += ["../../bin/offgrid-node,sha256=AA,1", "__pycache__/small.cpython-311.pyc,,", f"{info.name}/RECORD,,"]
    (info / "RECORD").write_text("\n".join(lines) + "\n")
    return PathDistribution(info)


def test_a_wheel_is_made_again_from_what_was_installed_of_it(tmp_path: Path) -> None:
    here, out = tmp_path / "site-packages", tmp_path / "out"
    here.mkdir(), out.mkdir()
    made = repacked(installed(here), out)
    info = "offgrid_node-0.1.0.dist-info"
    with zipfile.ZipFile(made) as wheel:
        assert made.name == OWN
        assert sorted(wheel.namelist()) == [f"{info}/{name}" for name in ("METADATA", "RECORD", "WHEEL")] + ["small.py"]
        assert wheel.read("small.py") == b"x = 1\n"
        record = wheel.read(f"{info}/RECORD").decode()
    assert "bin/offgrid-node" not in record
    assert record.endswith(f"{info}/RECORD,,\n")


def test_no_wheel_is_made_of_files_that_somebody_changed(tmp_path: Path) -> None:
    distribution = installed(tmp_path)
    (tmp_path / "small.py").write_text("x = 2\n")
    with pytest.raises(Unavailable, match=r"small\.py is not as it was installed"):
        repacked(distribution, tmp_path)


def test_a_node_from_a_kit_hands_on_that_one_and_needs_no_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit, copy = tmp_path / "kit", tmp_path / "copy"
    make_small_kit(kit, "linux-x86_64-3.11")
    monkeypatch.setattr(finding, "kit_at_hand", lambda: kit)
    done = typed("bundle", "--to", copy)
    assert done.exit_code == 0, done.output
    assert (copy / "install.py").read_bytes() == (kit / "install.py").read_bytes()
    assert "linux-x86_64-3.11, windows-x86_64-3.99" in done.output
    assert "is without lora" in typed("bundle", "--to", tmp_path / "other", "--extra", "lora").stderr
    checked = typed("bundle", "check", copy)
    assert (checked.exit_code, "not what" in checked.output) == (0, False)
    (copy / "wheels" / OWN).write_bytes(b"")
    checked = typed("bundle", "check", copy)
    assert (checked.exit_code, "for     no machine: files were changed" in checked.output) == (4, True)
    assert "is not what the kit says it is" in typed("bundle", "serve", copy).stderr
    monkeypatch.setattr(finding, "kit_at_hand", lambda: copy)
    assert "is not what the kit says it is" in typed("bundle", "--to", tmp_path / "next").stderr


@pytest.mark.soak
def test_an_index_that_lacks_a_wheel_is_said_with_pips_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "own_wheel", lambda folder: folder / OWN)
    refusing = tmp_path / "pip.py"
    refusing.write_text("raise SystemExit('ERROR: No matching distribution (from versions: none) found for x==1')")
    monkeypatch.setattr(making, "_pip", lambda: nullcontext((sys.executable, str(refusing))))
    with pytest.raises(Unavailable, match="pip could not fetch the wheels: ERROR: No matching distribution; its"):
        making.make_kit(tmp_path / "kit", [Target("linux-x86_64", "3.11")], lambda _: None)
    assert not any(path.name.startswith((".kit", "kit")) for path in tmp_path.iterdir())
