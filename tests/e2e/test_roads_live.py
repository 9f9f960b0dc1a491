"""Two machines joined by a cable and by another link: calls go on when the cable is cut, and come back to it."""

from __future__ import annotations

from pathlib import Path

from live import BIN, eventually, log_of, run
from netns import NEEDS_ROOT, Halves, Machine, namespaces

from offgrid.client import payloads
from offgrid.v1.jobs_pb2 import JobState
from offgrid.v1.links_pb2 import ROAD_STATE_IN_USE
from offgrid_node.executors import programs

pytestmark = NEEDS_ROOT

SETTINGS = ("mesh.probe_interval_ms=1000", "mesh.mdns=false")


class Pair:
    def __init__(self, folder: Path, hub: str, places: list[str]) -> None:
        self.wires = Halves(hub, places[:1], places[1:])
        self.places = places
        self.anna = Machine("anna", ("core", "broker"), folder / "anna")
        self.bert = Machine("bert", ("host",), folder / "bert")
        self.link = folder / "link"

    def start(self) -> None:
        init = [BIN / "offgrid-node", "init", "--mesh", "pair", "--name", "anna", "--dir", self.anna.folder]
        assert run([*init, *_flags("--role", self.anna.roles), *self._set("unix-listen")]).code == 0
        self.anna.start(self.places[0], "run")
        self.anna.wait_ready()
        with self.anna.client() as client:
            token = client.mesh.invite().token
        self.bert.start(
            self.places[1], "join", token, "--name", "bert", *_flags("--role", self.bert.roles), *self._set("unix")
        )
        self.bert.wait_ready()

    def _set(self, scheme: str) -> list[str]:
        return _flags("--set", (*SETTINGS, f'links.open=["{scheme}:{self.link}"]'))

    def roads(self) -> list[tuple[str, bool]]:
        """From anna to bert: by which, and whether it is in use."""
        with self.anna.client() as client:
            [peer] = client.links.roads("bert").peers
        return [(road.via.partition(":")[0], road.state == ROAD_STATE_IN_USE) for road in peer.roads]

    def count(self, text: bytes) -> None:
        with self.anna.client() as client:
            job = client.jobs.run(payloads.wasm(programs.load("upper"), input=text), timeout_s=60)
        assert (job.state, job.result.output) == (JobState.JOB_STATE_COMPLETED, text.upper())


def _flags(flag: str, values: tuple[str, ...]) -> list[str]:
    return [part for value in values for part in (flag, value)]


def test_calls_go_on_when_the_cable_is_cut_and_come_back_to_it(tmp_path: Path) -> None:
    with namespaces("hub", "anna", "bert") as (hub, *places):
        pair = Pair(tmp_path, hub, places)
        try:
            pair.start()
            eventually(lambda: {via for via, _ in pair.roads()} >= {"grpc", "unix-listen"}, "both roads are known")
            pair.count(b"by cable")
            assert pair.roads()[0][0] in ("framed", "grpc")
            with pair.anna.client() as client:
                for via in ("grpc", "unix"):
                    answer = client.links.ping("bert", via=via)
                    assert (answer.name, answer.road.via.startswith(via)) == ("bert", True)

            pair.wires.cut()
            pair.count(b"without it")
            eventually(lambda: pair.roads()[0] == ("unix-listen", True), "the other link is in use")
            pair.count(b"again")
            with pair.anna.client() as client:
                assert [peer.liveness for peer in client.mesh.peers()] == [1, 1], "nobody seems dead meanwhile"

            pair.wires.join()
            eventually(lambda: pair.roads()[0][0] in ("framed", "grpc"), "the cable is in use again")
            pair.count(b"back")
        finally:
            codes = [node.stop() for node in (pair.anna, pair.bert)]
        assert codes == [0, 0]
        for node in (pair.anna, pair.bert):
            log_of(node)
