"""storage: objects on ten hosts, beside Tahoe-LAFS on ten servers, turn about; each step alone; who spends the time.

Ours: durable means that a quorum of hosts has fsynced and signed. Tahoe fsyncs nothing. Both encrypt and spread, and
both are asked for the same: 100 MB up and down, down again with as many hosts lost as may be, 1 kB at a time. Whose
turn it is not is stopped (Tahoe's idle processes alone take a sixth of two processors), and before each turn the system
has as much memory at hand as files of either side will fill.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.objects.manifest import Code
from offgrid_tools.bench import profile
from offgrid_tools.bench.audits import READ_BYTES, READ_BYTES_QUICK, measure_audits
from offgrid_tools.bench.carriers import PIECES, PIECES_QUICK, measure_carriers
from offgrid_tools.bench.carriers import ROUNDS as CARRIED
from offgrid_tools.bench.carriers import ROUNDS_QUICK as CARRIED_QUICK
from offgrid_tools.bench.coders import ROUNDS, ROUNDS_QUICK, measure_coders
from offgrid_tools.bench.figures import Figure
from offgrid_tools.bench.groups import Plan
from offgrid_tools.bench.harness import Pairs, Sample, conditions_noted, memory_at_hand, quantile, side_by_side, timed
from offgrid_tools.bench.processes import Meter, own_pid, resident_mib
from offgrid_tools.bench.reconciling import ITEMS, ITEMS_QUICK, SEEDS, SEEDS_QUICK, measure_reconciling
from offgrid_tools.bench.rotation import OBJECTS_MADE, OBJECTS_QUICK, measure_rotation
from offgrid_tools.bench.storage_bounds import MB, TOGETHER, measure_bounds, slowest
from offgrid_tools.bench.storage_ours import OWNER, OurStorage, in_words
from offgrid_tools.bench.storage_tahoe import TahoeGrid

HOSTS = 10
CODE = Code(12, 20)  # on both sides
LARGE_BYTES, LARGE_BYTES_QUICK = 100 * MB, 20 * MB
SMALL_BYTES = 1_000
REPAIR_AFTER_MS = 2_000  # of hosts that are killed for good
PAIRS, PAIRS_QUICK = 3, 1
LOST_READS, LOST_READS_QUICK = 3, 1
SMALL, SMALL_QUICK = 30, 5  # a sample
FROZEN_PUTS, FROZEN_PUTS_QUICK = 60, 10
WATCHED_HOSTS = 2  # that py-spy looks at: each look stops a process, and there are two processors
CPU = "cpu_ms_per_mb_"
MEMORY_FACTOR = 5  # so many bytes of memory a put of ours takes from the system for each of its own

FLOORS: profile.Rules = (
    ("seal and open", ("offgrid_node/keys/stripes.py",)),
    ("row digests", ("blake3", "stripe_digest (", "offgrid_node/protocol/merkle.py", "digest_of (")),
    ("possession", ("Possession.add", "add (offgrid_node/protocol/objects/shards.py")),
    (
        "digest of the plaintext",
        ("add (offgrid_node/services/objects/uploads.py", "_upload (offgrid/client/objects.py"),
    ),
    ("code", ("offgrid_node/coding/", "isal", "zfec")),
    ("files", ("offgrid_node/storage/blobs.py",)),
    *(rule for rule in profile.RULES if rule[0] not in ("signing and digests", "executors")),
)
"""As profile.RULES, with a put's own work apart."""


