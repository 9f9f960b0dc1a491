"""What a job has left goes, however deep, whatever its modes, and nothing that a link of its leads to is touched."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from offgrid_node.executors import removal
from offgrid_node.executors.cgroups import Bounds
from offgrid_node.executors.workplace import PREFIX, Workplace

BOUNDS = Bounds(2**30, 64)
posix = pytest.mark.skipif(sys.platform == "win32", reason="modes and depth as POSIX has them")


def dig(folder: Path, depth: int) -> None:
    """Folders, one in another, deeper than a path can say; and a file in the last."""
    script = (
        f"import os\nfor _ in range({depth}):\n    os.mkdir('d' * 100); os.chdir('d' * 100)\nopen('x', 'w').close()"
    )
    subprocess.run([sys.executable, "-I", "-c", script], cwd=folder, check=True)


@posix
def test_folders_of_any_depth_go_and_the_next_start_is_not_hindered(tmp_path: Path) -> None:
    place = Workplace(tmp_path / "work", BOUNDS)
    folder = place.make()
    dig(Path(folder.name), 3000)
    folder.cleanup()
    assert not Path(folder.name).exists()

    left = Path(place.make().name)
    dig(left, 3000)
    Workplace(tmp_path / "work", BOUNDS)
    assert list((tmp_path / "work").iterdir()) == []


@posix
def test_many_folders_beside_and_in_one_another_go(tmp_path: Path) -> None:
    top = tmp_path / "top"
    for one in range(5):
        for two in range(5):
            inner = top / f"a{one}" / "same" / f"b{two}" / "same"
            inner.mkdir(parents=True)
            (inner / "file").write_text("x")
    assert removal.remove(top)
    assert not top.exists()


@posix
def test_no_mode_keeps_anything(tmp_path: Path) -> None:
    """As an ordinary user, whom modes hold: where this runs as root they hold nobody."""
    top = tmp_path / "top"
    inner = top / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "file").write_text("x")
    for folder in (inner, top / "a", top):
        folder.chmod(0)
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from offgrid_node.executors import removal\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "sys.exit(not removal.empty(Path(sys.argv[1])))"
    )
    if os.geteuid() == 0:
        for folder in (tmp_path, top, top / "a", top / "a" / "b"):
            os.chown(folder, 65534, 65534)
        for folder in tmp_path.parents:
            if folder.stat().st_mode & 0o005 != 0o005:
                pytest.skip(f"nobody but root can get to {tmp_path}")
    subprocess.run([sys.executable, "-c", script, str(top)], check=True)


@posix
def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    """A read-only folder in which links lead outside had TemporaryDirectory change the modes there."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("kept")
    (outside / "file").chmod(0o640)
    outside.chmod(0o750)
    job = Path(Workplace(tmp_path / "work", BOUNDS).make().name)
    (job / "d").mkdir()
    (job / "d" / "file").symlink_to(outside / "file")
    (job / "d" / "folder").symlink_to(outside)
    (job / "folder").symlink_to(outside)
    (job / "d").chmod(0o500)
    assert removal.remove(job)
    assert (outside / "file").read_text() == "kept"
    assert (outside.stat().st_mode & 0o777, (outside / "file").stat().st_mode & 0o777) == (0o750, 0o640)


@posix
def test_a_link_in_the_place_of_a_folder_is_nothing_to_empty(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("kept")
    (tmp_path / f"{PREFIX}x").symlink_to(tmp_path / "outside")
    assert not removal.empty(tmp_path / f"{PREFIX}x")
    assert (tmp_path / "outside" / "file").read_text() == "kept"


def test_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    assert removal.remove(tmp_path / "never")
