"""Functions as jobs on a live node whose owner allows them, as applications use them."""

from __future__ import annotations

import asyncio
import collections
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import GIVE_UP_S, eventually

import offgrid
from offgrid_node.local_mesh import LocalMesh

TEXTS = sorted((Path(__file__).parents[2] / "docs").glob("*.md"))


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[offgrid.Client]:
    """One node is all: core, broker and host, so that its jobs take the whole road and start at once."""
    nodes = {"solo": ["core", "broker", "host"]}
    with LocalMesh(tmp_path_factory.mktemp("f"), "f", nodes, host__python__enabled=True) as mesh:
        mesh.start()
        mesh.wait_offers(1)
        with mesh["solo"].client() as client:
            yield client


@offgrid.job(timeout_s=20)
def count(text: bytes, *, top: int = 3) -> list[tuple[str, int]]:
    """The most frequent words; what it uses of this very file goes along."""
    return collections.Counter(words_of(text)).most_common(top)


def words_of(text: bytes) -> list[str]:
    return text.decode().lower().split()


@offgrid.job
async def pid_later(seconds: float) -> int:
    await asyncio.sleep(seconds)
    return os.getpid()


@offgrid.job
def divide(number: int, by: int) -> float:
    print("dividing", number)  # noqa: T201 - it becomes the job's log
    return number / by


def test_words_of_real_texts_are_counted_elsewhere(client: offgrid.Client) -> None:
    assert list(count.map(client, [path.read_bytes() for path in TEXTS])) == [
        count(path.read_bytes()) for path in TEXTS
    ]
    assert count.submit(client, TEXTS[0].read_bytes(), top=1).result(GIVE_UP_S) == count(TEXTS[0].read_bytes(), top=1)


def test_an_async_function_runs_in_another_process(client: offgrid.Client) -> None:
    async def main() -> list[int]:
        return await asyncio.gather(*(pid_later.submit(client, 0.01) for _ in range(4)))

    assert os.getpid() not in asyncio.run(main())


def test_what_it_raised_is_raised_here(client: offgrid.Client) -> None:
    future = divide.submit(client, 1, 0)
    with pytest.raises(ZeroDivisionError) as raised:
        future.result(GIVE_UP_S)
    assert "number / by" in str(raised.value.__cause__)
    assert future.job().result.receipt.facts.status == "failed"


def test_too_long_is_a_failed_job(client: offgrid.Client) -> None:
    with pytest.raises(offgrid.JobFailed, match="JobTimeout"):
        pid_later.with_options(timeout_s=0.3).submit(client, 600).result(GIVE_UP_S)


def test_a_large_value_comes_whole(client: offgrid.Client) -> None:
    value = client.submit(bytes.__mul__, b"0123456789", 50_000).result(GIVE_UP_S)
    assert (len(value), value[:11]) == (500_000, b"01234567890")


def test_as_they_are_completed(client: offgrid.Client) -> None:
    slow, quick = pid_later.submit(client, 1.5), divide.submit(client, 6, 3)
    assert [future is quick for future in offgrid.as_completed([slow, quick], 20)] == [True, False]


def test_cancelled_it_is_stopped_there(client: offgrid.Client) -> None:
    future = pid_later.submit(client, 600)
    job_id = future.wait_sent(10)
    eventually(lambda: client.jobs.get(job_id).host, "it runs")
    assert future.cancel()
    eventually(lambda: client.jobs.get(job_id).error == "Cancelled", "it is cancelled")
    eventually(lambda: client.mesh.status().slots_busy == 0, "its slot is free")
