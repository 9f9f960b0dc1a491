"""`GET /metrics` of real nodes after a real job, and `offgrid metrics`."""

from __future__ import annotations

import http.client

import pytest
from live import COMPLETED, GIVE_UP_S, eventually, offgrid
from prometheus_client.parser import text_string_to_metric_families

from offgrid.client import payloads
from offgrid_node.local_mesh import LocalMesh, LocalNode

pytestmark = pytest.mark.xdist_group("mesh")


def samples(node: LocalNode) -> dict[tuple[str, ...], float]:
    """Every sample of the node's page: (name, label values in the order of their names…) → value."""
    address = (node.folder / "data" / "metrics.address").read_text()
    connection = http.client.HTTPConnection(address, timeout=GIVE_UP_S)
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    assert answer.status == 200
    text = answer.read().decode()
    connection.close()
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_job_shows_at_its_core_and_at_its_host(mesh: LocalMesh) -> None:
    core = mesh["core"]
    before = samples(core)
    with core.client() as client:
        jobs = [client.jobs.run(payloads.command("wc", ["-c"], input=b"x")) for _ in range(3)]
    assert {job.state for job in jobs} == {COMPLETED}
    after = samples(core)
    grown = {key: value - before.get(key, 0) for key, value in after.items()}
    assert grown["offgrid_jobs_total", "offgrid", "completed"] == 3
    assert grown["offgrid_job_duration_seconds_count", "completed"] == 3
    took_s = sum(job.updated_us - job.created_us for job in jobs) / 1e6
    assert grown["offgrid_job_duration_seconds_sum", "completed"] == pytest.approx(took_s, abs=0.05)
    assert grown["offgrid_commit_inputs_count",] > 0
    assert grown["offgrid_commit_inputs_sum",] >= grown["offgrid_commit_inputs_count",]
    assert after["offgrid_peers", "alive"] == 5
    host = mesh.by_id(jobs[0].host)
    ran = sum(job.host == host.node_id for job in jobs)
    eventually(lambda: samples(host)["offgrid_executions_total", "completed"] >= ran, "the host counts its work")
    assert samples(host)["offgrid_execution_duration_seconds_sum",] > 0
    assert after["offgrid_outbox_entries",] == 0


def test_the_command_prints_the_page(mesh: LocalMesh) -> None:
    done = offgrid(mesh["broker"], "metrics")
    assert done.code == 0, done.said
    assert "\noffgrid_peers{" in done.out
    assert done.out.startswith("# HELP offgrid_jobs_total ")


def test_a_broker_that_is_gone_shows_in_the_core(mesh: LocalMesh) -> None:
    core, broker = mesh["core"], mesh["broker"]

    def errors() -> float:
        return sum(value for key, value in samples(core).items() if key[0] == "offgrid_broker_errors_total")

    known = errors()
    broker.kill()
    try:
        done = eventually(
            lambda: (
                (code := offgrid(core, "job", "run", "--mode", "offgrid", __file__, "--command", "wc").code) and code
            ),
            "a dispatch without a broker is refused",
        )
        assert done
        eventually(lambda: errors() > known, "the core counts an error of its broker")
    finally:
        broker.run("run")
        broker.wait_ready()
        mesh.wait_alive()
        mesh.wait_offers(3)


def test_where_no_metrics_are_served_the_command_says_how_to(make_mesh) -> None:  # type: ignore[no-untyped-def]
    mesh = make_mesh({"only": ["core"]})
    done = offgrid(mesh["only"], "metrics")
    assert done.code != 0
    assert "[metrics]" in done.err
    assert not (mesh["only"].folder / "data" / "metrics.address").exists()
