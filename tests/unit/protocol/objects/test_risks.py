"""How many objects the loss of hosts has ended or may end next: one rule, counted as things change."""

from __future__ import annotations

from random import Random

import pytest
from msgspec.structs import replace
from object_world import Chaos, HostSpec, World
from seeds import seeds

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.objects import risks
from offgrid_node.protocol.objects.machine import ObjectsMachine
from offgrid_node.protocol.objects.risks import FINDING_MS, KINDS_MAX, WALK_ROWS, Kind, Risk, Told
from offgrid_node.protocol.objects.settings import REPAIR_AFTER_MS, ObjectsSettings
from offgrid_node.protocol.objects.tables import OBJECTS
from offgrid_node.protocol.quorum.records import NOBODY, Epoch

WELL = Told()


def world(hosts: int, **more: object) -> World:
    home = World([HostSpec() for _ in range(hosts)], **more)  # type: ignore[arg-type]
    home.meet(*range(hosts))
    home.run(1_000)
    return home


def told(home: World) -> Told | None:
    return home.machine.risks(home.now())


def counts(home: World) -> tuple[int, int, int]:
    """Gone, at risk, degraded."""
    found = told(home)
    assert found is not None
    return found.gone, found.at_risk, found.degraded


def kind(*held: int, needed: int = 1, wanted: int = 0, spared: bool = True, local: bool = False) -> Kind:
    return Kind(tuple((f"h{n}", parts) for n, parts in enumerate(held)), needed, wanted or sum(held), spared, local)


@pytest.mark.parametrize(
    ("lies", "away", "risk"),
    [
        (kind(1, 1, 1), 0, Risk.NONE),
        (kind(1, 1, 1), 1, Risk.DEGRADED),
        (kind(1, 1, 1), 2, Risk.AT_RISK),
        (kind(1, 1, 1), 3, Risk.GONE),
        (kind(1, spared=False), 0, Risk.NONE),  # one copy was the wish
        (kind(1, spared=False), 1, Risk.GONE),
        (kind(1, wanted=2), 0, Risk.AT_RISK),
        (kind(1, 1, local=True), 2, Risk.DEGRADED),  # this node has it too
        (kind(3, 3, 2, 2, 2, needed=8), 0, Risk.NONE),
        (kind(2, 2, 2, 3, 3, needed=8), 1, Risk.AT_RISK),  # 10 are left, and the next host may take 3
        (kind(2, 2, 2, 2, 2, needed=6), 1, Risk.DEGRADED),
        (kind(3, 3, 2, 2, 2, needed=10), 1, Risk.GONE),
    ],
)
def test_an_object_is_judged_by_what_living_hosts_keep_of_it(lies: Kind, away: int, risk: Risk) -> None:
    dead = {f"h{n}" for n in range(away)}
    assert lies.risk(lambda node_id: node_id not in dead) == risk


class TestCopies:
    def test_each_loss_of_a_host_is_told_at_once_and_a_return_takes_it_back(self) -> None:
        home = world(3)
        first, second = home.put(1), home.put(2)
        home.run(5_000)
        assert told(home) == WELL
        seen = []
        for place in range(3):
            home.lose(place)
            seen.append(counts(home))
        assert seen == [(0, 0, 2), (0, 2, 0), (2, 0, 0)]
        lost = told(home)
        assert lost is not None
        assert lost.gone_ids == tuple(sorted((first, second)))
        assert lost.away == tuple(sorted(host.node_id for host in home.hosts))
        for place in range(3):
            home.return_(place)
        assert told(home) == WELL

    def test_it_is_summed_anew_only_when_a_host_or_an_object_has_changed(self) -> None:
        home = world(3, copies=2)
        home.put(0)
        home.run(5_000)
        before = told(home)
        home.run(60_000)
        assert told(home) is before
        home.put(1)
        home.run(5_000)
        assert told(home) is not before
        for place in range(2):
            home.lose(place)
        assert counts(home) != (0, 0, 0)

    def test_each_object_says_its_own_risk(self) -> None:
        home = world(3)
        first = home.put(1)
        home.run(5_000)
        home.lose(0)
        home.lose(1)
        assert home.machine.risk(home.object(first), home.now()) is Risk.AT_RISK
        home.known.clear()
        home.restart_owner()
        assert home.machine.risk(home.object(first), home.now()) is Risk.NONE, "hosts are still being found"

    def test_a_wish_for_one_copy_is_no_risk_until_it_is_gone(self) -> None:
        home = world(1, copies=1)
        home.put(1, 1_000)
        home.run(5_000)
        assert told(home) == WELL
        home.lose(0)
        assert counts(home) == (1, 0, 0)

    def test_what_is_on_its_way_is_not_counted_here(self) -> None:
        home = world(1)
        home.put(1)
        home.run(5_000)
        assert home.machine.outbox_depth == 1
        home.lose(0)
        assert told(home) == WELL

    def test_fewer_hosts_than_copies_wanted_are_no_loss(self) -> None:
        home = world(2)
        home.put(1)
        home.run(5_000)
        assert told(home) == WELL

    def test_a_deleted_object_is_counted_no_more(self) -> None:
        home = world(3)
        object_id = home.put(1)
        home.run(5_000)
        home.lose(0)
        home.lose(1)
        assert counts(home) == (0, 1, 0)
        home.delete(object_id)
        assert told(home) == WELL

    def test_once_others_have_it_the_loss_is_over(self) -> None:
        home = world(4)
        object_id = home.put(1)
        home.run(5_000)
        holder = next(n for n, host in enumerate(home.hosts) if host.node_id in home.holders(object_id))
        home.lose(holder)
        assert counts(home) == (0, 0, 1)
        home.run(REPAIR_AFTER_MS + 60_000)
        assert told(home) == WELL


