"""`python -m offgrid_tools.soak PART`: runs one part, or all, and exits with 1 when a promise was broken.

kills     a real mesh under load; core, broker and hosts die by kill -9 at random moments
state-kills  a real node that keeps sessions and dies by kill -9 in each phase of that: append, snapshot, summary,
          retention, purge, import, compaction, backup, restore, migration; its clock is wrong now and then
settling  many receipts of many hosts, settled in a real mesh whose core, hosts and witnesses die by kill -9
epochs    a real mesh whose witnesses come, go, fork, are restored and die by kill -9, from epoch to epoch
sim       seeds of the simulator, five machines that do everything
market    seeds of the simulator, three brokers and ten hosts, some of whom lie
vault     seeds of the simulator, owners of objects and eight hosts, two of which may be lost
mail      seeds of the simulator, people who never meet and write to each other by mailboxes, one of which may lie
talk      seeds of the simulator, applications that record in sessions, with little room for what they say
cuts      seeds of the simulator in which the power of owners and hosts fails at random writes, and nothing else; and
          power cuts at the files of sessions: store, log and rings of keys
mutants   bugs planted in the simulator, each of which must be found
ledger    seeds of the ledger's own simulator, 4, 7 or 20 witnesses, as many of whom lie as may; the first of them
          by other Pythons too, which must come to the same traces
ledger-mutants  bugs planted in that, each of which must be found
floods    a member that floods a real mesh, role by role, while honest jobs go on
damages   damages at rest, of what a node leaves on the disk and of its backups, one a round: bits, pages, ends of files
http      a real node asked over HTTP what its OpenAPI document allows and what it does not, --rounds of each operation
links     nodes that call each other over bad networks and busy LoRa channels in virtual time; each call ends once, is
          carried out once at most, and its answer is its own
relays    meshes whose nodes relay for each other, move, begin anew and do harm, in virtual time; the same promises
unplugs   a LoRa modem that is pulled out and plugged in again under traffic, a thousand times of each of four
bluetooth  links over virtual controllers that break, stall and are pulled out, a thousand times, under traffic
configs   damaged configuration files
fuzz      parsers and nodes fed with what no sane peer sends, guided by atheris, --rounds seconds each; --keep has
          tests/corpus grow by what reaches more, and by finds
auctions  hosts that misreport what their work costs, none of whom may gain by it
duty      days of bad traffic over LoRa modems in virtual time, none of which may break a window of airtime
kits      an install kit, made here and handed on from machine to machine in a network of their own, and the demo
image     the image of docker/ built, and its five nodes run, killed, taken down and up again; needs buildah and podman
docs      all that README and guides tell to type, on real nodes
tests     the tests that `test` leaves out, as they take long, and a thousand examples of whatever draws its own
radio-peers  unmodified Reticulum and Meshtastic clients, installed for it, on our emulated modems
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from json import dumps
from pathlib import Path

import msgspec

from offgrid_tools.sim.plan import MAIL_MESH, MARKET_MESH, TALK_MESH, VAULT_MESH
from offgrid_tools.soak.auctions import soak_auctions
from offgrid_tools.soak.bluetooth import soak_bluetooth
from offgrid_tools.soak.configs import soak_configs
from offgrid_tools.soak.cuts import soak_cuts
from offgrid_tools.soak.damages import soak_damages
from offgrid_tools.soak.duty import soak_duty
from offgrid_tools.soak.epochs import Plan as EpochsPlan
from offgrid_tools.soak.epochs import soak_epochs
from offgrid_tools.soak.floods import soak_floods
from offgrid_tools.soak.fuzz import soak_fuzz
from offgrid_tools.soak.http_cases import soak_http
from offgrid_tools.soak.image import soak_image
from offgrid_tools.soak.kills import Plan, soak_kills
from offgrid_tools.soak.kits import soak_kits
from offgrid_tools.soak.ledger import soak_ledger, soak_ledger_mutants
from offgrid_tools.soak.links import soak_links
from offgrid_tools.soak.long_tests import soak_tests
from offgrid_tools.soak.mutants import soak_mutants
from offgrid_tools.soak.radio_peers import soak_radio_peers
from offgrid_tools.soak.relays import soak_relays
from offgrid_tools.soak.seeds import soak_seeds
from offgrid_tools.soak.settling import Plan as SettlingPlan
from offgrid_tools.soak.settling import soak_settling
from offgrid_tools.soak.state_kills import Plan as StateKillsPlan
from offgrid_tools.soak.state_kills import soak_state_kills
from offgrid_tools.soak.toll import Toll
from offgrid_tools.soak.unplugs import soak_unplugs
from offgrid_tools.walks.catalogue import soak_docs

ROUNDS = {
    "kills": 70,
    "state-kills": 200,
    "settling": 100,
    "epochs": 30,
    "sim": 1_000,
    "market": 500,
    "vault": 1_000,
    "talk": 1_000,
    "mail": 1_000,
    "cuts": 1_000,
    "mutants": 100,
    "ledger": 2_000,
    "ledger-mutants": 100,
    "floods": 1,
    "damages": 10_000,
    "http": 200,
    "links": 2_000,
    "relays": 1_000,
    "unplugs": 1_000,
    "bluetooth": 1_000,
    "configs": 20_000,
    "fuzz": 120,
    "auctions": 100_000,
    "duty": 1_000,
    "kits": 1,
    "image": 1,
    "radio-peers": 1,
    "docs": 1,
    "tests": 1,
}


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0, or 1 with every violation said, the seed with it, and the folder kept."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("part", nargs="?", choices=[*ROUNDS, "all"], default="all")
    parser.add_argument("--rounds", type=int, help=f"how often; by part: {ROUNDS}")
    parser.add_argument("--seed", type=int, default=None, help="the first seed; by the clock unless given")
    parser.add_argument("--dir", type=Path, default=None, help="where a mesh of real processes lives, and stays")
    parser.add_argument(
        "--json",
        type=Path,
        default=None,
        help="a file for the figures of `kills`, `state-kills`, `settling`, `epochs` or `damages`",
    )
    parser.add_argument("--keep", action="store_true", help="of `fuzz`: what it comes to is kept in tests/corpus")
    parser.add_argument("--pause", type=float, default=0.0, help="of `kills`: seconds between what a client does")
    parser.add_argument("--receipts", type=int, default=10_000, help="of `settling`")
    parser.add_argument("--hosts", type=int, default=64, help="of `settling`")
    parser.add_argument("--interval", type=int, default=120, help="of settlement, in seconds, of `settling`")
    parser.add_argument(
        "--python", type=Path, action="append", default=[], metavar="PATH",
        help="another Python for `ledger`, with what this one has installed; python3.N on the path unless given",
    )  # fmt: skip
    chosen = parser.parse_args(argv)
    seed = chosen.seed if chosen.seed is not None else time.time_ns() // 1_000_000_000
    parts: dict[str, Callable[[int], list[str]]] = {
        "kills": lambda rounds: told(seed, soak_kills(Plan(seed, rounds, chosen.pause), chosen.dir, say), chosen.json),
        "state-kills": lambda rounds: told(
            seed, soak_state_kills(StateKillsPlan(seed, rounds), chosen.dir, say), chosen.json
        ),
        "settling": lambda rounds: told(
            seed,
            soak_settling(SettlingPlan(seed, rounds, chosen.receipts, chosen.hosts, chosen.interval), chosen.dir, say),
            chosen.json,
        ),
        "epochs": lambda rounds: told(seed, soak_epochs(EpochsPlan(seed, rounds), chosen.dir, say), chosen.json),
        "sim": lambda rounds: soak_seeds(seed, rounds, say),
        "market": lambda rounds: soak_seeds(seed, rounds, say, MARKET_MESH),
        "vault": lambda rounds: soak_seeds(seed, rounds, say, VAULT_MESH),
        "talk": lambda rounds: soak_seeds(seed, rounds, say, TALK_MESH),
        "mail": lambda rounds: soak_seeds(seed, rounds, say, MAIL_MESH),
        "cuts": lambda rounds: soak_cuts(seed, rounds, say),
        "mutants": lambda rounds: soak_mutants(0 if chosen.seed is None else seed, rounds, say),
        "ledger": lambda rounds: soak_ledger(seed, rounds, say, chosen.python),
        "ledger-mutants": lambda rounds: soak_ledger_mutants(0 if chosen.seed is None else seed, rounds, say),
        "floods": lambda rounds: soak_floods(rounds, say, chosen.dir),
        "damages": lambda rounds: told(seed, soak_damages(seed, rounds, chosen.dir, say), chosen.json),
        "http": lambda rounds: soak_http(seed, rounds, chosen.dir, say),
        "links": lambda rounds: soak_links(seed, rounds, say),
        "relays": lambda rounds: soak_relays(seed, rounds, say),
        "unplugs": lambda rounds: soak_unplugs(seed, rounds, say),
        "bluetooth": lambda rounds: soak_bluetooth(seed, rounds, say),
        "configs": lambda rounds: soak_configs(seed, rounds, say),
        "fuzz": lambda rounds: soak_fuzz(seed, rounds, say, keep=chosen.keep),
        "auctions": lambda rounds: soak_auctions(seed, rounds, say),
        "duty": lambda rounds: soak_duty(seed, rounds, say),
        "kits": lambda rounds: soak_kits(rounds, say),
        "image": lambda rounds: soak_image(rounds, say),
        "radio-peers": lambda rounds: soak_radio_peers(rounds, say),
        "docs": lambda rounds: soak_docs(rounds, say),
        "tests": lambda rounds: soak_tests(rounds, say),
    }
    broken: list[str] = []
    for part, run in parts.items():
        if chosen.part in (part, "all"):
            say(f"== {part}, seed {seed}")
            found = run(chosen.rounds or ROUNDS[part])
            for violation in found:
                say(f"VIOLATION in {part}, seed {seed}: {violation}")
            broken += found
    say("no violations" if not broken else f"{len(broken)} violations")
    return 1 if broken else 0


def told(seed: int, toll: Toll, json: Path | None) -> list[str]:
    """What was violated; the figures go to the file."""
    if json is not None:
        json.write_text(dumps({"seed": seed, **msgspec.to_builtins(toll)}, indent=2) + "\n", encoding="utf-8")
    return toll.violations


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