def measure(plan: Plan) -> list[Figure]:
    """All figures of the group."""
    size = plan.rounds(LARGE_BYTES, LARGE_BYTES_QUICK)
    plan.say(f"storage: each step of a put alone, {in_words(CODE)}")
    bounds = measure_bounds(plan.folder, CODE, size, HOSTS)
    figures = [Figure(f"bound_{name}_mb_per_s", rate) for name, rate in bounds.items()]
    figures += measure_coders(plan.rounds(ROUNDS, ROUNDS_QUICK))
    figures += measure_carriers(plan.rounds(PIECES, PIECES_QUICK), plan.rounds(CARRIED, CARRIED_QUICK))
    figures += measure_audits(plan.rounds(3, 1), plan.rounds(READ_BYTES, READ_BYTES_QUICK))
    figures += measure_rotation(plan.rounds(OBJECTS_MADE, OBJECTS_QUICK))
    figures += measure_reconciling(plan.rounds(ITEMS, ITEMS_QUICK), plan.rounds(SEEDS, SEEDS_QUICK))
    plan.say(f"storage: starting an owner and {HOSTS} hosts ({in_words(CODE)})")
    with OurStorage(plan.folder / "ours", HOSTS, CODE) as ours:
        absent = TahoeGrid.missing()
        if absent:
            plan.say(f"storage: without {TahoeGrid.name}: {absent}")
        else:
            plan.say(f"storage: starting {TahoeGrid.name}, {HOSTS} servers ({in_words(CODE)})")
            code = CODE.needed, CODE.total
            with TahoeGrid(plan.folder / "tahoe", HOSTS, *code) as theirs:
                figures += beside(plan, ours, theirs, size)
        figures += alone(plan, ours, size, bounds)
    return [*figures, *repaired(plan, size, figures)]


def beside(plan: Plan, ours: OurStorage, theirs: TahoeGrid, size: int) -> list[Figure]:
    """Ours and Tahoe's turn about, the other at rest; Tahoe's last, since its servers are lost for good."""
    capabilities, objects = list[tuple[str, bytes]](), list[tuple[str, bytes]]()

    def put_theirs() -> float:
        data = os.urandom(size)
        took = timed(lambda: capabilities.append((theirs.put(data), data)))
        return size / MB / took

    def put_ours() -> float:
        data = os.urandom(size)
        made = list[str]()
        took = timed(lambda: made.append(ours.put(data).object_id))
        objects.append((made[0], data))
        ours.wait_spread(made[0])  # what is still on its way must not run into the other's turn
        return size / MB / took

    pairs_wanted = plan.rounds(PAIRS, PAIRS_QUICK)
    plan.say(f"storage: {size // MB} MB up and down, ours and {theirs.name} turn about")
    with conditions_noted(plan.folder) as conditions:
        up = turn_about(plan.folder, size, ours, theirs, put_ours, put_theirs, pairs_wanted)
        down = turn_about(
            plan.folder,
            size,
            ours,
            theirs,
            lambda: size / MB / read(ours.get, *objects[-1]),
            lambda: size / MB / read(theirs.get, *capabilities[-1]),
            pairs_wanted,
        )
        plan.say(f"storage: {SMALL_BYTES} bytes at a time, turn about")
        count = plan.rounds(SMALL, SMALL_QUICK)
        small = turn_about(
            plan.folder,
            SMALL_BYTES,
            ours,
            theirs,
            lambda: small_ms(ours.put, count),
            lambda: small_ms(theirs.put, count),
            pairs_wanted,
        )
    note = f"{up.spread}; {conditions}"
    figures = [
        Figure("put_mb_per_s", up.our_median, theirs.name, up.their_median, note),
        Figure("put_vs_tahoe", up.ratio, f"{theirs.name}, MB/s", up.their_median, note),
        Figure("get_mb_per_s", down.our_median, theirs.name, down.their_median, down.spread),
        Figure("put_1kb_p50_ms", small.our_median, theirs.name, small.their_median, small.spread),
        Figure("put_1kb_p50_vs_tahoe", small.ratio, f"{theirs.name}, ms", small.their_median, small.spread),
    ]
    return [*figures, *with_hosts_lost(plan, ours, theirs, objects[-1], capabilities[-1])]


