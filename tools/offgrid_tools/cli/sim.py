"""`offgrid sim`: hands over to the simulator, which needs no node."""

from __future__ import annotations

import importlib

import click

from offgrid_tools.cli.settings import common, settings


@click.command()
@click.option("--seed", type=click.IntRange(0), required=True, help="The seed to replay.")
@common
def sim(seed: int) -> int:
    """Replay one seed of the simulator: the same bytes every time, exit code 1 on a violation."""
    # The simulator runs whole nodes, which this command must otherwise know nothing of: hence no import statement.
    simulator = importlib.import_module("offgrid_tools.sim.main")
    code: int = simulator.run(seed=seed, json=settings().json)
    return code
