"""A node's packet links: opened with it, named where they are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from live import log_of, offgrid_node

from offgrid_node.founding import found
from offgrid_node.local_mesh import LOCAL, LocalNode


def founded(folder: Path, *links: str) -> LocalNode:
    found(folder, "alone", "one", ["core"], {**LOCAL, "links.open": list(links)})
    return LocalNode("one", ("core",), folder)


def test_it_opens_them_and_stops_in_order(tmp_path: Path) -> None:
    node = founded(tmp_path / "n", "udp:127.0.0.1:0", f"unix-listen:{tmp_path / 'link'}")
    try:
        node.run("run")
        node.wait_ready()
        assert "event=link_opened link=udp:127.0.0.1:0" in node.log_path.read_text("utf-8")
        assert (tmp_path / "link").exists()
        assert node.stop() == 0
    finally:
        if node.alive:
            node.kill()
        log_of(node)


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("upd:127.0.0.1:0", "did you mean 'udp'?"),
        ("udp:127.0.0.1:0?mtv=1", "did you mean 'mtu'?"),
    ],
)
def test_one_that_is_none_is_named(tmp_path: Path, link: str, said: str) -> None:
    node = founded(tmp_path / "n", link)
    done = offgrid_node("run", "--dir", node.folder)
    assert done.code != 0
    assert "links.open" in done.said
    assert said in done.said


def test_the_check_of_a_config_names_it_as_well(tmp_path: Path) -> None:
    node = founded(tmp_path / "n", "upd:127.0.0.1:0")
    done = offgrid_node("config", "check", node.folder / "offgrid.toml")
    assert (done.code, "did you mean 'udp'?" in done.said) == (2, True)
