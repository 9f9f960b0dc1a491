"""/kit: the install kit of the node, for whoever asks, and nothing beside it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest
from serving_app import Fields, app_of, ask, request, serving
from starlette.responses import FileResponse, PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from offgrid_node.gateway.access import is_open
from offgrid_node.gateway.kit import AT_A_TIME, kit_routes
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
    return app_of(kit_routes(folder))


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


def test_a_wheel_that_somebody_changed_goes_to_nobody(folder: Path) -> None:
    kit = make_kit(folder)
    (kit / "wheels" / "lib-1.whl").write_bytes(b"other")
    wheel, script = answers(folder, "/kit/wheels/lib-1.whl", "/kit/install.py")
    assert (wheel[0], b"wheels/lib-1.whl is not what the kit says it is" in wheel[2]) == (500, True)
    assert script[0] == 200


def test_one_that_is_made_anew_is_served_at_once(folder: Path) -> None:
    kit = make_kit(folder)
    shelf, before = kit_routes(folder), (kit / "install.py").read_bytes()

    async def talk(port: int) -> None:
        assert (await ask(port, request("GET /kit/install.py HTTP/1.1")))[2] == before
        seal_kit(kit, "0.2.0", "lib-1.whl", {"linux-x86_64-3.11": ("lib-1.whl",)})
        assert (
            (await ask(port, request("GET /kit/install.py HTTP/1.1")))[2] == (kit / "install.py").read_bytes() != before
        )

    serving(app_of(shelf), talk)


@pytest.mark.skipif(sys.platform == "win32", reason="modes are a POSIX system's")
def test_a_kit_that_another_account_could_change_is_served_to_nobody(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kit = make_kit(folder)
    kit.chmod(0o777)
    ((status, _, body),) = answers(folder, "/kit/install.py")
    assert (status, b"can be written by others" in body) == (400, True)
    kit.chmod(0o755)
    monkeypatch.setattr(os, "getuid", lambda: kit.stat().st_uid + 1)
    if kit.stat().st_uid:
        assert b"belongs to another account" in answers(folder, "/kit/install.py")[0][2]
    else:
        os.chown(kit, 12345, -1)
        assert b"belongs to another account" in answers(folder, "/kit/install.py")[0][2]


def test_few_files_are_sent_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_kit(folder)
    sending, most = 0, 0

    async def send_slowly(self: FileResponse, scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sending, most
        sending, most = sending + 1, max(most, sending + 1)
        await asyncio.sleep(0.1)  # in which as many come as may
        sending -= 1
        await PlainTextResponse("sent")(scope, receive, send)

    monkeypatch.setattr(FileResponse, "__call__", send_slowly)

    async def talk(port: int) -> None:
        asked = [ask(port, request("GET /kit/install.py HTTP/1.1")) for _ in range(12)]
        assert [answer[2] for answer in await asyncio.gather(*asked)] == [b"sent"] * 12

    serving(app(folder), talk)
    assert most == AT_A_TIME


def test_an_owner_may_keep_it(folder: Path) -> None:
    make_kit(folder)
    assert kit_routes(folder, on=False) == []


def test_it_is_open_to_read_and_to_nothing_else() -> None:
    assert is_open("GET", "/kit/install.py")
    assert not is_open("POST", "/kit/install.py")
    assert not is_open("GET", "/kit")
