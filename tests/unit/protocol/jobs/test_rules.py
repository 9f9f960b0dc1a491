"""A host's rules: which one takes an order, what a refusal says, what stands as an offer, and what is left of a day."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from job_bench import OTHER, OWNER, RIVAL, SALT, WORKER, Bench, BrokerBench, HostBench, order_of
from msgspec.structs import replace

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.events import PeerUp
from offgrid_node.protocol.jobs import rules as module
from offgrid_node.protocol.jobs.host import Host
from offgrid_node.protocol.jobs.offering import offers_of
from offgrid_node.protocol.jobs.rules import DAY_MINUTES, QUOTAS, Rules, Standing, covers, within
from offgrid_node.protocol.jobs.settings import JobsSettings, Rule
from offgrid_node.protocol.jobs.verdicts import explain
from offgrid_tools.sim.crypto import SimSigner

HOUR_US = 3_600 * 1_000_000
DAY_US = 24 * HOUR_US
A, B, C = OWNER.node_id, RIVAL.node_id, OTHER.node_id


def at(hour: float, day: int = 100) -> Now:
    return Now(0, int(day * DAY_US + hour * HOUR_US))


NOON = at(12)


class House(Bench):
    """A host's rules and the members that it has heard of: attic (OWNER) and barn (RIVAL)."""

    def __init__(self, *rules: Rule, offset_s: int = 0) -> None:
        super().__init__(WORKER)
        self.settings = JobsSettings(
            signer=WORKER,
            salt=SALT,
            slots=4,
            price_micro=1_000,
            executors=("wasm", "process:wc", "process:sort"),
            rules=rules,
            utc_offset_s=lambda utc_s: offset_s,
        )
        self.restart()

    def restart(self, now: Now = NOON) -> None:
        self.rules = Rules(self.settings, self.post)
        self.rules.load(self.disk, now)
        self.rules.on_peer_up(A, "attic")
        self.rules.on_peer_up(B, "barn")

    def judge(self, core: SimSigner = OWNER, needs: str = "wasm", price: int = 1_000, now: Now = NOON) -> str:
        """The refusal of an order of a million tokens; empty when a rule takes it."""
        order = replace_order(core, needs)
        refusal = self.rules.refusal(order, price, now)
        self.settle()
        return refusal

    def take(self, core: SimSigner = OWNER, job_id: str = "j", now: Now = NOON, tokens: int = 1_000_000) -> str:
        order = order_of(core, job_id)._replace(needs="wasm", size_tokens=tokens)
        taken = self.rules.take(order, 10**9, now)
        self.settle()
        return taken


def replace_order(core: SimSigner, needs: str):  # type: ignore[no-untyped-def]
    return order_of(core)._replace(needs=needs, size_tokens=1_000_000)


def test_without_rules_everybody_is_served_at_the_hosts_price() -> None:
    house = House()
    assert house.judge() == ""
    assert house.judge(price=999) == "the price is below this host's offer"
    assert house.rules.offers(NOON) == [Standing(1, ("wasm", "process:wc", "process:sort"), 1_000, 4, ())]