def with_hosts_lost(
    plan: Plan, ours: OurStorage, theirs: TahoeGrid, mine: tuple[str, bytes], other: tuple[str, bytes]
) -> list[Figure]:
    rounds, size = plan.rounds(LOST_READS, LOST_READS_QUICK), len(mine[1])
    with ours.at_rest():
        verify_s = timed(lambda: theirs.verify(other[0]))
    with ours.lost(mine[0]) as lost:
        plan.say(f"storage: down again with {lost} hosts lost, and with {theirs.losable_servers()} servers")
        theirs.kill(theirs.losable_servers())
        down = turn_about(
            plan.folder,
            size,
            ours,
            theirs,
            lambda: size / MB / read(ours.get, *mine),
            lambda: size / MB / read(theirs.get, *other),
            rounds,
        )
    plan.say(f"storage: {theirs.name} repairs what its lost servers held")
    rss = resident_mib(theirs.client_pid)
    with ours.at_rest():
        repair_s = timed(lambda: theirs.repair(other[0]))
    note = f"{lost} of {HOSTS} hosts lost, {theirs.losable_servers()} of {HOSTS} servers; {down.spread}"
    return [
        Figure("get_lost_mb_per_s", down.our_median, theirs.name, down.their_median, note),
        Figure("get_lost_vs_tahoe", down.ratio, f"{theirs.name}, MB/s", down.their_median, note),
        Figure("tahoe_verify_s", verify_s, note=f"{size // MB} MB"),
        Figure("tahoe_repair_s", repair_s, note=f"{size // MB} MB, what {theirs.losable_servers()} servers held"),
        Figure("tahoe_client_rss_mb", rss),
    ]


def turn_about(
    folder: Path, size: int, ours: OurStorage, theirs: TahoeGrid, our_turn: Sample, their_turn: Sample, pairs: int
) -> Pairs:
    """As `side_by_side`, with objects of `size`; whose turn it is not does nothing."""

    def with_rest(other: Callable[[], AbstractContextManager[None]], turn: Sample) -> Sample:
        def sampled() -> float:
            with other():
                memory_at_hand(folder, MEMORY_FACTOR * size)
                return turn()

        return sampled

    return side_by_side(with_rest(theirs.at_rest, our_turn), with_rest(ours.at_rest, their_turn), pairs)


def alone(plan: Plan, ours: OurStorage, size: int, bounds: Mapping[str, float]) -> list[Figure]:
    """What needs no other beside it: against the bounds of this very run, a frozen host, processor time."""
    plan.say(f"storage: {size // MB} MB by themselves, until durable and until spread")
    durable, spread, spent = list[float](), list[float](), dict[str, list[float]]()
    for _ in range(plan.rounds(PAIRS, PAIRS_QUICK)):
        data, meter = os.urandom(size), Meter({"client": own_pid(), **ours.pids})
        ids = list[str]()
        memory_at_hand(plan.folder, MEMORY_FACTOR * size)
        durable.append(timed(lambda data=data, ids=ids: ids.append(ours.put(data).object_id)))  # type: ignore[misc]
        spread.append(durable[-1] + timed(lambda ids=ids: ours.wait_spread(ids[0])))  # type: ignore[misc]
        used = meter.read()
        hosts = sum(seconds for name, seconds in used.items() if name not in ("client", OWNER))
        for role, seconds in (("client", used["client"]), ("owner", used[OWNER]), ("hosts", hosts)):
            spent.setdefault(role, []).append(1000 * seconds * MB / size)
    step, least = slowest(bounds)
    rate, together = size / MB / statistics.median(durable), bounds[TOGETHER]
    figures = [
        Figure("put_vs_bound", rate / least, f"{step} alone, MB/s", least, in_words(ours.code)),
        Figure("put_vs_bound_together", rate / together, "all steps, MB/s", together, in_words(ours.code)),
        Figure("put_until_spread_mb_per_s", size / MB / statistics.median(spread), note=in_words(ours.code)),
        *(Figure(f"{CPU}{role}", statistics.median(values)) for role, values in spent.items()),
    ]
    if plan.profile:
        add_profile(plan, ours, size, {role: statistics.median(values) for role, values in spent.items()})
    return [*figures, *audited(plan, ours, size), *with_one_frozen(plan, ours)]


def audited(plan: Plan, ours: OurStorage, size: int) -> list[Figure]:
    """One object, all of whose shards are read at their hosts and nowhere else. Raises RuntimeError if it is not found
    whole."""
    plan.say(f"storage: an audit of {size // MB} MB")
    object_id = ours.put(os.urandom(size)).object_id
    ours.wait_spread(object_id)
    meter, answers = Meter(ours.pids), list[objects_pb2.AuditObjectResponse]()
    took_s = timed(lambda: answers.append(ours.audit(object_id)))
    used = meter.read()
    hosts_s = sum(seconds for name, seconds in used.items() if name != OWNER)
    if {host.outcome for host in answers[0].hosts} != {objects_pb2.AUDIT_OUTCOME_WHOLE} or answers[0].read_bytes:
        raise RuntimeError(f"{object_id} was not found whole: {answers[0]}")
    note = f"{answers[0].traffic_bytes} bytes of questions and answers"
    return [
        Figure("audit_s", took_s, note=note),
        Figure("audit_cpu_ms_per_mb_hosts", 1_000 * hosts_s * MB / size, note="of the object, 20 shards of it"),
    ]


