"""UDP through a proxy that delays and loses: what a second carries, and 10,000 small calls. Ours beside Reticulum.

The proxies are the same program with the same conditions; 10 ms each way make a round trip of 20. Ours needs one, for
it answers where it was spoken to from; Reticulum's interface has a port to listen on and another to send to, so it
needs one for each direction.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from offgrid_tools.bench.figures import Figure
from offgrid_tools.bench.groups import Plan
from offgrid_tools.bench.harness import quantile
from offgrid_tools.bench.link_end import ECHO, TAKE, TELL, LinkEnd
from offgrid_tools.bench.lora_pair import NAMES
from offgrid_tools.bench.peers import free_port
from offgrid_tools.bench.reticulum import START_S, UDP, Reticulum, install, line_of, reticulum, running

RTT_MS = 20
LOSSES = (0, 5, 20)  # percent
ROUNDS, ROUNDS_QUICK = 3, 1
OUR_BYTES = {0: 32_000_000, 5: 24_000_000, 20: 12_000_000}
PIECE_BYTES, PIECES_IN_FLIGHT = 1_000_000, 4
THEIR_BYTES = {0: 200_000, 5: 100_000, 20: 100_000}
THEIR_S, THEIR_S_QUICK = 60, 20
CALLS, CALL_BYTES, IN_FLIGHT = 10_000, 32, 16
CALLS_QUICK = 1_000
CALLS_LOSS = 20
THEIR_IN_FLIGHT = 4
LINK_S = 60.0


class Seen(msgspec.Struct):
    """At one share of loss: MB/s, theirs 0 where it did not arrive."""

    ours: list[float] = msgspec.field(default_factory=list)
    theirs: list[float] = msgspec.field(default_factory=list)


class Calls(msgspec.Struct):
    """Seconds that each took; how often the answering side was asked, and about how many different ones."""

    waits_s: list[float]
    asked: int = 0
    different: int = 0


def measure(plan: Plan) -> list[Figure]:
    python = install(plan.folder)
    if isinstance(python, str):
        plan.say(f"transports: {python}")
    figures = []
    for loss in LOSSES:
        plan.say(f"transports: UDP, round trip of {RTT_MS} ms, {loss} % loss")
        figures += _carried(plan, python if isinstance(python, Path) else None, loss)
    plan.say(f"transports: small calls at {CALLS_LOSS} % loss")
    return figures + _called(plan, python if isinstance(python, Path) else None)


# ---- bytes


def _carried(plan: Plan, python: Path | None, loss: int) -> list[Figure]:
    seen, limit_s = Seen(), plan.rounds(THEIR_S, THEIR_S_QUICK)
    with ExitStack() as stack:
        ours = stack.enter_context(_ours(loss))
        theirs = stack.enter_context(_theirs(python, plan.folder / f"udp{loss}", loss)) if python is not None else None
        for _ in range(plan.rounds(ROUNDS, ROUNDS_QUICK)):
            seen.ours.append(asyncio.run(_our_rate(ours, OUR_BYTES[loss])))
            if theirs is not None:
                linked = theirs.order("link", LINK_S)["done"]
                outcome = theirs.order("send", limit_s, size=THEIR_BYTES[loss]) if linked else {"done": False}
                seen.theirs.append(THEIR_BYTES[loss] / 1e6 / outcome["seconds"] if outcome["done"] else 0.0)
    ours_mb, spread = statistics.median(seen.ours), f"{min(seen.ours):.2g} to {max(seen.ours):.2g}"
    name = f"udp_20ms_mb_s_loss{loss}"
    if not seen.theirs:
        return [Figure(name, ours_mb, note=spread)]
    theirs_mb = statistics.median(seen.theirs)
    late = seen.theirs.count(0.0)
    note = f"{spread}; Reticulum {min(seen.theirs):.2g} to {max(seen.theirs):.2g}"
    note += f", {late} of {len(seen.theirs)} not there in {limit_s} s" if late else ""
    bound = theirs_mb or THEIR_BYTES[loss] / 1e6 / limit_s
    return [
        Figure(name, ours_mb, "Reticulum, MB/s", theirs_mb, note),
        Figure(f"udp_loss{loss}_vs_reticulum", ours_mb / bound, "Reticulum, MB/s", bound),
    ]


async def _our_rate(address: str, size: int) -> float:
    """MB/s one way, in calls of a megabyte."""
    async with asyncio.timeout(300):
        end = await _end(address)
        began, waiting = time.perf_counter(), size // PIECE_BYTES

        async def carry() -> None:
            nonlocal waiting
            while waiting:
                waiting -= 1
                await end.call(NAMES[1], TAKE, bytes(PIECE_BYTES))

        await asyncio.gather(*(carry() for _ in range(PIECES_IN_FLIGHT)))
        took_s = time.perf_counter() - began
        end.endpoint.close()
        return size / 1e6 / took_s


# ---- calls


def _called(plan: Plan, python: Path | None) -> list[Figure]:
    count = plan.rounds(CALLS, CALLS_QUICK)
    limit_s = plan.rounds(THEIR_S, THEIR_S_QUICK)
    with ExitStack() as stack:
        ours = asyncio.run(_our_calls(stack.enter_context(_ours(CALLS_LOSS)), count))
        theirs: dict[str, object] = {"answered": 0, "waits": [], "said": f"no link in {LINK_S:.0f} s"}
        if python is not None:
            peer = stack.enter_context(_theirs(python, plan.folder / "calls", CALLS_LOSS))
            if peer is not None and peer.order("link", LINK_S)["done"]:
                order = {"count": count, "size": CALL_BYTES, "in_flight": THEIR_IN_FLIGHT}
                theirs = peer.order("calls", limit_s, **order)
                theirs["said"] = f"{theirs['answered']} in {limit_s} s, {theirs['failed']} failed"
    once = len(ours.waits_s) - (ours.asked - ours.different)
    p99 = quantile(ours.waits_s, 0.99) * 1000 / RTT_MS
    note = f"of {count}; {ours.asked} carried out, {ours.different} different ones"
    p50 = f"p50 {quantile(ours.waits_s, 0.5) * 1000 / RTT_MS:.1f}; {IN_FLIGHT} in flight"
    if python is None:
        return [
            Figure("rpc_exactly_once_of_10000_loss20", once, note=note),
            Figure("rpc_p99_in_rtt_loss20", p99, note=p50),
        ]
    answered, waits = theirs["answered"], theirs["waits"]
    assert isinstance(answered, int)
    assert isinstance(waits, list)
    note += f"; Reticulum {theirs['said']}"
    calls = Figure("rpc_exactly_once_of_10000_loss20", once, "Reticulum", answered, note)
    if not waits:
        return [calls, Figure("rpc_p99_in_rtt_loss20", p99, note=p50)]
    their_p99 = quantile(waits, 0.99) * 1000 / RTT_MS
    return [calls, Figure("rpc_p99_in_rtt_loss20", p99, "Reticulum", their_p99, p50)]


async def _our_calls(address: str, count: int) -> Calls:
    async with asyncio.timeout(300):
        end, calls, left = await _end(address), Calls([]), count

        async def call() -> None:
            nonlocal left
            while left:
                left -= 1
                began, body = time.perf_counter(), os.urandom(CALL_BYTES)
                if await end.call(NAMES[1], ECHO, body) == body:
                    calls.waits_s.append(time.perf_counter() - began)

        await asyncio.gather(*(call() for _ in range(IN_FLIGHT)))
        told = await end.call(NAMES[1], TELL, b"")
        calls.asked, calls.different = int.from_bytes(told[:4]), int.from_bytes(told[4:])
        end.endpoint.close()
        return calls


# ---- who speaks with whom


async def _end(address: str) -> LinkEnd:
    end = LinkEnd(NAMES[0], "udp:127.0.0.1:0")
    await end.ready()
    end.introduce(NAMES[1], address)
    await end.call(NAMES[1], TAKE, b"")
    return end


@contextmanager
def _ours(loss: int) -> Iterator[str]:
    """An end that answers, and the address of the proxy before it."""
    port = free_port()
    with running([sys.executable, "-m", "offgrid_tools.bench.link_end", f"udp:127.0.0.1:{port}"]) as end:
        if line_of(end, START_S) != "ready":
            raise RuntimeError("our answering end did not start")
        with _proxy(port, loss) as proxy_port:
            yield f"127.0.0.1:{proxy_port}"


@contextmanager
def _theirs(python: Path, folder: Path, loss: int) -> Iterator[Reticulum | None]:
    """None where they did not find each other."""
    answering, asking = free_port(), free_port()
    with _proxy(answering, loss) as to_answering, _proxy(asking, loss) as to_asking:
        one = UDP.format(listen=answering, forward=to_asking)
        other = UDP.format(listen=asking, forward=to_answering)
        with reticulum(python, folder, one, other) as peer:
            yield peer if peer.meet(LINK_S) else None


@contextmanager
def _proxy(target: int, loss: int) -> Iterator[int]:
    """The port that it listens on."""
    port = free_port()
    addresses = [f"127.0.0.1:{port}", f"127.0.0.1:{target}"]
    conditions = [f"loss={loss / 100}", f"delay_ms={RTT_MS / 2}", f"seed={time.time_ns() % 1_000_000}"]
    with running([sys.executable, "-m", "offgrid_tools.emulators", "udp-proxy", *addresses, *conditions]) as proxy:
        if not line_of(proxy, START_S):
            raise RuntimeError("the proxy did not start")
        yield port
