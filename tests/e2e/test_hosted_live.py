"""Language models and a Dask cluster behind a live host: jobs that cross a core, a broker and a host of their own."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from live import COMPLETED, FAILED, eventually, log_of

import offgrid
from offgrid.client import payloads
from offgrid_node.local_mesh import LocalMesh
from offgrid_tools.fixtures.processes import DaskCluster, OpenAiServer

NODES = {"core": ["core", "broker"], "host": ["host"]}
needs_dask = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None, reason="the extra `dask` is not installed"
)


@dataclass
class World:
    """A mesh, and what its host stands before."""

    mesh: LocalMesh
    client: offgrid.Client
    models: OpenAiServer
    cluster: DaskCluster | None

    def offered(self) -> set[str]:
        entries = self.client.market.offers().entries
        return {label for entry in entries for offer in entry.offers for label in offer.executors}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("hosted")
    cluster = DaskCluster() if importlib.util.find_spec("distributed") else None
    with OpenAiServer(["echo", "broken"]) as models:
        settings: dict[str, object] = {"host__llm__endpoint": models.url}
        if cluster is not None:
            settings["host__dask__scheduler"] = cluster.__enter__().url
        with LocalMesh(folder, "h", NODES, **settings) as mesh:
            mesh.start()
            mesh.wait_alive()
            mesh.wait_offers(1)
            with mesh["core"].client() as client:
                yield World(mesh, client, models, cluster)
            for node in mesh.nodes.values():
                log_of(node)
    if cluster is not None:
        cluster.stop()


def test_a_model_answers_and_its_tokens_are_what_the_job_used(world: World) -> None:
    eventually(lambda: "llm:echo" in world.offered(), "the model is offered")
    asked = payloads.llm("echo", [("user", "one two three")], system="be brief")
    job = world.client.jobs.run(asked, kind="llm_call")
    assert (job.state, job.result.output) == (COMPLETED, b"three two one"), (job.error, job.error_detail)
    assert job.host == world.mesh["host"].node_id
    facts = job.result.receipt.facts
    assert facts.executor == "openai-chat/1 echo"
    assert facts.compute_tokens_m == pytest.approx(8 / 1e6)
    (seen,) = [body for body in world.models.seen()["asked"] if body["model"] == "echo"]
    assert [message["role"] for message in seen["messages"]] == ["system", "user"]


def test_what_the_endpoint_lists_later_is_offered_then(world: World) -> None:
    world.models.list_models("echo", "broken", "slow")
    eventually(lambda: "llm:slow" in world.offered(), "the new model is offered")
    job = world.client.jobs.run(payloads.llm("slow", input=b"a b"), kind="llm_call")
    assert (job.state, job.result.output) == (COMPLETED, b"b a"), (job.error, job.error_detail)


def test_its_words_come_as_it_says_them(world: World) -> None:
    """Before the answer is there; each piece once."""
    world.models.list_models("echo", "broken", "slow")
    eventually(lambda: "llm:slow" in world.offered(), "the model is offered")
    words = " ".join(f"word{number}" for number in range(40))  # two seconds
    future = world.client.submit(payloads.llm("slow", input=words.encode()))
    pieces = [progress.output for progress in future.progress() if progress.output]
    answer = future.result(20).result.output
    assert len(pieces) > 2
    assert answer.startswith(b"".join(pieces)[:20])
    assert b"".join(pieces) in answer


@needs_dask
def test_a_function_works_on_the_cluster(world: World) -> None:
    def squares(client: Any, count: int) -> int:
        return sum(client.gather(client.map(lambda number: number * number, range(count))))

    eventually(lambda: any(label.startswith("dask:") for label in world.offered()), "the cluster is offered")
    assert world.client.submit(squares, 100, executor="dask").result(60) == 328_350


@needs_dask
def test_losing_the_scheduler_loses_no_job(world: World, tmp_path: Path) -> None:
    """It is killed in the middle; the job waits for another one at the same place, and is done there."""

    def work(client: Any, begun: str) -> str:
        import time

        future = client.submit(lambda: time.sleep(1.5) or "done")
        Path(begun).touch()
        return str(future.result())

    assert world.cluster is not None
    future = world.client.submit(work, str(tmp_path / "begun"), executor="dask", timeout_s=60)
    eventually((tmp_path / "begun").exists, "the cluster works on it")
    world.cluster.stop()
    with DaskCluster(world.cluster.port):
        assert future.result(60) == "done"
    job = world.client.jobs.get(future.job_id)
    assert any("ClusterLost" in attempt.outcome for attempt in job.attempts), job.attempts


def test_a_broken_endpoint_is_tried_again_and_then_given_up(world: World) -> None:
    job = world.client.jobs.run(payloads.llm("broken", [("user", "hi")]), kind="llm_call", losses_max=2)
    assert (job.state, job.error) == (FAILED, "AttemptsExhausted"), job.error_detail
    outcomes = [attempt.outcome.partition(":")[0] for attempt in job.attempts]
    assert outcomes == ["EndpointFailed", "EndpointFailed", "AttemptsExhausted"], job.attempts