def repaired(plan: Plan, size: int, known: Sequence[Figure]) -> list[Figure]:
    """One object on a mesh of its own, of which nothing else is to be mended."""
    theirs_s = next((figure.value for figure in known if figure.name == "tahoe_repair_s"), None)
    with OurStorage(plan.folder / "mended", HOSTS, CODE, repair_after_ms=REPAIR_AFTER_MS) as ours:
        plan.say(f"storage: {size // MB} MB, hosts lost for good, what they held rebuilt at others")
        object_id = ours.put(os.urandom(size)).object_id
        ours.wait_spread(object_id)
        found = ours.repair(object_id)
    traffic = found.pulled_bytes * CODE.needed / (found.shards * size)
    note = f"{found.shards} shards of {in_words(CODE)}, {found.owner_bytes} bytes into the owner"
    figures = [Figure("repair_s", found.took_s, note=note), Figure("repair_traffic_shards", traffic, note=note)]
    if theirs_s is not None:
        figures.append(Figure("repair_vs_tahoe", found.took_s / theirs_s, f"{TahoeGrid.name}, s", theirs_s))
    return figures


def with_one_frozen(plan: Plan, ours: OurStorage) -> list[Figure]:
    if sys.platform == "win32":
        plan.say("storage: this system has no SIGSTOP; nothing is measured with a frozen host")
        return []
    count = plan.rounds(FROZEN_PUTS, FROZEN_PUTS_QUICK)
    plan.say(f"storage: {count} puts of {SMALL_BYTES} bytes with one host frozen from the first on")
    with ours.frozen():
        times = [1000 * timed(lambda: ours.put(os.urandom(SMALL_BYTES))) for _ in range(count)]
    note = f"p50 {quantile(times, 0.5):.0f} ms, first {times[0]:.0f} ms"
    return [Figure("put_1kb_frozen_most_ms", max(times), note=note)]


def add_profile(plan: Plan, ours: OurStorage, size: int, ms_per_mb: dict[str, float]) -> None:
    """Where a put's processor time goes, by floor; what cannot be looked at is said, and costs no figure."""
    seconds = plan.rounds(profile.SECONDS, profile.SECONDS_QUICK)
    hosts = [name for name in ours.pids if name != OWNER][:WATCHED_HOSTS]
    watched = {"client": own_pid(), **{name: ours.pids[name] for name in (OWNER, *hosts)}}
    plan.say(f"storage: profile of {seconds} s")

    def work() -> None:
        ours.wait_spread(ours.put(os.urandom(size)).object_id)

    try:
        counts = profile.profile(watched, plan.folder, seconds, work, FLOORS)
    except profile.CannotLook as refused:
        plan.say(f"storage: no profile: {refused}")
        return
    merged = {"client": counts["client"], OWNER: counts[OWNER]}
    merged["hosts"] = sum((counts[name] for name in hosts), start=Counter[str]())
    us_per_mb = {role: 1000 * value for role, value in ms_per_mb.items()}
    plan.tables["storage profile"] = profile.table(merged, us_per_mb, seconds * max(1, len(hosts)), FLOORS, "µs a MB")


def read(get: Callable[[str], bytes], wanted: str, data: bytes) -> float:
    """Seconds; raises RuntimeError when something else comes back."""
    came = list[bytes]()
    took = timed(lambda: came.append(get(wanted)))
    if came[0] != data:
        raise RuntimeError(f"{wanted} came back as something else")
    return took


def small_ms(put: Callable[[bytes], object], count: int) -> float:
    """The middle one of so many, one after another."""
    return statistics.median(1000 * timed(lambda: put(os.urandom(SMALL_BYTES))) for _ in range(count))
