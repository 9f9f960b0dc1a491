"""Which requests have to be signed, by what they have shown before, and what of it outlives a restart."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import hmac
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from log_lines import lines
from serving_app import app_of, ask, request, serving
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from offgrid_node.gateway import signature_guard
from offgrid_node.gateway.access import policy_of
from offgrid_node.gateway.edge import PROVED
from offgrid_node.gateway.old_bodies import Bodies
from offgrid_node.gateway.sign_ins import SignIns
from offgrid_node.gateway.signature_guard import FILE_NAME, ROW_BYTES, SignatureGuard
from offgrid_node.gateway.signed_requests import SIGNED_BYTES_MAX, SignedRequests
from offgrid_node.gateway.tries import TRIES_MAX, TRY_BACK_MS
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.errors import Exhausted, PermissionDenied, Unavailable

KEY, NODE, NOW_S = "shared", "a" * 32, 1_795_408_200
TOKEN = "t" * 16
MACHINES, PEOPLE = True, False
NOTHING_ASKED: dict[str, Any] = {}
TOKEN_SHOWN, TOKEN_LACKS = {PROVED: True}, {PROVED: False}


class At:
    """A clock that stands, at seconds since 1970."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def now(self) -> Now:
        return Now(round(self.now_s * 1_000), round(self.now_s * 1_000_000))


def guard(folder: Path, key: str = KEY) -> SignatureGuard:
    return SignatureGuard(key, NODE, folder, At(NOW_S))


def signed(key: str = KEY, **payload: Any) -> bytes:
    payload = {"timestamp": NOW_S} | payload
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"))
    return json.dumps(
        payload | {"signature": hmac.new(key.encode(), text.encode(), hashlib.sha256).hexdigest()}
    ).encode()


def reason(which: SignatureGuard, scope: dict[str, Any], body: bytes, *, machines: bool) -> str:
    """Why it is refused; "" when it is let in."""
    try:
        asyncio.run(which.admit(scope, body, between_machines=machines))
    except (PermissionDenied, Exhausted) as fault:
        return fault.reason
    return ""


@pytest.mark.parametrize(
    ("scope", "machines", "bare", "wrong"),
    [
        (NOTHING_ASKED, MACHINES, "SignatureMissing", "SignatureInvalid"),
        (NOTHING_ASKED, PEOPLE, "", "SignatureInvalid"),
        (TOKEN_SHOWN, MACHINES, "", ""),
        (TOKEN_SHOWN, PEOPLE, "", ""),
        (TOKEN_LACKS, MACHINES, "SignatureMissing", "SignatureInvalid"),
        (TOKEN_LACKS, PEOPLE, "SignatureMissing", "SignatureInvalid"),
    ],
)
def test_who_has_to_sign(tmp_path: Path, scope: dict[str, Any], machines: bool, bare: str, wrong: str) -> None:
    which = guard(tmp_path)
    assert reason(which, scope, b"{}", machines=machines) == bare
    assert reason(which, scope, signed("another"), machines=machines) == wrong
    assert reason(which, scope, signed(), machines=machines) == ""


def test_without_a_secret_nothing_is_asked_and_nothing_kept(tmp_path: Path) -> None:
    assert reason(guard(tmp_path, key=""), NOTHING_ASKED, signed("any"), machines=True) == ""
    assert list(tmp_path.iterdir()) == []


