"""Planted bugs of what looks after things that are kept: audits, repairs, and small ones in rows."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from offgrid_node.protocol.objects import dropping, sources
from offgrid_node.protocol.objects.audits import Audits
from offgrid_node.protocol.objects.hashing import ShardHashes
from offgrid_node.protocol.objects.machine import ObjectsMachine
from offgrid_node.protocol.objects.small import SMALL
from offgrid_node.services.objects import auditing
from offgrid_node.services.objects.auditing import Auditing
from offgrid_node.services.objects.replicas import Replicas
from offgrid_tools.sim.mutants.patches import Mutant, Patch, Sound, a_batch_later, never
from offgrid_tools.sim.plan import VAULT_MESH


class _Worn:
    """Draws the same bytes each time."""

    def randbytes(self, count: int) -> bytes:
        return bytes(count)


def _the_same_nonce(sound: Sound) -> Sound:
    return lambda self, runtime, carrier, trust, rng, *rest: sound(self, runtime, carrier, trust, _Worn(), *rest)


def _the_others(sound: Sound) -> Sound:
    def judge(k: int, n: int, answers: Any) -> Any:
        verdict = sound(k, n, answers)
        return verdict if verdict.whole else replace(verdict, wrong=tuple(sorted({*answers} - {*verdict.wrong})))

    return judge


def _undecided_too(sound: Sound) -> Sound:
    def on_findings(self: Any, findings: Any, now: Any) -> None:
        sound(self, findings, now)
        if not findings.lost:
            self._proved(findings.object_id)

    return on_findings


def _one_factor_wrong(sound: Sound) -> Sound:
    def rows_for(*args: Any) -> Any:
        return [bytes([factors[0] ^ 1, *factors[1:]]) for factors in sound(*args)]

    return rows_for


def _without_a_file(sound: Sound) -> Sound:
    def keep(self: Any, incoming: Any, doubted: Any, brought: Any) -> Any:
        claim = incoming.claim
        rows = [name for name in claim.names if self._row(claim, name) is not None]
        kept = sound(self, incoming, doubted, brought)
        for name in rows:
            self._blobs.delete(name)
        return kept

    return keep


MUTANTS: dict[str, Mutant] = {
    "audit-nonce-repeated": Mutant(
        "an audit takes the answers that hosts gave before",
        (Patch(Auditing, "__init__", _the_same_nonce),),
        VAULT_MESH,
    ),
    "audit-blames-others": Mutant(
        "where answers differ, an audit names those that are right",
        (Patch(auditing, "judge", _the_others),),
        VAULT_MESH,
    ),
    "undecided-forgotten": Mutant(
        "what an audit could not tell counts as proved", (Patch(Audits, "on_findings", _undecided_too),), VAULT_MESH
    ),
    "rebuilt-of-wrong-factors": Mutant(
        "a sum of rows has a wrong factor, and nobody looks at what came of it",
        (Patch(sources, "rows_for", _one_factor_wrong), Patch(ShardHashes, "wrong", never([]))),
        VAULT_MESH,
    ),
    "row-taken-unverified": Mutant(
        "whoever rebuilds a shard vouches for it whatever others have sent for its rows",
        (Patch(ShardHashes, "wrong", never([])),),
        VAULT_MESH,
    ),
    "moved-without-fence": Mutant(
        "a host takes again, under an epoch that is gone, what a later one has laid elsewhere",
        (Patch(dropping, "check_above", never(None)),),
        VAULT_MESH,
    ),
    "row-after-ack": Mutant(
        "a small object's bytes are written a transaction later than the ack of them",
        (Patch(ObjectsMachine, "step", a_batch_later(SMALL)),),
        VAULT_MESH,
    ),
    "row-lost-to-file": Mutant(
        "a row gives way to a file that is not there", (Patch(Replicas, "_keep", _without_a_file),), VAULT_MESH
    ),
}
