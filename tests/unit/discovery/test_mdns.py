"""Nodes that find each other by real multicast, on loopback; and over one veth when we are root."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from msgspec.structs import replace
from zeroconf.asyncio import AsyncZeroconf

from offgrid_node.discovery import mdns
from offgrid_node.discovery.hints import TOLD_BURST, TOLD_PER_S, Hint
from offgrid_node.discovery.mdns import Mdns, find_door

LOOPBACK = ["127.0.0.1"]
PATIENCE_S = 60
IP = shutil.which("ip") or ""


def fresh_tag() -> bytes:
    return uuid.uuid4().bytes[:8]


def node(letter: str, tag: bytes, *, door: int | None = None) -> Hint:
    """Another one in each process: what several processes announce of one node adds up."""
    pid = f"{os.getpid():020d}".translate(str.maketrans("0123456789", "abcdefghij"))
    return Hint(letter * 12 + pid, tag, ("127.0.0.1",), 7440 + ord(letter), door, f"t{os.getpid()}-{letter}", "0.1.0")


class Found:
    """Hints as they come, and a way to wait for one."""

    def __init__(self) -> None:
        self.hints: list[Hint] = []
        self._news = asyncio.Event()

    def __call__(self, hint: Hint) -> None:
        self.hints.append(hint)
        self._news.set()

    async def until(self, wanted: Callable[[Hint], bool]) -> Hint:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                for hint in self.hints:
                    if wanted(hint):
                        return hint
                self._news.clear()
                await self._news.wait()


@asynccontextmanager
async def running(*nodes: Mdns) -> AsyncIterator[None]:
    for each in nodes:
        await each.start()
    try:
        yield
    finally:
        await asyncio.gather(*(each.close() for each in nodes))


def test_two_nodes_of_a_mesh_find_each_other_and_not_a_third_of_another() -> None:
    async def scenario() -> None:
        tag, a_found, b_found = fresh_tag(), Found(), Found()
        a, b, other = node("a", tag), node("b", tag, door=7441), node("c", fresh_tag())
        async with running(
            Mdns(lambda: a, a_found, interfaces=LOOPBACK),
            Mdns(lambda: b, b_found, interfaces=LOOPBACK),
            Mdns(lambda: other, Found(), interfaces=LOOPBACK),
        ):
            assert await a_found.until(lambda hint: hint.node_id == b.node_id) == b
            assert await b_found.until(lambda hint: hint.node_id == a.node_id) == a
            assert {hint.node_id for hint in (*a_found.hints, *b_found.hints)} == {a.node_id, b.node_id}

    asyncio.run(scenario())


def test_a_door_that_opens_is_announced_and_found() -> None:
    async def scenario() -> None:
        tag, found = fresh_tag(), Found()
        said = [node("a", tag)]
        host = Mdns(lambda: said[0], Found(), interfaces=LOOPBACK)
        async with running(host, Mdns(lambda: node("b", tag), found, interfaces=LOOPBACK)):
            await found.until(lambda hint: hint.door_port is None)
            assert await find_door(tag, 0.5, interfaces=LOOPBACK) == []
            said[0] = replace(said[0], door_port=7441)
            host.refresh()
            await found.until(lambda hint: hint.door_port == 7441)
            assert await find_door(tag, PATIENCE_S, interfaces=LOOPBACK) == [("127.0.0.1", 7441)]
            assert await find_door(fresh_tag(), 0.3, interfaces=LOOPBACK) == []

    asyncio.run(scenario())


def test_without_multicast_it_says_so_once_and_goes_on_looking(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries = 0
    real_open = mdns._open

    def broken_at_first(interfaces: mdns.Interfaces) -> AsyncZeroconf:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise OSError(101, "Network is unreachable")
        return real_open(interfaces)

    async def scenario() -> None:
        monkeypatch.setattr(mdns, "_open", broken_at_first)
        monkeypatch.setattr(mdns, "RETRY_S", 0.01)
        assert await find_door(fresh_tag(), 0.2) == []
        a = Mdns(lambda: node("a", fresh_tag()), Found(), interfaces=LOOPBACK)
        async with running(a), asyncio.timeout(PATIENCE_S):
            await a.announced.wait()

    asyncio.run(scenario())
    assert tries == 4
    assert len([record for record in caplog.records if "mDNS does not work here" in record.message]) == 1


def test_a_copy_of_this_very_node_is_heard_and_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mdns, "POLL_S", 0.1)

    async def scenario() -> None:
        tag, found = fresh_tag(), Found()
        ours = node("a", tag)
        copy = replace(ours, mesh_port=7_999)
        ear = Mdns(lambda: ours, found, interfaces=LOOPBACK)
        async with running(ear, Mdns(lambda: copy, Found(), interfaces=LOOPBACK)), asyncio.timeout(PATIENCE_S):
            while ear.as_us != copy.mesh_addresses:  # noqa: ASYNC110 - nobody is told of it
                await asyncio.sleep(0.05)
        assert found.hints == []
        ear.forget(("192.0.2.9:1",))  # what was announced before
        assert ear.as_us == copy.mesh_addresses
        ear.forget(copy.mesh_addresses)
        assert ear.as_us == ()

    asyncio.run(scenario())


def test_a_new_address_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mdns, "POLL_S", 0.05)

    async def scenario() -> None:
        tag, found = fresh_tag(), Found()
        said = [node("a", tag)]
        async with running(
            Mdns(lambda: said[0], Found(), interfaces=LOOPBACK),
            Mdns(lambda: node("b", tag), found, interfaces=LOOPBACK),
        ):
            await found.until(lambda hint: hint.addresses == ("127.0.0.1",))
            said[0] = replace(said[0], addresses=("192.0.2.9",))
            await found.until(lambda hint: "192.0.2.9" in hint.addresses)

    asyncio.run(scenario())


def test_a_flood_of_false_services_is_rationed() -> None:
    async def scenario() -> None:
        tag, found = fresh_tag(), Found()
        loop = asyncio.get_running_loop()
        victim = Mdns(lambda: node("a", tag), found, interfaces=LOOPBACK)
        flooder = AsyncZeroconf(interfaces=LOOPBACK)
        async with running(victim):
            await victim.announced.wait()
            began = loop.time()
            for number in range(600):
                false = Hint("d" * 32, tag, ("192.0.2.66",), 1 + number, None, f"false-{number}", "0")
                info = mdns._service_info(false, f"false-{number}.{mdns.SERVICE_TYPE}")
                flooder.zeroconf.async_send(flooder.zeroconf.generate_service_broadcast(info, 120))
                if number % 50 == 49:
                    await asyncio.sleep(0)
            await found.until(lambda hint: len(found.hints) >= TOLD_BURST)
            assert len(found.hints) <= TOLD_BURST + 1 + TOLD_PER_S * (loop.time() - began)
        await flooder.async_close()

    asyncio.run(scenario())


def test_closing_ends_at_any_moment() -> None:
    async def scenario() -> None:
        for delay_s in (0, 0.01, 0.3):
            a = Mdns(lambda: node("a", fresh_tag()), Found(), interfaces=LOOPBACK)
            await a.close()
            await a.start()
            await asyncio.sleep(delay_s)
            async with asyncio.timeout(PATIENCE_S):
                await a.close()
                await a.close()

    asyncio.run(scenario())


CHILD = """
import asyncio, sys
from offgrid_node.discovery import Hint, advertised, ip_addresses
from offgrid_node.discovery.mdns import Mdns
async def main(letter, other, tag):
    done = asyncio.Event()
    ips = ip_addresses(advertised("0.0.0.0:7440"))
    hint = Hint(letter * 32, bytes.fromhex(tag), ips, 7440, None, "n-" + letter)
    def found(hint):
        if hint.node_id == other * 32:
            print("found", *hint.mesh_addresses, flush=True)
            done.set()
    mdns = Mdns(lambda: hint, found)
    await mdns.start()
    async with asyncio.timeout(60):
        await done.wait()
        await mdns.announced.wait()
        await asyncio.to_thread(sys.stdin.readline)
    await mdns.close()
asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def namespaces() -> Iterator[list[str]]:
    names = [f"og{uuid.uuid4().hex[:8]}{end}" for end in "ab"]

    def ip(*words: str) -> None:
        subprocess.run([IP, *words], check=True, capture_output=True)

    made: list[str] = []
    try:
        for name in names:
            ip("netns", "add", name)
            made.append(name)
        ip("link", "add", "og0", "netns", names[0], "type", "veth", "peer", "name", "og0", "netns", names[1])
        for number, name in enumerate(names, 1):
            ip("-n", name, "addr", "add", f"192.0.2.{number}/24", "dev", "og0")
            ip("-n", name, "link", "set", "og0", "up")
            ip("-n", name, "link", "set", "lo", "up")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr!r}")
    else:
        yield names
    finally:
        for name in made:
            subprocess.run([IP, "netns", "del", name], check=False, capture_output=True)


@pytest.mark.root
@pytest.mark.skipif(getattr(os, "geteuid", lambda: 1)() != 0 or not IP, reason="needs root and iproute2")
def test_two_machines_on_one_cable_without_a_route_find_each_other(namespaces: list[str]) -> None:
    tag, root = fresh_tag().hex(), Path(mdns.__file__).parents[2]
    paths = os.pathsep.join([str(root), str(root.parent / "proto"), *sys.path])
    children = [
        subprocess.Popen(
            [IP, "netns", "exec", name, sys.executable, "-c", CHILD, *letters, tag],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths},
        )
        for name, letters in zip(namespaces, ("ab", "ba"), strict=True)
    ]
    try:
        said = [child.stdout.readline() for child in children if child.stdout]
        results = [child.communicate("\n", timeout=30) for child in children]
    finally:
        for child in children:
            child.kill()
            child.wait()
    assert said == ["found 192.0.2.2:7440\n", "found 192.0.2.1:7440\n"], results
    assert [child.returncode for child in children] == [0, 0], results