class TestWhoCannotSign:
    HERE, THERE = {"client": ("192.0.2.1", 4_000)}, {"client": ("192.0.2.2", 4_000)}

    def test_is_made_to_wait_even_with_the_right_one_and_others_are_not(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        clock = At(NOW_S)
        which = SignatureGuard(KEY, NODE, tmp_path, clock)
        wrong = [reason(which, self.HERE, signed("another"), machines=True) for _ in range(TRIES_MAX + 2)]
        assert wrong == ["SignatureInvalid"] * TRIES_MAX + ["TooManyTries"] * 2
        said = "too many wrong tries came from one address: it has to wait event=tries_used_up of=signature"
        assert lines(caplog) == [f"{said} address=192.0.2.1"]
        assert reason(which, self.HERE, signed(n=1), machines=True) == "TooManyTries"
        assert reason(which, self.THERE, signed(n=1), machines=True) == ""
        clock.now_s += TRY_BACK_MS / 1_000
        assert reason(which, self.HERE, signed(n=2), machines=True) == ""

    def test_a_clock_that_is_wrong_or_no_signature_is_no_guess(self, tmp_path: Path) -> None:
        which = guard(tmp_path)
        for _ in range(TRIES_MAX + 1):
            assert reason(which, self.HERE, b"{}", machines=True) == "SignatureMissing"
            assert reason(which, self.HERE, signed(timestamp=1), machines=True) == "SignatureExpired"

    def test_costs_the_loop_nothing_and_a_thread_little(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        threads = []

        def prove(signed: SignedRequests, body: bytes, now_us: int, path: str) -> object:
            threads.append(threading.current_thread())
            return was(signed, body, now_us, path)

        was = SignedRequests.prove
        monkeypatch.setattr(SignedRequests, "prove", prove)
        assert reason(guard(tmp_path), self.HERE, signed("another"), machines=True) == "SignatureInvalid"
        assert threads[0] is not threading.current_thread()
        assert reason(guard(tmp_path), self.HERE, bytes(SIGNED_BYTES_MAX + 1), machines=True) == "RequestTooLarge"


class TestAfterARestart:
    def test_a_signature_is_known_again(self, tmp_path: Path) -> None:
        first = guard(tmp_path)
        for number in range(3):
            assert reason(first, NOTHING_ASKED, signed(n=number), machines=True) == ""
        again = guard(tmp_path)
        assert reason(again, NOTHING_ASKED, signed(n=1), machines=True) == "SignatureReplayed"
        assert reason(again, NOTHING_ASKED, signed(n=3), machines=True) == ""
        third = guard(tmp_path)
        assert [reason(third, NOTHING_ASKED, signed(n=n), machines=True) for n in (0, 3, 4)] == [
            "SignatureReplayed",
            "SignatureReplayed",
            "",
        ]

    def test_half_a_row_is_passed_over_and_nothing_follows_it(self, tmp_path: Path) -> None:
        assert reason(guard(tmp_path), NOTHING_ASKED, signed(n=1), machines=True) == ""
        with (tmp_path / FILE_NAME).open("ab") as file:
            file.write(b"half")
        assert reason(guard(tmp_path), NOTHING_ASKED, signed(n=2), machines=True) == ""
        assert (tmp_path / FILE_NAME).stat().st_size == 2 * ROW_BYTES
        assert reason(guard(tmp_path), NOTHING_ASKED, signed(n=2), machines=True) == "SignatureReplayed"

    def test_nothing_is_lost_by_a_disk_that_was_full_for_a_while(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        which, write = guard(tmp_path), os.write

        def full(fd: int, text: bytes) -> int:
            if os.fstat(fd).st_size % ROW_BYTES:
                raise OSError(errno.ENOSPC, "No space left on device")
            return write(fd, text[: ROW_BYTES // 2])

        assert reason(which, NOTHING_ASKED, signed(n=1), machines=True) == ""
        monkeypatch.setattr(os, "write", full)
        for number in (2, 3):
            with pytest.raises(Unavailable, match="No space left"):
                reason(which, NOTHING_ASKED, signed(n=number), machines=True)
        monkeypatch.setattr(os, "write", write)
        for number in (2, 4, 5):  # the second was refused, so it may come again
            assert reason(which, NOTHING_ASKED, signed(n=number), machines=True) == ""
        for each in (which, guard(tmp_path)):
            said = {reason(each, NOTHING_ASKED, signed(n=n), machines=True) for n in (1, 2, 4, 5)}
            assert said == {"SignatureReplayed"}

    def test_a_file_that_cannot_be_read_is_no_empty_one(self, tmp_path: Path) -> None:
        which, path = guard(tmp_path), tmp_path / FILE_NAME
        path.mkdir()
        with pytest.raises(Unavailable, match="before it can be kept"):
            reason(which, NOTHING_ASKED, signed(n=1), machines=True)
        path.rmdir()
        assert reason(which, NOTHING_ASKED, signed(n=1), machines=True) == ""

    def test_the_file_stays_small(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(signature_guard, "ROWS_MAX", 2)
        clock = At(NOW_S)
        which = SignatureGuard(KEY, NODE, tmp_path, clock)
        for number in range(6):
            clock.now_s += 400  # what came before is too old to come again
            body = signed(timestamp=clock.now_s, n=number)
            assert reason(which, NOTHING_ASKED, body, machines=True) == ""
            assert (tmp_path / FILE_NAME).stat().st_size <= 2 * ROW_BYTES


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_signature_that_cannot_be_kept_is_not_taken(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(Unavailable):
        asyncio.run(guard(tmp_path).admit({}, signed(), between_machines=True))


def test_over_http_a_signature_does_instead_of_the_token_where_it_is_looked_at(tmp_path: Path) -> None:
    bodies = Bodies(guard(tmp_path))

    async def answer(asked: Request) -> Response:
        return JSONResponse(sorted(await bodies.read(asked)))

    routes = [Route(path, answer, methods=["POST"]) for path in ("/toggle", "/v1/status")]
    app = app_of(routes, policy_of((), SignIns(TOKEN, "cookie"), signed=True))

    async def talk(port: int) -> None:
        async def code(path: str, body: bytes, *fields: str) -> int:
            return (
                await ask(port, request(f"POST {path} HTTP/1.1", f"Content-Length: {len(body)}", *fields, body=body))
            )[0]

        assert await code("/toggle", b"{}") == 401
        assert await code("/toggle", b"{}", f"Authorization: Bearer {TOKEN}") == 200
        body = signed()
        assert [await code("/toggle", body), await code("/toggle", body)] == [200, 401]
        assert await code("/v1/status", signed(n=1)) == 401
        for_auction, for_toggle = signed(signed_path="/auction"), signed(signed_path="/toggle")
        assert [await code("/toggle", for_auction), await code("/toggle", for_toggle)] == [401, 200]

    serving(app, talk)
