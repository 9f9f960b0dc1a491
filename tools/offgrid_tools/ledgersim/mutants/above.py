"""Planted bugs of ballots above 0: promises, reports, certificates, leaders, clocks."""

from __future__ import annotations

from typing import Any

from offgrid_node.protocol.ledger.aside import Aside
from offgrid_node.protocol.ledger.ballots import Ballots
from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.disputes import NO_CERTIFICATE, Dispute
from offgrid_node.protocol.ledger.recovery import Recovery
from offgrid_node.protocol.ledger.slots import Slot, Tally
from offgrid_tools.ledgersim.mutants.planted import Planted
from offgrid_tools.sim.mutants.ledger import MUTANTS as OF_NODES
from offgrid_tools.sim.mutants.patches import Patch, Sound, never


def _whatever_promised(sound: Sound) -> Sound:
    return lambda self, slot, dispute, promised, holds, free: sound(self, slot, dispute, 0, holds, free)


def _without(field: str) -> Any:
    def breaks(sound: Sound) -> Sound:
        def encode(self: Any) -> Any:
            row = sound(self)
            row.ClearField(field)
            return row

        return encode

    return breaks


def _noop_as_well(sound: Sound) -> Sound:
    def allowed(self: Any, slot: Any, dispute: Any, ballot: int, holds: Any, free: Any) -> list[bytes]:
        found: list[bytes] = sound(self, slot, dispute, ballot, holds, free)
        return [*free(ballot), *found] if found else found

    return allowed


def _any_certificate(sound: Sound) -> Sound:
    def allowed(self: Any, slot: Any, dispute: Any, ballot: int, holds: Any, free: Any) -> list[bytes]:
        if not self._committee.enough(self._beyond(dispute, ballot)):
            return []
        digests = [digest for at, digest in dispute.reports[ballot] if (at, digest) != NO_CERTIFICATE]
        return digests or [*free(ballot)]

    return allowed


def _lowest_of_reports(sound: Sound) -> Sound:
    def allowed(self: Any, slot: Any, dispute: Any, ballot: int, holds: Any, free: Any) -> list[bytes]:
        found: list[bytes] = sound(self, slot, dispute, ballot, holds, free)
        named = sorted(cert for cert in dispute.reports[ballot] if cert != NO_CERTIFICATE)
        return [named[0][1]] if found and named else found

    return allowed


def _of_a_third(sound: Sound) -> Sound:
    def allowed(self: Any, slot: Any, dispute: Any, ballot: int, holds: Any, free: Any) -> Any:
        committee, self._committee = self._committee, _Third(self._committee)
        try:
            return sound(self, slot, dispute, ballot, holds, free)
        finally:
            self._committee = committee

    return allowed


class _Third:
    """A third is enough for it, of reports; of votes it is as it was."""

    def __init__(self, committee: Committee) -> None:
        self.enough = committee.one_is_honest


def _of_all_ballots(sound: Sound) -> Sound:
    def allowed(self: Any, slot: Any, dispute: Any, ballot: int, holds: Any, free: Any) -> Any:
        kept = dict(dispute.reports)
        merged: dict[Any, int] = {}
        for reports in kept.values():
            for certificate, mask in reports.items():
                merged[certificate] = merged.get(certificate, 0) | mask
        dispute.reports[ballot] = merged
        try:
            return sound(self, slot, dispute, ballot, holds, free)
        finally:
            dispute.reports.clear()
            dispute.reports.update(kept)

    return allowed


def _of_the_lowest_ballot(sound: Sound) -> Sound:
    def certificate(self: Any, slot: Any, dispute: Any, holds: Any) -> Any:
        tallies = [*((0, *each) for each in slot.tallies.items()), *[*dispute.all_tallies()][::-1]]
        for ballot, digest, tally in tallies:
            if self._certifies(tally) and (tally.confirmed & self._own_bit or holds(digest)):
                return ballot, digest
        return NO_CERTIFICATE

    return certificate


def _confirms_of_all_ballots(sound: Sound) -> Sound:
    def all_tallies(self: Any) -> Any:
        together: dict[bytes, Tally] = {}
        for _, digest, tally in sound(self):
            known = together.setdefault(digest, Tally())
            known.voted |= tally.voted
            known.confirmed |= tally.confirmed
        for ballot, digest, _ in sound(self):
            yield ballot, digest, together[digest]

    return all_tallies


def _a_third_certifies(sound: Sound) -> Sound:
    return lambda self, tally: bool(tally.confirmed & self._own_bit) or self._committee.one_is_honest(tally.voted)