class TestCoded:
    def test_it_is_at_risk_once_one_more_host_ends_it(self) -> None:
        home = world(5, code=(3, 5))
        home.put(1)
        home.run(5_000)
        seen = [counts(home)]
        for place in range(3):
            home.lose(place)
            seen.append(counts(home))
        assert seen == [(0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0)]

    def test_what_never_promised_to_survive_a_host_is_no_risk(self) -> None:
        home = world(1, code=(3, 5))
        home.put(1, 1_000)
        home.run(5_000)
        assert told(home) == WELL
        home.lose(0)
        assert counts(home) == (1, 0, 0)


class TestAfterAStart:
    def test_nothing_is_said_before_hosts_could_be_found(self) -> None:
        home = world(3)
        home.put(1)
        home.run(5_000)
        home.known.clear()
        home.restart_owner()
        assert told(home) is None
        home.meet(0, 1, 2)
        assert told(home) == WELL

    def test_hosts_that_are_not_found_in_time_are_away(self) -> None:
        home = world(3)
        home.put(1)
        home.run(5_000)
        home.lose(0)
        home.lose(1)
        home.restart_owner()
        assert told(home) is None
        home.now_ms += FINDING_MS
        assert counts(home) == (0, 1, 0)

    def test_rows_are_walked_over_a_page_at_a_time_and_what_changes_meanwhile_counts_once(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert WALK_ROWS == 256
        monkeypatch.setattr(risks, "WALK_ROWS", 4)
        home = world(3)
        made = sorted(home.put(number) for number in range(10))
        home.run(5_000)
        assert len(home.machine._risks._batch) < len(made), "no more is remembered than one batch wrote"
        home.lose(0)
        home.restart_owner()
        assert told(home) is None
        home.delete(made[0])  # which the walk has passed
        home.delete(made[9])  # which it comes to
        home.run(1_000)
        home.now_ms += FINDING_MS
        assert counts(home) == (0, 0, 8)


def recounted(home: World) -> Told | None:
    """By a machine that has just read the rows, with the same hosts alive."""
    fresh = ObjectsMachine(ObjectsSettings(home.owner.signer, b"s" * 16, copies=home.copies))
    fresh._risks._hosts = home.machine.hosts
    fresh.load(home.owner.store, home.now())
    while fresh._risks.deadline_ms() is not None:
        fresh._risks._page(home.now())
    fresh._risks._found_ms = 0
    return fresh.risks(home.now())


@pytest.mark.parametrize("seed", seeds(12))
def test_what_is_counted_as_it_changes_is_what_the_rows_say(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(risks, "WALK_ROWS", 3)
    draw, code = Random(seed), (2, 4) if seed % 2 else None
    home = World([HostSpec() for _ in range(5)], Chaos(0.1, 0.1, 50), copies=2, code=code, seed=seed)
    home.meet(*range(5))
    away: set[int] = set()
    made: list[str] = []
    for number in range(40):
        match draw.randrange(6):
            case 0 | 1:
                made.append(home.put(number, 1_000))
            case 2 if made:
                home.delete(made.pop(draw.randrange(len(made))))
            case 3 if len(away) < 4:
                away.add(place := draw.choice([n for n in range(5) if n not in away]))
                home.lose(place)
            case 4 if away:
                home.return_(away.pop())
            case 5:
                home.restart_owner()
        home.run(draw.choice((1, 10, 500, 20_000)))
        if (seen := told(home)) is not None:
            expected = recounted(home)
            assert expected is not None
            assert (seen.gone, seen.at_risk, seen.degraded) == (expected.gone, expected.at_risk, expected.degraded)
            known = {row.decode() for row, _ in home.owner.store.scan(OBJECTS)}
            assert {*seen.gone_ids, *seen.at_risk_ids} <= known


def test_more_kinds_than_are_counted_are_said_not_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    assert KINDS_MAX == 10_000
    monkeypatch.setattr(risks, "KINDS_MAX", 4)
    home = world(7)
    made = [home.put(number) for number in range(16)]
    home.run(5_000)
    found = told(home)
    assert found is not None
    assert found.unjudged
    for object_id in made[2:]:
        home.delete(object_id)
    home.run(1_000)
    assert told(home) == WELL
    home.lose(0)
    expected, found = recounted(home), told(home)
    assert found == expected


def test_shards_that_lie_nowhere_are_wanted_all_the_same() -> None:
    home = world(5, code=(3, 5))
    row = home.object(home.put(1))
    home.run(5_000)
    row = home.object(row.object.object_id)
    whole = risks.kind_of(row)
    assert whole is not None
    epoch = Epoch.decode(row.epoch.body)
    row.epoch.body = replace(epoch, layout=(*epoch.layout[:4], NOBODY)).encode()
    without = [ack for ack in row.object.acks if 4 not in ack.shards]
    del row.object.acks[:]
    row.object.acks.extend(without)
    lacking = risks.kind_of(row)
    assert lacking is not None
    assert [each.risk(lambda _: True) for each in (whole, lacking)] == [Risk.NONE, Risk.DEGRADED]


def test_segments_of_the_journal_are_its_own_to_tell_of() -> None:
    row = objects_pb2.ObjectRow()
    row.object.state = objects_pb2.OBJECT_STATE_DURABLE
    row.object.manifest.segment.body = b"x"
    assert risks.kind_of(row) is None
