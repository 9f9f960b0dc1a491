"""`offgrid sim`: hands over to the simulator, which needs no node."""

from __future__ import annotations

import importlib
from pathlib import Path

import click

from offgrid_tools.cli.settings import common, settings


@click.command()
@click.option("--seed", type=click.IntRange(0), required=True, help="The seed to replay.")
@click.option("--mesh", default="home", show_default=True, help="Which machines: home, or market (15 of them).")
@click.option("--trace", type=click.Path(dir_okay=False), metavar="FILE", help="Write what happened, step by step.")
@click.option("--mutant", metavar="NAME", help="With a bug planted on purpose; see what catches it.")
@common
def sim(seed: int, mesh: str, trace: str | None, mutant: str | None) -> int:
    """Replay one seed of the simulator: the same bytes every time, exit code 1 on a violation."""
    # The simulator runs whole nodes, which this command must otherwise know nothing of: hence no import statement.
    simulator = importlib.import_module("offgrid_tools.sim.main")
    known = importlib.import_module("offgrid_tools.sim.mutants").MUTANTS
    if mutant is not None and mutant not in known:
        raise click.BadParameter(f"{mutant!r} is none; there are {', '.join(known)}", param_hint="--mutant")
    meshes = importlib.import_module("offgrid_tools.sim.plan").MESHES
    if mesh not in meshes:
        raise click.BadParameter(f"{mesh!r} is none; there are {', '.join(meshes)}", param_hint="--mesh")
    trace_path = Path(trace) if trace else None
    code: int = simulator.run(seed=seed, mesh=mesh, json=settings().json, trace=trace_path, mutant=mutant)
    return code