def _one_is_enough(sound: Sound) -> Sound:
    return lambda self, mask: mask != 0


def _the_first_leads(sound: Sound) -> Sound:
    return lambda self, account, seq, ballot: 1


def _of_the_first_slot(sound: Sound) -> Sound:
    return lambda self, slot: sound(self, Slot(slot.account, 0))


MUTANTS: dict[str, Planted] = {
    "promise-ignored": Planted(
        "a witness confirms at a ballot below its promise", OF_NODES["promise-not-kept"].patches
    ),
    "promise-does-not-bind-votes": Planted(
        "a witness votes at a ballot below its promise", (Patch(Recovery, "_vote", _whatever_promised),)
    ),
    "ballot-0-goes-on": Planted(
        "a witness that has promised goes on at ballot 0", (Patch(Ballots, "has_promised", never(False)),)
    ),
    "promise-unwritten": Planted(
        "what a witness has said above ballot 0 is in no row", OF_NODES["promise-not-durable"].patches
    ),
    "promise-forgotten": Planted(
        "a restarted witness forgets who has reported", (Patch(Dispute, "encode", _without("reporters")),)
    ),
    "votes-above-forgotten": Planted(
        "a restarted witness forgets what was voted above ballot 0", (Patch(Dispute, "encode", _without("tallies")),)
    ),
    "unlock-forgotten": Planted(
        "a restarted witness forgets that an owner asked for the end",
        (Patch(Dispute, "encode", _without("unlocked")),),
    ),
    "vote-unbound": Planted(
        "a witness follows its leader whatever the reports allow",
        OF_NODES["vote-unbound"].patches,
    ),
    "noop-despite-certificate": Planted(
        "a slot may end with nothing though a certificate was reported", (Patch(Recovery, "_allowed", _noop_as_well),)
    ),
    "any-certificate": Planted(
        "any certificate that was reported may be voted for", (Patch(Recovery, "_allowed", _any_certificate),)
    ),
    "lowest-certificate": Planted(
        "of certificates that were reported the lowest is voted for", (Patch(Recovery, "_allowed", _lowest_of_reports),)
    ),
    "reports-of-a-third": Planted(
        "reports of more than a third allow a vote", (Patch(Recovery, "_allowed", _of_a_third),)
    ),
    "reports-of-all-ballots": Planted(
        "a report counts at other ballots too", (Patch(Recovery, "_allowed", _of_all_ballots),)
    ),
    "certificate-hidden": Planted(
        "witnesses report without the certificate that they know",
        (Patch(Recovery, "_certificate", never(NO_CERTIFICATE)),),
    ),
    "old-certificate": Planted(
        "witnesses report the oldest certificate that they know",
        (Patch(Recovery, "_certificate", _of_the_lowest_ballot),),
    ),
    "certificate-unseen": Planted(
        "a certificate that is reported is believed unseen", (Patch(Recovery, "is_seen", never(True)),)
    ),
    "certificate-of-a-third": Planted(
        "votes of more than a third are a certificate", (Patch(Recovery, "_certifies", _a_third_certifies),)
    ),
    "confirms-of-all-ballots": Planted(
        "confirms at different ballots add up", (Patch(Dispute, "all_tallies", _confirms_of_all_ballots),)
    ),
    "reports-not-put-aside": Planted(
        "a report whose certificate is not here yet is dropped",
        (Patch(Aside, "put_report", never(None)),),
        unseen="at the next ballot all report anew, and by then the certificate is here: it costs a ballot",
    ),
    "ballots-not-joined": Planted(
        "a witness that lags joins no ballot",
        (Patch(Recovery, "_joined", never(0)),),
        unseen="its own clock takes it from ballot to ballot: it costs time, less than the judge grants; "
        "test_recovery.py holds it",
    ),
    "one-moves-all": Planted(
        "a single witness makes the others go on to a ballot", (Patch(Committee, "one_is_honest", _one_is_enough),)
    ),
    "clock-stands": Planted("a ballot never has had its time", (Patch(Recovery, "_timed_out", never(0)),)),
    "one-leads-for-ever": Planted(
        "the first witness leads all ballots, also when it lies", (Patch(Committee, "leader_of", _the_first_leads),)
    ),
    "nobody-ends-a-slot": Planted("witnesses say nothing above ballot 0", (Patch(Ballots, "next_word", never(None)),)),
    "noop-of-another-slot": Planted(
        "one no-op stands for all slots of an account", (Patch(Recovery, "noop", _of_the_first_slot),)
    ),
}
