"""A job and its receipt as people read them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import click

from offgrid.v1.jobs_pb2 import Job, Route
from offgrid_tools.cli.jobs import named, state_of
from offgrid_tools.cli.output import duration, facts, number, preview, size, when, word

DIGEST_SHOWN = 16  # hexadecimal digits


def job_facts(job: Job, names: dict[str, str], output: str | None, executions: Sequence[Job] = ()) -> None:
    """Prints everything about a job; `output` is the file that its output went to, if any."""
    facts([*_about(job, names), *_executions(job, executions, names), *_attempts(job, names), *_receipt(job, names)])
    whole_bytes = job.result.output_bytes or len(job.result.output)
    if output is not None:
        facts([("output", f"{size(whole_bytes)} in {output}")])
    elif job.result.output_object:
        facts([("output", f"{size(whole_bytes)}, object {job.result.output_object}; --output FILE has all of it")])
    elif job.result.output:
        facts([("output", size(len(job.result.output)))])
        click.echo(preview(job.result.output, "--output FILE has all of it"))
    for file in job.result.files:
        facts([("file", f"{file.name}, {size(file.size_bytes)}; --save-files DIR has it")])
    if job.result.log:
        facts([("log", size(len(job.result.log)))])
        click.echo(preview(job.result.log, "--json has all of it"))


def _about(job: Job, names: dict[str, str]) -> Iterator[tuple[str, object]]:
    yield "job", job.job_id
    yield "task", job.task_id
    yield "mission", job.mission_id
    yield "state", state_of(job)
    yield "error", f"{job.error} {job.error_detail}".strip()
    yield "waiting", job.waiting
    yield "route", word(Route, job.route)
    yield from _terms(job, names)
    yield "needs", job.needs
    yield "input", f"{job.input_name or 'payload'} ({size(job.input_bytes)})"
    yield "host", named(job.host, names)
    yield "broker", named(job.broker, names)
    yield "created", when(job.created_us)
    yield "updated", when(job.updated_us)
    if job.HasField("result") and job.result.status != "completed":
        yield "exit code", job.result.exit_code


def _terms(job: Job, names: dict[str, str]) -> Iterator[tuple[str, object]]:
    """What was asked for beyond the work itself."""
    yield "requires", job.requirements
    yield "priority", job.priority or ""
    yield "deadline", when(job.deadline_us)
    yield "after", " ".join(job.after)
    if job.replicas > 1:
        yield "replicas", f"{job.replicas}, of which {job.quorum} must agree{', adaptive' if job.adaptive else ''}"
    yield "execution of", job.parent_id
    yield "not on", " ".join(named(host, names) for host in job.avoid)
    if job.price_max_micro:
        yield "price max", f"{number(job.price_max_micro / 1e6)} per million tokens"
    if job.losses:
        yield "hosts lost", f"{job.losses} of {job.losses_max or 8}"
    yield "schedule", f"{job.schedule_id}, due {when(job.due_us)}" if job.schedule_id else ""


def _executions(job: Job, executions: Sequence[Job], names: dict[str, str]) -> Iterator[tuple[str, object]]:
    """Of a redundant job: who said what, and whether that is what was accepted."""
    accepted = job.result.receipt.facts.result_digest
    for number_, each in enumerate(executions, 1):
        said, digest = each.error or state_of(each), each.result.receipt.facts.result_digest
        if digest:
            said += f", digest {digest.hex()[:DIGEST_SHOWN]}"
        if digest and accepted:
            said += ", as accepted" if digest == accepted else ", not what was accepted"
        yield f"execution {number_}", f"{named(each.host, names) or 'no host'}: {said}"


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
    if receipt.cpu_ms or receipt.memory_peak_bytes:
        memory = f", memory {size(receipt.memory_peak_bytes)}" if receipt.memory_peak_bytes else ""
        yield "  used", f"processor {duration(receipt.cpu_ms)}{memory}"
    yield "  price", number(receipt.price_micro / 1e6)
    yield "  attempt", receipt.attempt
    proof = job.result.receipt
    yield (
        "  signature",
        f"{proof.root_signature.hex()[:32]}… over a root, {len(proof.path)} steps from leaf {proof.index}",
    )
