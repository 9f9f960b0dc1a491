"""A job and its receipt as people read them."""

from __future__ import annotations

from collections.abc import Iterator

import click

from offgrid.v1.jobs_pb2 import Job, Route
from offgrid_tools.cli.jobs import named, state_of
from offgrid_tools.cli.output import duration, facts, number, preview, size, when, word


def job_facts(job: Job, names: dict[str, str], output: str | None) -> None:
    """Prints everything about a job; `output` is the file that its output went to, if any."""
    facts([*_about(job, names), *_attempts(job, names), *_receipt(job, names)])
    whole_bytes = job.result.output_bytes or len(job.result.output)
    if output is not None:
        facts([("output", f"{size(whole_bytes)} in {output}")])
    elif job.result.output_object:
        facts([("output", f"{size(whole_bytes)}, object {job.result.output_object}; --output FILE has all of it")])
    elif job.result.output:
        facts([("output", size(len(job.result.output)))])
        click.echo(preview(job.result.output, "--output FILE has all of it"))
    if job.result.log:
        facts([("log", size(len(job.result.log)))])
        click.echo(preview(job.result.log, "--json has all of it"))


def _about(job: Job, names: dict[str, str]) -> Iterator[tuple[str, object]]:
    yield "job", job.job_id
    yield "task", job.task_id
    yield "mission", job.mission_id
    yield "state", state_of(job)
    yield "error", f"{job.error} {job.error_detail}".strip()
    yield "route", word(Route, job.route)
    yield "needs", job.needs
    yield "input", f"{job.input_name or 'payload'} ({size(job.input_bytes)})"
    yield "host", named(job.host, names)
    yield "broker", named(job.broker, names)
    yield "created", when(job.created_us)
    yield "updated", when(job.updated_us)
    if job.HasField("result") and job.result.status != "completed":
        yield "exit code", job.result.exit_code


def _attempts(job: Job, names: dict[str, str]) -> Iterator[tuple[str, object]]:
    for attempt in job.attempts:
        took = duration((attempt.ended_us - attempt.started_us) / 1000) if attempt.ended_us else "still going"
        yield f"attempt {attempt.number}", f"{named(attempt.host, names)}: {attempt.outcome or 'open'}, {took}"


def _receipt(job: Job, names: dict[str, str]) -> Iterator[tuple[str, object]]:
    if not job.result.HasField("receipt"):
        return
    receipt = job.result.receipt.facts
    yield "receipt", f"signed by {named(receipt.node_id, names)} ({receipt.node_id})"
    yield "  result", f"{receipt.status}, digest {receipt.result_digest.hex()}"
    yield "  work", f"{number(receipt.compute_tokens_m)} M tokens, {duration(receipt.latency_ms)}, {receipt.executor}"
    yield "  price", number(receipt.price_micro / 1e6)
    yield "  attempt", receipt.attempt
    proof = job.result.receipt
    yield (
        "  signature",
        f"{proof.root_signature.hex()[:32]}… over a root, {len(proof.path)} steps from leaf {proof.index}",
    )
