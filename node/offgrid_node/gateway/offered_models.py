"""Which language models this node knows to be offered, for a job that names none."""

from __future__ import annotations

from offgrid_node.gateway.node_view import NodeView
from offgrid_node.protocol.events import BROKER
from offgrid_node.protocol.jobs.machine import JobsMachine

PREFIX = "llm:"  # of what a host offers by a model


def offered_models(view: NodeView) -> list[str]:
    """By name: a broker's hosts', or what this node offers itself."""
    jobs = view.runtime.machine("jobs", JobsMachine)
    if BROKER in view.own_roles():
        offers = [offer for entry in jobs.broker.entries() if entry.alive for offer in entry.offers]
    else:
        offers = list(jobs.host.describe(view.runtime.clock.now()).offers)
    found = {executor for offer in offers for executor in offer.executors if executor.startswith(PREFIX)}
    return sorted(executor.removeprefix(PREFIX) for executor in found)
