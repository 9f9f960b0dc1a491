"""Who is told of an alert: a program and an address of the owner's, neither of which can hold the node up."""

from __future__ import annotations

import asyncio
import http.server
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from offgrid_node.alert_hooks import TRIES, WAITING_MAX, AlertHooks, Command, Hook, HookFailed, Webhook
from offgrid_node.services.health.alerts import Alert, State

ALERT = Alert("memory_mb", "", State.WARN, 1_790_000_000_000_000, 5_000.5, 4_096)
GIVE_UP_S = 60


def eventually(true: Callable[[], bool]) -> None:
    until = time.monotonic() + GIVE_UP_S
    while not true():
        assert time.monotonic() < until
        time.sleep(0.01)


def counted(hooks: AlertHooks, outcome: str) -> int:
    return sum(count for _, name, count in hooks.counts if name == outcome)


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-S", "-c", code, *arguments]


class Listener(http.server.BaseHTTPRequestHandler):
    got: list[Any]
    statuses: list[int]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.got.append((self.path, self.headers["Content-Type"], json.loads(body)))
        self.send_response(self.statuses.pop(0) if self.statuses else 200)
        self.send_header("Location", "http://192.0.2.1/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def listener() -> Iterator[tuple[str, type[Listener]]]:
    handler = type("Handler", (Listener,), {"got": [], "statuses": []})
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/alerts", handler
        server.shutdown()
        thread.join()


def test_a_program_gets_the_alert_on_standard_input_and_no_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OFFGRID_AUTH_KEY", "secret")
    names = "str([name for name in os.environ if 'OFFGRID_' in name])"
    code = f"import os, sys; open(sys.argv[1], 'w').write(sys.stdin.read() + {names})"
    hooks = AlertHooks(python(code, str(tmp_path / "said")), "", "attic", "node-1")
    hooks.tell(ALERT)
    eventually(lambda: counted(hooks, "done") == 1)
    asyncio.run(hooks.close())
    text = (tmp_path / "said").read_text()
    assert text.endswith("}[]")
    assert json.loads(text[:-2]) == {
        "node": "attic", "node_id": "node-1", "name": "memory_mb", "about": "", "state": "warn",
        "since_us": 1_790_000_000_000_000, "value": 5_000.5, "threshold": 4_096,
    }  # fmt: skip


def test_a_program_that_fails_is_said() -> None:
    hooks = AlertHooks(python("raise SystemExit(3)"), "", "attic", "node-1")
    hooks.tell(ALERT)
    eventually(lambda: counted(hooks, "failed") == 1)
    asyncio.run(hooks.close())
    assert hooks.notices == (f"health.command was not told of an alert: {sys.executable} ended with 3",)


def test_a_program_that_is_not_there_is_said() -> None:
    hooks = AlertHooks(["/nowhere/at/all"], "", "attic", "node-1")
    hooks.tell(ALERT)
    eventually(lambda: counted(hooks, "failed") == 1)
    asyncio.run(hooks.close())
    assert "/nowhere/at/all" in hooks.notices[0]


def test_a_program_that_hangs_is_killed() -> None:
    with pytest.raises(HookFailed, match=r"did not end within 0\.2 s"):
        Command(python("import time; time.sleep(600)"), timeout_s=0.2).send(b"{}")


def test_a_program_at_work_does_not_hold_up_the_nodes_end() -> None:
    hooks = AlertHooks(python("import time; time.sleep(600)"), "", "attic", "node-1")
    hooks.tell(ALERT)
    asyncio.run(hooks.close())
    eventually(lambda: not any(thread.name == "alert-command" for thread in threading.enumerate()))


def test_what_waits_is_bounded_and_what_is_dropped_counted() -> None:
    gate, sent = threading.Event(), list[bytes]()

    def send(body: bytes) -> None:
        gate.wait(GIVE_UP_S)
        sent.append(body)

    hook = Hook("command", send, gate.set)
    hook.tell(b"first")
    eventually(hook._waiting.empty)
    for _ in range(WAITING_MAX + 7):
        hook.tell(b"more")
    assert hook.counts["dropped"] == 7
    gate.set()
    eventually(lambda: hook.counts["done"] == WAITING_MAX + 1)
    hook.close()


def test_an_address_gets_the_alert(listener: tuple[str, type[Listener]]) -> None:
    url, handler = listener
    hooks = AlertHooks((), url, "attic", "node-1")
    hooks.tell(ALERT)
    eventually(lambda: counted(hooks, "done") == 1)
    asyncio.run(hooks.close())
    ((path, media_type, said),) = handler.got
    assert (path, media_type, said["state"]) == ("/alerts", "application/json", "warn")


def test_an_address_is_tried_again_some_times(listener: tuple[str, type[Listener]]) -> None:
    url, handler = listener
    handler.statuses = [500] * (TRIES - 1)
    Webhook(url, pause_s=0).send(b"{}")
    assert len(handler.got) == TRIES
    handler.statuses = [503] * TRIES
    with pytest.raises(HookFailed, match="answered 503"):
        Webhook(url, pause_s=0).send(b"{}")
    assert len(handler.got) == 2 * TRIES


def test_no_redirect_is_followed_and_no_proxy_asked(
    listener: tuple[str, type[Listener]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:1")
    url, handler = listener
    handler.statuses = [307] * TRIES
    with pytest.raises(HookFailed, match="answered 307"):
        Webhook(url, pause_s=0).send(b"{}")


def test_an_address_at_which_nobody_listens_is_said(listener: tuple[str, type[Listener]]) -> None:
    with pytest.raises(HookFailed, match=r"^http://127\.0\.0\.1:1: "):
        Webhook("http://127.0.0.1:1/my-topic", pause_s=0).send(b"{}")


def test_each_way_counts_from_zero_so_that_its_first_failure_is_an_increase() -> None:
    hooks = AlertHooks(python("pass"), "http://127.0.0.1:9/x", "vm", "n")
    try:
        assert set(hooks.counts) == {
            (way, outcome, 0) for way in ("command", "webhook") for outcome in ("done", "failed", "dropped")
        }
    finally:
        asyncio.run(hooks.close())