class TestWhichRule:
    FRIENDS = Rule("friends", owners=("attic",), slots=1)
    ALL = Rule("all", executors=("wasm",), price_micro=500)

    def test_the_first_that_takes_an_order_has_it(self) -> None:
        house = House(self.FRIENDS, self.ALL)
        assert [house.take(job_id="1"), house.take(RIVAL, "2")] == ["friends", "all"]

    def test_one_that_cannot_leaves_it_to_those_behind_it(self) -> None:
        house = House(self.FRIENDS, self.ALL)
        assert [house.take(job_id="1"), house.take(job_id="2")] == ["friends", "all"]

    def test_a_slot_is_free_again_when_its_work_has_ended(self) -> None:
        house = House(self.FRIENDS)
        house.take(job_id="1")
        assert house.judge() == "busy: rule 'friends' has its 1 slots in use"
        house.rules.release((A, "1", 1))
        assert house.judge() == ""

    def test_who_is_not_named_is_not_served(self) -> None:
        assert House(self.FRIENDS).judge(RIVAL) == f"no rule of this host takes 'wasm' from {B}"

    @pytest.mark.parametrize("needs", ["process:wc", "wasm2"])
    def test_what_is_not_named_is_not_done(self, needs: str) -> None:
        assert House(self.ALL).judge(needs=needs) == f"no rule of this host takes {needs!r} from {A}"

    def test_one_that_denies_ends_the_search(self) -> None:
        house = House(Rule("no", owners=("barn",), deny=True), self.ALL)
        assert house.judge(RIVAL) == "rule 'no' denies it"
        assert house.judge() == ""

    def test_one_that_denies_a_name_denies_all_whose_names_are_not_known_yet(self) -> None:
        house = House(Rule("no", owners=("shed",), deny=True), self.ALL)
        assert house.judge(OTHER) == f"rule 'no' denies members by name, and it is not known yet what {C} is called"
        house.rules.on_peer_up(C, "loft")
        assert house.judge(OTHER) == ""
        house.rules.on_peer_up(C, "shed")
        assert house.judge(OTHER) == "rule 'no' denies it"

    def test_one_that_denies_ids_needs_no_names(self) -> None:
        assert House(Rule("no", owners=(A,), deny=True), self.ALL).judge(OTHER) == ""

    def test_each_has_its_price(self) -> None:
        house = House(replace(self.FRIENDS, price_micro=2), self.ALL)
        assert house.judge(price=2) == ""
        assert house.judge(RIVAL, price=499) == "the price is below this host's offer"
        assert house.judge(RIVAL, price=500) == ""

    def test_an_id_names_a_member_as_well(self) -> None:
        house = House(Rule("one", owners=(C,)))
        assert house.judge(OTHER) == ""
        assert house.judge() != ""

    def test_a_member_that_joins_later_is_known_by_its_name_then(self) -> None:
        house = House(Rule("late", owners=("shed",)))
        assert house.judge(OTHER) != ""
        assert house.rules.offers(NOON) == []
        house.rules.on_peer_up(C, "shed")
        assert house.judge(OTHER) == ""
        assert [offer.owners for offer in house.rules.offers(NOON)] == [(C,)]

    def test_a_name_that_two_have_is_nobodys(self) -> None:
        house = House(self.FRIENDS)
        house.rules.on_peer_up(C, "attic")
        assert house.judge() != ""
        assert house.judge(OTHER) != ""

    def test_a_name_that_two_have_is_denied_to_both(self) -> None:
        house = House(Rule("no", owners=("attic",), deny=True), self.ALL)
        house.rules.on_peer_up(B, "attic")
        assert [house.judge(), house.judge(RIVAL)] == ["rule 'no' denies it"] * 2
        assert house.rules.offers(NOON)[0].owners == tuple(sorted((A, B)))


class TestHours:
    NIGHT = Rule("night", hours=(22 * 60, 6 * 60))

    @pytest.mark.parametrize(("hour", "taken"), [(21.99, False), (22, True), (23.9, True), (0, True), (6, False)])
    def test_may_go_past_midnight(self, hour: float, taken: bool) -> None:
        house = House(self.NIGHT)
        assert (house.judge(now=at(hour)) == "") is taken
        assert bool(house.rules.offers(at(hour))) is taken

    def test_are_named_in_the_refusal(self) -> None:
        assert House(self.NIGHT).judge() == "rule 'night' holds from 22:00 to 06:00 of this host's day"

    def test_are_local(self) -> None:
        house = House(self.NIGHT, offset_s=-5 * 3_600)
        assert house.judge(now=at(3)) == ""  # 22:00 there
        assert house.judge(now=at(2)) != ""

    def test_deny_only_while_they_last(self) -> None:
        house = House(replace(self.NIGHT, deny=True), Rule("all"))
        assert house.judge() == ""
        assert house.judge(now=at(23)) == "rule 'night' denies it"

    @given(st.integers(0, DAY_MINUTES - 1), st.integers(0, DAY_MINUTES - 1), st.integers(0, DAY_MINUTES - 1))
    def test_and_those_the_other_way_round_share_the_day(self, start: int, end: int, minute: int) -> None:
        if start != end:
            one, other = Rule("a", hours=(start, end)), Rule("b", hours=(end, start))
            assert within(one, minute) != within(other, minute)


class TestQuotas:
    JOBS = Rule("few", jobs_per_day=2)
    TOKENS = Rule("small", tokens_per_day=2_500_000)

    def test_of_jobs_are_each_owners_own(self) -> None:
        house = House(self.JOBS)
        assert [house.take(job_id=str(n)) for n in range(3)] == ["few", "few", ""]
        assert house.judge() == "rule 'few' takes 2 jobs of an owner a day; today's are used up"
        assert house.judge(RIVAL) == ""

    def test_of_tokens_count_the_orders_size(self) -> None:
        house = House(self.TOKENS)
        assert [house.take(job_id=str(n)) for n in range(3)] == ["small", "small", ""]
        assert house.judge() == "rule 'small' takes 2500000 tokens of an owner a day; 500000 are left for today"
        assert house.take(tokens=500_000) == "small"

    def test_count_no_further_than_a_row_can_say(self) -> None:
        house = House(Rule("few", jobs_per_day=9))
        assert [house.take(job_id=str(n), tokens=2**63) for n in range(3)] == ["few", "few", "few"]
        house.restart()
        assert house.judge() == ""

    def test_begin_anew_with_the_local_day(self) -> None:
        house = House(self.JOBS, offset_s=3_600)
        for number in range(2):
            house.take(job_id=str(number))
        assert house.judge(now=at(22.9)) != ""
        assert house.judge(now=at(23.1)) == ""
        assert list(house.disk.scan(QUOTAS)) == []

    def test_outlive_a_restart_on_the_same_day_alone(self) -> None:
        house = House(self.JOBS)
        for number in range(2):
            house.take(job_id=str(number))
        house.restart()
        assert house.judge() != ""
        house.restart(at(12, 101))
        assert house.judge(now=at(12, 101)) == ""
        assert list(house.disk.scan(QUOTAS)) == []

    def test_of_no_more_owners_than_are_counted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "QUOTAS_MAX", 1)
        house = House(self.JOBS)
        house.take()
        assert house.judge(RIVAL) == "1 owners have had work done here today, more are not counted"
        assert house.judge() == ""

    def test_of_rules_without_any_are_not_counted(self) -> None:
        house = House()
        house.take()
        assert list(house.disk.scan(QUOTAS)) == []


