"""A kit as a Debian package: dpkg can read it, and what it holds is the kit for that machine and nothing else."""

from __future__ import annotations

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from small_kit import OTHER, OWN, PIP, make_small_kit

from offgrid_node.kit.debian import write_deb
from offgrid_node.protocol.errors import InvalidRequest

DPKG = shutil.which("dpkg-deb") or ""


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    make_small_kit(tmp_path / "kit", "linux-x86_64-3.11")
    return tmp_path / "kit"


def members(deb: Path) -> dict[str, bytes]:
    """Of the `ar` archive, by its own words."""
    data, found, at = deb.read_bytes(), {}, 8
    assert data.startswith(b"!<arch>\n")
    while at < len(data):
        head = data[at : at + 60]
        assert head[58:] == b"`\n"
        size = int(head[48:58])
        found[head[:16].decode().strip()] = data[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    return found


def test_it_is_what_deb_5_says(kit: Path, tmp_path: Path) -> None:
    write_deb(kit, "linux-x86_64", tmp_path / "x.deb")
    found = members(tmp_path / "x.deb")
    assert list(found) == ["debian-binary", "control.tar.gz", "data.tar.gz"]
    assert found["debian-binary"] == b"2.0\n"
    with tarfile.open(fileobj=io.BytesIO(found["data.tar.gz"])) as data:
        files = {member.name: data.extractfile(member).read() for member in data if member.isfile()}  # type: ignore[union-attr]
        assert {(member.uid, member.gid, member.mode) for member in data if member.isfile()} == {(0, 0, 0o644)}
        commands = {member.name: member.linkname for member in data if member.issym()}
    place, documents = "./usr/lib/offgrid-node/kit", "./usr/share/doc/offgrid-node"
    expected = {f"{place}/{name}" for name in ("kit.json", "install.py", "README.txt")}
    expected |= {f"{place}/wheels/{name}" for name in (OWN, PIP)}
    assert {*files} == expected | {f"{documents}/{name}" for name in ("changelog.gz", "copyright")}
    assert files[f"{place}/install.py"] == (kit / "install.py").read_bytes()
    scripts = "../lib/offgrid-node/current/bin"
    assert commands == {f"./usr/bin/{name}": f"{scripts}/{name}" for name in ("offgrid", "offgrid-node")}


def test_its_scripts_install_and_remove_what_is_its_own(kit: Path, tmp_path: Path) -> None:
    write_deb(kit, "linux-x86_64", tmp_path / "x.deb")
    with tarfile.open(fileobj=io.BytesIO(members(tmp_path / "x.deb")["control.tar.gz"])) as control:
        texts = {member.name: control.extractfile(member).read().decode() for member in control if member.isfile()}  # type: ignore[union-attr]
    assert "Depends: python3 (>= 3.11), python3 (<< 3.12), passwd\n" in texts["./control"]
    assert "Architecture: amd64\n" in texts["./control"]
    assert "python3 /usr/lib/offgrid-node/kit/install.py --dir /usr/lib/offgrid-node" in texts["./postinst"]
    assert "rm -rf /usr/lib/offgrid-node/env-* /usr/lib/offgrid-node/current\n" in texts["./prerm"]
    assert not any("rm -rf /var/lib" in text for text in texts.values()), "what a node has written stays"
    for name in ("./postinst", "./prerm", "./postrm"):
        subprocess.run(["sh", "-n"], input=texts[name], text=True, check=True)  # noqa: S607
    assert f"wheels/{OWN}\n" in texts["./md5sums"]


@pytest.mark.skipif(not DPKG, reason="there is no dpkg here")
def test_dpkg_reads_it(kit: Path, tmp_path: Path) -> None:
    write_deb(kit, "linux-x86_64", tmp_path / "x.deb")
    told = subprocess.run([DPKG, "--info", str(tmp_path / "x.deb")], capture_output=True, text=True, check=True).stdout
    assert "Package: offgrid-node" in told
    subprocess.run([DPKG, "--extract", str(tmp_path / "x.deb"), str(tmp_path / "out")], check=True)
    assert (tmp_path / "out/usr/lib/offgrid-node/kit/wheels" / OWN).read_bytes() == (kit / "wheels" / OWN).read_bytes()


def test_a_kit_that_is_not_whole_or_damaged_makes_none(kit: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="not whole for linux-aarch64"):
        write_deb(kit, "linux-aarch64", tmp_path / "x.deb")
    (kit / "wheels" / OTHER).write_bytes(b"other")
    with pytest.raises(InvalidRequest, match=f"{OTHER} is not what the kit says it is"):
        write_deb(kit, "linux-x86_64", tmp_path / "x.deb")
    assert not (tmp_path / "x.deb").exists()
