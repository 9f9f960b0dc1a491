"""`offgrid sim`: hands over to the simulators, which need no node."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from io import StringIO
from pathlib import Path

import click

from offgrid.command_line.groups import Group
from offgrid_tools.cli.bars import working
from offgrid_tools.cli.settings import common, settings

SEED = click.IntRange(0)
TRACE = click.option(
    "--trace", type=click.Path(dir_okay=False), metavar="FILE", help="Write what happened, step by step."
)
MUTANT = click.option("--mutant", metavar="NAME", help="With a bug planted on purpose; see what catches it.")


@click.group(cls=Group, invoke_without_command=True)
@click.option("--seed", type=SEED, help="The seed to replay.")
@click.option("--mesh", default="home", show_default=True, help="Which machines: home, or market (15 of them).")
@TRACE
@MUTANT
@common
@click.pass_context
def sim(ctx: click.Context, seed: int | None, mesh: str, trace: str | None, mutant: str | None) -> int | None:
    """Replay one seed of the simulator: the same bytes every time, exit code 1 on a violation."""
    if ctx.invoked_subcommand is not None:
        return None
    if seed is None:
        raise click.MissingParameter(ctx=ctx, param_hint="--seed", param_type="option")
    # The simulators run whole nodes, which this command must otherwise know nothing of: hence no import statement.
    simulator = importlib.import_module("offgrid_tools.sim.main")
    _one_of("--mutant", mutant, importlib.import_module("offgrid_tools.sim.mutants").MUTANTS)
    _one_of("--mesh", mesh, importlib.import_module("offgrid_tools.sim.plan").MESHES)
    out = StringIO()
    with working("simulating"):
        code: int = simulator.run(
            seed=seed, mesh=mesh, json=settings().json, trace=_path(trace), mutant=mutant, out=out
        )
    click.echo(out.getvalue(), nl=False)
    return code


@sim.command()
@click.option("--seed", type=SEED, required=True, help="The seed to replay.")
@click.option("--level", metavar="LEVEL", help="whole (machines), or slots (the witness' rules). [default: each]")
@click.option("--witnesses", type=click.IntRange(4, 20), help="How many. [default: by the seed]")
@click.option("--owners", type=click.IntRange(1, 1_000), help="Who pay, beside them. [default: by the seed]")
@TRACE
@MUTANT
@common
def ledger(
    seed: int, level: str | None, witnesses: int | None, owners: int | None, trace: str | None, mutant: str | None
) -> int:
    """Replay one seed of the ledger's own simulator: witnesses and owners, some of whom lie."""
    simulator = importlib.import_module("offgrid_tools.ledgersim.main")
    _one_of("--level", level, simulator.LEVELS)
    mutants = importlib.import_module("offgrid_tools.ledgersim.mutants").MUTANTS
    _one_of("--mutant", mutant, mutants)
    out = StringIO()
    with working("simulating"):
        code: int = simulator.run(
            seed=seed,
            level=level or (mutants[mutant].level if mutant else ""),
            witnesses=witnesses or 0,
            owners=owners or 0,
            json=settings().json,
            trace=_path(trace),
            mutant=mutant,
            out=out,
        )
    click.echo(out.getvalue(), nl=False)
    return code


def _one_of(option: str, chosen: str | None, known: Iterable[str]) -> None:
    if chosen is not None and chosen not in known:
        raise click.BadParameter(f"{chosen!r} is none; there are {', '.join(known)}", param_hint=option)


def _path(text: str | None) -> Path | None:
    return Path(text) if text else None