class TestOffers:
    """What a broker is told; it matches by them, and the host judges again."""

    def test_stand_for_each_rule_in_its_order(self) -> None:
        house = House(
            Rule("friends", owners=("attic", "nobody"), executors=("process:*",)), Rule("all", price_micro=7, slots=2)
        )
        assert house.rules.offers(NOON) == [
            Standing(1, ("process:wc", "process:sort"), 0, 4, (A,)),
            Standing(2, ("wasm", "process:wc", "process:sort"), 7, 2, ()),
        ]

    def test_say_whom_they_are_not_for(self) -> None:
        house = House(Rule("no", owners=("barn",), executors=("wasm",), deny=True), Rule("all"))
        assert house.rules.offers(NOON)[0] == Standing(1, ("wasm",), 0, 0, (B,))
        assert Standing(2, house.settings.executors, 0, 4, ()) in house.rules.offers(NOON)

    def test_leave_out_who_has_had_its_share(self) -> None:
        named, everybody = House(Rule("few", owners=("attic", "barn"), jobs_per_day=1)), House(TestQuotas.JOBS)
        named.take()
        assert [(offer.owners, offer.barred) for offer in named.rules.offers(NOON)] == [(tuple(sorted((A, B))), (A,))]
        everybody.take(job_id="1")
        everybody.take(job_id="2")
        assert [(offer.owners, offer.barred) for offer in everybody.rules.offers(NOON)] == [((), (A,))]

    def test_say_until_when_it_has(self) -> None:
        house = House(Rule("few", owners=("attic",), jobs_per_day=1), offset_s=3_600)
        assert house.rules.offers(NOON)[0].barred_until_us == 0
        house.take()
        assert house.rules.offers(NOON)[0].barred_until_us == at(23).utc_us

    def test_name_first_who_has_not_had_its_share(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "OWNERS_MAX", 1)
        house = House(Rule("few", owners=("attic", "barn"), jobs_per_day=1))
        house.take(min(OWNER, RIVAL, key=lambda each: each.node_id))
        assert [offer.owners for offer in house.rules.offers(NOON)] == [(max(A, B),)]

    def test_of_a_rule_that_denies_all_leave_nothing_behind_it(self) -> None:
        house = House(Rule("own", owners=("attic",)), Rule("no", executors=("process:*",), deny=True), Rule("all"))
        assert [(offer.offer_id, offer.executors) for offer in house.rules.offers(NOON)] == [
            (1, ("wasm", "process:wc", "process:sort")),
            (3, ("wasm",)),
        ]

    @pytest.mark.parametrize("core", [OWNER, RIVAL])
    @pytest.mark.parametrize(
        "rules",
        [
            (Rule("free", jobs_per_day=1), Rule("dear", price_micro=500)),
            (Rule("night", hours=(0, 60), slots=1), Rule("no", owners=("attic",), deny=True), Rule("day")),
            (Rule("first", slots=2), Rule("no", owners=("attic",), deny=True)),
            (Rule("no", owners=("attic",), deny=True), Rule("own", owners=("attic",))),
            (Rule("own", owners=("attic",), jobs_per_day=1), Rule("all", price_micro=500)),
            (Rule("no", deny=True, hours=(0, 780)), Rule("all")),
        ],
    )
    def test_are_matched_by_brokers_as_the_host_judges(self, rules: tuple[Rule, ...], core: SimSigner) -> None:
        house, market = House(*rules), BrokerBench()
        for number in range(3):
            offers = offers_of(house.rules.offers(NOON), house.settings)
            market.say(WORKER, seq=number + 1, slots=4, offers=offers)
            takes = house.judge(core) == ""
            assert (market.submit(core, f"j-{number}").kind == jobs_pb2.CLEARING_KIND_AWARDED) is takes
            house.take(core, job_id=f"j-{number}")
            house.rules.release((core.node_id, f"j-{number}", 1))
            market.close(core, f"j-{number}", 1)

    @pytest.mark.parametrize("owners", [("attic",), ("*",)])
    def test_of_which_a_core_has_had_its_share_say_so_to_who_asks(self, owners: tuple[str, ...]) -> None:
        house, market = House(Rule("few", owners=owners, jobs_per_day=1)), BrokerBench()
        house.take()
        market.say(WORKER, seq=1, slots=4, offers=offers_of(house.rules.offers(NOON), house.settings))
        order = order_of(OWNER)
        (said,) = explain(market.broker.book, order, market.broker.group_of(order)).verdicts
        assert said.reason == "this core has used up its day's quota there, until 00:00 UTC"

    def test_never_say_more_slots_than_the_host_has(self) -> None:
        assert House(Rule("all", slots=99)).rules.offers(NOON)[0].slots == 4


