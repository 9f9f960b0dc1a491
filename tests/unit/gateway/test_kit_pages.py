"""/kit: the install kit of the node, for whoever asks, and nothing beside it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from serving_app import Fields, app_of, ask, request, serving
from starlette.types import ASGIApp

from offgrid_node.config import Config
from offgrid_node.gateway.access import is_open
from offgrid_node.gateway.kit import kit_routes
from offgrid_node.kit import finding
from offgrid_node.kit.making import seal_kit
from offgrid_node.kit.manifest import sha256_of

NOWHERE = ("secret", "../secret", "%2e%2e/secret", "wheels", "wheels/", "wheels/../../secret", "kit.json/", "%00")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A node's, in which no kit lies yet."""
    monkeypatch.setattr(finding, "kit_at_hand", lambda: None)
    (tmp_path / "secret").write_text("secret")
    return tmp_path


def make_kit(folder: Path) -> Path:
    kit = folder / "offgrid-kit"
    (kit / "wheels").mkdir(parents=True)
    (kit / "wheels" / "lib-1.whl").write_bytes(b"wheel")
    seal_kit(kit, "0.1.0", "lib-1.whl", {"linux-x86_64-3.11": ("lib-1.whl",)})
    return kit


def app(folder: Path) -> ASGIApp:
    return app_of(kit_routes(cast(Config, SimpleNamespace(node=SimpleNamespace(data_dir=folder / "data")))))


def answers(folder: Path, *paths: str) -> list[tuple[int, Fields, bytes]]:
    found: list[tuple[int, Fields, bytes]] = []

    async def talk(port: int) -> None:
        for path in paths:
            found.append(await ask(port, request(f"GET {path} HTTP/1.1")))

    serving(app(folder), talk)
    return found


def test_a_kit_is_served_once_it_is_made(folder: Path) -> None:
    ((status, _, body),) = answers(folder, "/kit/")
    assert (status, b"offgrid-node bundle" in body) == (404, True)
    kit = make_kit(folder)
    index, script, wheel = answers(folder, "/kit/", "/kit/install.py", "/kit/wheels/lib-1.whl")
    assert (script[0], script[2]) == (200, (kit / "install.py").read_bytes())
    assert (wheel[0], wheel[2], wheel[1]["content-type"]) == (200, b"wheel", "application/octet-stream")
    assert f"grep ^{sha256_of(kit / 'install.py')[:32]} && python3 install.py http://" in index[2].decode()


def test_nothing_else_is_served(folder: Path) -> None:
    make_kit(folder)
    for status, _, body in answers(folder, *(f"/kit/{path}" for path in NOWHERE)):
        assert (status in (400, 404), b"secret\n" in body) == (True, False)


def test_a_kit_that_somebody_changed_is_served_to_nobody(folder: Path) -> None:
    kit = make_kit(folder)
    with (kit / "install.py").open("ab") as script:
        script.write(b"import os\n")
    for status, _, body in answers(folder, "/kit/install.py", "/kit/wheels/lib-1.whl"):
        assert (status, b"is not what the kit says it is" in body) == (500, True)


def test_it_is_open_to_read_and_to_nothing_else() -> None:
    assert is_open("GET", "/kit/install.py")
    assert not is_open("POST", "/kit/install.py")
    assert not is_open("GET", "/kit")
