"""`run.py demo --radio`: two nodes with a LoRa channel between them and nothing else, in real time.

One joins over the air, a job, an object and a payment pass, and then nothing is asked for; of each the demo says what
went over the air. The radios are emulated RNodes: airtime, half duplex, medium access and the duty cycle are those of
EU868 at SF7.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from offgrid.client import Client, OffgridError, payloads
from offgrid.v1 import jobs_pb2, ledger_pb2
from offgrid_node.demo.show import Show, in_credits
from offgrid_node.demo.waiting import until
from offgrid_node.executors import programs
from offgrid_node.protocol.errors import Unavailable
from offgrid_tools.radio_town import RadioTown

WORDS = b"the mill turns while the wind is fair; come over when it does not. "
OBJECT_BYTES = 4_000
PAID_MICRO = 2_500_000
REST_S = 45
EXIT_TERMINATED = 143  # 128 + SIGTERM, as shells have it


class Row(NamedTuple):
    """What one chapter took."""

    name: str
    seconds: float
    frames: int
    bytes: int
    airtime_ms: int


class RadioStory:
    """Told once. A chapter's figures are those of the whole channel."""

    def __init__(self, town: RadioTown, show: Show) -> None:
        self._town, self._show = town, show
        self._rows: list[Row] = []

    def tell(self) -> bool:
        """Whether all went as it should. Raises what the client raises, and Unavailable."""
        show, town = self._show, self._town
        apart = "each in a network of its own" if town.apart else "no IP leads from one to the other"
        show.title(f"two nodes, a radio each: hut (core, broker) and mill (core, host); {apart}")
        show.line("    mill joins over the air, by the token that hut's owner reads out")
        with self._chapter("joining, and meeting"):
            town.start()
        with town.hut.client(timeout_s=120) as hut, town.mill.client(timeout_s=120) as mill:
            done = [self._job(hut), self._object(hut), self._payment(hut, mill)]
        show.title(f"nothing is asked for, {REST_S} s long")
        with self._chapter("at rest"):
            time.sleep(REST_S)
        self._table()
        return all(done)

    # ---- the chapters

    def _job(self, hut: Client) -> bool:
        self._show.title("a job: hut has words put in capitals; mill does it, in a WebAssembly sandbox")
        with self._chapter("a job"):
            job = hut.jobs.run(payloads.wasm(programs.load("upper"), input=WORDS), title="demo")
        self._show.line(
            f"    {jobs_pb2.JobState.Name(job.state)[10:].lower()} at {self._town.mesh.by_id(job.host).name}"
        )
        self._show.line(f"    {job.result.output.decode('utf-8', 'replace')}")
        return job.state == jobs_pb2.JOB_STATE_COMPLETED and job.result.output == WORDS.upper()

    def _object(self, hut: Client) -> bool:
        data = (WORDS * (OBJECT_BYTES // len(WORDS) + 1))[:OBJECT_BYTES]
        self._show.title(f"an object: {len(data):,} bytes of hut's are sealed and kept by mill; hut keeps no copy")
        with self._chapter("an object is kept"):
            made = hut.objects.put(data, name="letter", copies=1, required_milli=1_000)
            until(lambda: not hut.objects.get(made.object_id).local, "mill keeps it and hut does not")
        self._show.title("hut reads it back")
        with self._chapter("and read back"):
            same = hut.objects.read("letter") == data
        self._show.line("    the same bytes" if same else "    NOT THE SAME BYTES")
        return same

    def _payment(self, hut: Client, mill: Client) -> bool:
        self._show.title(f"a payment: hut opens the ledger and pays mill {in_credits(PAID_MICRO)} credits")
        with self._chapter("a ledger is opened"):
            hut.ledger.open()
            until(lambda: mill.ledger.status().open, "mill knows the ledger")
        before = mill.ledger.balance().final_micro
        with self._chapter("a payment is final"):
            sent = hut.ledger.transfer(dst="mill", amount_micro=PAID_MICRO)
            for client in (hut, mill):
                until(lambda c=client: _is_final(c, sent.tx_id), "the payment is final")  # type: ignore[misc]
        got = mill.ledger.balance().final_micro - before
        self._show.line(f"    mill has {in_credits(got)} credits more")
        return got == PAID_MICRO

    # ---- figures

    @contextmanager
    def _chapter(self, name: str) -> Iterator[None]:
        before, began = self._town.air(), time.monotonic()
        yield
        seconds, after = time.monotonic() - began, self._town.air()
        frames, size = after["frames"] - before["frames"], after["bytes"] - before["bytes"]
        self._rows.append(Row(name, seconds, frames, size, (after["airtime_us"] - before["airtime_us"]) // 1_000))
        self._show.line(f"    {seconds:.1f} s")

    def _table(self) -> None:
        show = self._show
        show.title("what went over the air (what is told each second; a chapter's last word may be in the next)")
        show.line(f"    {'':20} {'seconds':>8} {'frames':>7} {'bytes':>7} {'airtime':>9} {'of the time':>12}")
        for row in self._rows:
            share = row.airtime_ms / row.seconds / 10
            show.line(
                f"    {row.name:20} {row.seconds:8.1f} {row.frames:7} {row.bytes:7,} {row.airtime_ms / 1_000:7.2f} s"
                f" {share:10.1f} %"
            )


def _is_final(client: Client, tx_id: str) -> bool:
    try:
        return client.ledger.transaction(tx_id).state == ledger_pb2.TX_STATE_FINAL
    except OffgridError as error:
        if error.reason == "TransactionNotFound":
            return False
        raise


def demonstrate(folder: Path | None, tell: Callable[[RadioTown, Show], bool]) -> int:
    """The exit code: 0 when everything went as it should."""
    home, show, well = folder or Path(tempfile.mkdtemp(prefix="offgrid-radio-")), Show(), False
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))  # through the `with`: nodes are stopped first
    try:
        with RadioTown(home, "lora") as town:
            well = tell(town, show)
    except (Unavailable, OffgridError, TimeoutError) as error:
        show.line(str(error))
    finally:
        if not well or folder is not None:
            show.line(f"everything is in {home}")
        else:
            shutil.rmtree(home, ignore_errors=True)
    show.line("done." if well else "the demo did NOT go as it should; the nodes' logs say why.")
    return 0 if well else 1


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="run.py demo --radio", description=__doc__)
    parser.add_argument("--dir", type=Path, help="where the two nodes live, and stay; a temporary folder unless given")
    given = parser.parse_args(arguments)
    return demonstrate(given.dir, lambda town, show: RadioStory(town, show).tell())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