class TestWhatTheOwnerSees:
    def test_is_each_rule_and_who_has_used_how_much_of_it(self) -> None:
        house = House(
            Rule("few", owners=("attic",), jobs_per_day=1, tokens_per_day=5), Rule("night", hours=(1_320, 360), slots=2)
        )
        house.take(tokens=3)
        few, night = house.rules.describe(NOON)
        assert (few.name, list(few.owners), few.jobs_per_day, few.tokens_per_day) == ("few", ["attic"], 1, 5)
        assert (few.slots_busy, few.hours, few.holds) == (1, "", True)
        assert [(each.core, each.jobs, each.tokens, each.used_up) for each in few.today] == [(A, 1, 3, True)]
        assert (night.hours, night.holds, night.slots, list(night.today)) == ("22:00-06:00", False, 2, [])

    def test_is_of_today(self) -> None:
        house = House(Rule("few", jobs_per_day=1))
        house.take()
        (few,) = house.rules.describe(at(12, day=101))
        assert list(few.today) == []

    def test_shows_those_first_that_have_used_most(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "USES_SHOWN", 1)
        house = House(Rule("few", jobs_per_day=3))
        for core, job_id in ((OWNER, "1"), (RIVAL, "1"), (RIVAL, "2")):
            house.take(core, job_id)
        (few,) = house.rules.describe(NOON)
        assert [(each.core, each.jobs) for each in few.today] == [(B, 2)]


@given(st.text("ab:*", max_size=4), st.text("ab:", max_size=4))
def test_a_pattern_is_a_label_or_its_beginning(pattern: str, label: str) -> None:
    rule = Rule("r", executors=(pattern,))
    beginning = pattern.removesuffix("*")
    wanted = label.startswith(beginning) if pattern.endswith("*") else label == pattern
    assert covers(rule, label) is wanted


class TestAHostWithRules:
    def bench(self, *rules: Rule, slots: int = 2) -> HostBench:
        bench = HostBench(slots=slots)
        bench.settings = replace(bench.settings, rules=rules)
        bench.host = Host(bench.settings, bench.peers, bench.post)
        bench.host.rules.on_peer_up(A, "attic")
        return bench

    def test_refuses_what_no_rule_takes_whatever_was_awarded(self) -> None:
        bench = self.bench(Rule("friends", owners=("attic",)))
        assert bench.start(RIVAL) == f"no rule of this host takes 'wasm' from {B}"
        assert bench.start(OWNER) == ""

    def test_gives_a_rules_slot_back_once_the_work_has_ended(self) -> None:
        bench = self.bench(Rule("one", slots=1))
        assert bench.start(OWNER) == ""
        assert bench.start(RIVAL).startswith("busy")
        bench.host.cancel((A, "j-1", 1), bench.now)
        assert bench.start(RIVAL, attempt=2).startswith("busy")
        bench.finish(*bench.executions())
        assert bench.start(RIVAL, attempt=3) == ""

    def test_knows_after_a_reload_which_rule_its_work_is_under(self) -> None:
        bench = self.bench(Rule("one", slots=1))
        bench.start(OWNER)
        bench.restart(still_at_work=[(A, "j-1", 1)])
        assert bench.start(RIVAL).startswith("busy: rule 'one'")


def test_the_machine_tells_the_rules_who_is_called_what() -> None:
    from offgrid_node.protocol.jobs.machine import JobsMachine

    bench = Bench(WORKER)
    settings = replace(bench.settings, rules=(Rule("friends", owners=("attic",)),))
    machine = JobsMachine(settings)
    machine.load(bench.disk, NOON)
    machine.step([PeerUp(A, "attic", frozenset({1}))], NOON, bench.rng)
    assert machine.host.rules.refusal(order_of(OWNER), 0, NOON) == ""
