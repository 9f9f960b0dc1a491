"""A host's rules: whose jobs it takes, which executors, at what price, how many at a time and a day, and when.

Rules stand in an order. The first that takes an order has it; one that is for it and cannot take it now (its slots or
its day's quota are used up, the price is too low) leaves it to those behind it; one that denies ends the search. What
no rule takes is refused, whatever a broker has awarded: a broker matches by the offers that are built from the rules,
the host judges by the rules themselves. A host without rules has one, of its slots and its price, for everybody.

Names of owners are those of members, so a rule may name somebody who joins later. Hours and days are the machine's
local ones; its offset from UTC is handed in. This node's own local queue asks no rule.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.ids import NODE_ID
from offgrid_node.protocol.jobs.orders import ClaimKey, JobOrder
from offgrid_node.protocol.jobs.post import Post
from offgrid_node.protocol.jobs.prices import price_of
from offgrid_node.protocol.jobs.settings import ANYBODY, JobsSettings, Rule

QUOTAS = "host_quotas"
QUOTAS_MAX = 4_096  # owners, times rules with a quota, that are counted in a day; beyond it their work is refused
OWNERS_MAX = 256  # that one offer names
USES_SHOWN = 20  # of one rule, to the host's owner
DAY_S, DAY_MINUTES = 86_400, 1_440
BUSY = "busy"
UNLIMITED = 2**64
COUNTED_MAX = UNLIMITED - 1  # as much as a row has room for; what is more is not told apart


class Standing(NamedTuple):
    """What a host offers by one rule now. With no `owners` it is for all that no other one of the same executors names,
    but for those that are `barred`; with no slots it says whom the ones behind it are not for."""

    offer_id: int
    executors: tuple[str, ...]
    ask_micro: int
    slots: int
    owners: tuple[str, ...]
    barred: tuple[str, ...] = ()
    barred_until_us: int = 0


class Used(msgspec.Struct):
    """By one owner under one rule today."""

    tokens: int = 0
    jobs: int = 0


class Rules:
    """The judge of orders, and the book of who has used what."""

    def __init__(self, settings: JobsSettings, post: Post) -> None:
        self._settings, self._post = settings, post
        self._rules = settings.rules or (Rule("default", price_micro=settings.price_micro, slots=settings.slots),)
        self._ids: dict[str, set[str]] = {}  # of each name that a rule may say
        self._known: set[str] = set()  # members whose names have been heard since the start
        self._at_work: dict[ClaimKey, str] = {}
        self._busy: Counter[str] = Counter()
        self._timed = any(r.hours or r.tokens_per_day or r.jobs_per_day for r in self._rules)
        self._used: dict[tuple[str, str], Used] = {}
        self._day = 0
        self._stale: list[bytes] = []
        self._judged: tuple[JobOrder, int, Now, Rule | str] | None = None  # the last one, as long as nothing changes

    def load(self, rows: Rows, now: Now) -> None:
        self._day = self._local(now)[0]
        for key, value in rows.scan(QUOTAS):
            day, rule, core = key.decode().split("/")
            if int(day) == self._day:
                self._used[rule, core] = Used(int.from_bytes(value[:8], "big"), int.from_bytes(value[8:], "big"))
            else:
                self._stale.append(key)

    # ---- questions

    def refusal(self, order: JobOrder, price_micro: int, now: Now) -> str:
        """Why no rule takes the order now; empty when one does."""
        verdict = self._judge(order, price_micro, now)
        self._judged = order, price_micro, now, verdict
        return verdict if isinstance(verdict, str) else ""

    def offers(self, now: Now) -> list[Standing]:
        """What stands now, in the order of the rules."""
        day, minute = self._local(now)
        self._turn_day(day, now)
        standings: list[Standing] = []
        denied: set[str] = set()  # to everybody
        for number, rule in enumerate(self._rules, 1):
            executors = tuple(
                label for label in self._settings.executors if covers(rule, label) and label not in denied
            )
            if executors and within(rule, minute):
                standings += self._standing(number, rule, executors, now)
                denied.update(executors if rule.deny and ANYBODY in rule.owners else ())
        return standings

    def describe(self, now: Now) -> Iterator[jobs_pb2.HostRule]:
        """Each rule and its use, for the host's owner; of who uses it, those first that have used most."""
        day, minute = self._local(now)
        self._turn_day(day, now)
        for rule in self._rules:
            said = jobs_pb2.HostRule(name=rule.name, owners=rule.owners, executors=rule.executors, deny=rule.deny)
            said.price_micro, said.slots, said.slots_busy = rule.price_micro, rule.slots, self._busy[rule.name]
            said.jobs_per_day, said.tokens_per_day = rule.jobs_per_day, rule.tokens_per_day
            said.hours, said.holds = "-".join(map(clock, rule.hours)), within(rule, minute)
            mine = [(used, core) for (name, core), used in self._used.items() if name == rule.name]
            mine.sort(key=lambda each: (-each[0].jobs, -each[0].tokens, each[1]))
            for used, core in mine[:USES_SHOWN]:
                said.today.add(core=core, jobs=used.jobs, tokens=used.tokens, used_up=self._is_exhausted(rule, core))
            yield said

    # ---- inputs

    def on_peer_up(self, node_id: str, name: str) -> None:
        """A member may be named by name as well as by id."""
        for ids in self._ids.values():
            ids.discard(node_id)
        self._ids.setdefault(name, set()).add(node_id)
        self._known.add(node_id)

    def take(self, order: JobOrder, price_micro: int, now: Now) -> str:
        """The rule by which the order, which was not refused, is taken on; it counts from now on."""
        judged = self._judged
        if judged is not None and judged[0] is order and judged[1:3] == (price_micro, now):
            verdict = judged[3]
        else:
            verdict = self._judge(order, price_micro, now)
        if isinstance(verdict, str):
            return ""
        self.occupy(order.key, verdict.name)
        if verdict.tokens_per_day or verdict.jobs_per_day:
            used = self._used.setdefault((verdict.name, order.core), Used())
            used.tokens = min(COUNTED_MAX, used.tokens + order.size_tokens)
            used.jobs += 1
            value = used.tokens.to_bytes(8, "big") + used.jobs.to_bytes(8, "big")
            self._post.put_late(QUOTAS, self._row_key(verdict.name, order.core), value, now)
        return verdict.name

    def occupy(self, key: ClaimKey, rule: str) -> None:
        """The attempt has one of the rule's slots until it is `release`d."""
        self.release(key)
        self._judged = None
        self._at_work[key] = rule
        self._busy[rule] += 1

    def release(self, key: ClaimKey) -> None:
        rule = self._at_work.pop(key, None)
        if rule is not None:
            self._judged = None
            self._busy[rule] -= 1

    # ---- inside

    def _judge(self, order: JobOrder, price_micro: int, now: Now) -> Rule | str:
        day, minute = self._local(now)
        self._turn_day(day, now)
        why = ""
        for rule in self._rules:
            if not covers(rule, order.needs):
                continue
            if rule.deny and within(rule, minute) and self._may_be_for(rule, order.core):
                return f"rule {rule.name!r} denies members by name, and it is not known yet what {order.core} is called"
            if not self._is_for(rule, order.core):
                continue
            refusal = self._refusal_of(rule, order, price_micro, minute)
            if not refusal:
                return rule
            if rule.deny and within(rule, minute):
                return refusal
            why = why or refusal
        return why or f"no rule of this host takes {order.needs!r} from {order.core}"

    def _refusal_of(self, rule: Rule, order: JobOrder, price_micro: int, minute: int) -> str:
        if not within(rule, minute):
            return f"rule {rule.name!r} holds from {' to '.join(map(clock, rule.hours))} of this host's day"
        if rule.deny:
            return f"rule {rule.name!r} denies it"
        if price_micro < price_of(rule.price_micro, order.size_tokens):
            return "the price is below this host's offer"
        if rule.slots and self._busy[rule.name] >= rule.slots:
            return f"{BUSY}: rule {rule.name!r} has its {rule.slots} slots in use"
        return self._quota_refusal(rule, order)

    def _quota_refusal(self, rule: Rule, order: JobOrder) -> str:
        if not (rule.jobs_per_day or rule.tokens_per_day):
            return ""
        used = self._used.get((rule.name, order.core))
        if used is None:
            if len(self._used) >= QUOTAS_MAX:
                return f"{QUOTAS_MAX} owners have had work done here today, more are not counted"
            used = Used()
        if rule.jobs_per_day and used.jobs >= rule.jobs_per_day:
            return f"rule {rule.name!r} takes {rule.jobs_per_day} jobs of an owner a day; today's are used up"
        if rule.tokens_per_day and used.tokens + order.size_tokens > rule.tokens_per_day:
            left = rule.tokens_per_day - used.tokens
            return f"rule {rule.name!r} takes {rule.tokens_per_day} tokens of an owner a day; {left} are left for today"
        return ""

    def _standing(self, number: int, rule: Rule, executors: tuple[str, ...], now: Now) -> Iterator[Standing]:
        """What stands by the rule, which holds now."""
        owners = self._named(rule)
        if rule.deny and owners:
            yield Standing(number, executors, 0, 0, owners)
        elif not rule.deny and owners != ():
            slots = min(rule.slots or self._settings.slots, self._settings.slots)
            barred = self._exhausted(rule)
            if owners is not None:
                barred = tuple(core for core in barred if core in owners)
            until_us = self._day_end_us(now) if barred else 0
            yield Standing(number, executors, rule.price_micro, slots, owners or (), barred, until_us)

    def _exhausted(self, rule: Rule) -> tuple[str, ...]:
        """Who has had the day's share under the rule."""
        if not (rule.jobs_per_day or rule.tokens_per_day):
            return ()
        mine = (core for name, core in self._used if name == rule.name)
        return tuple(sorted(core for core in mine if self._is_exhausted(rule, core))[:OWNERS_MAX])

    def _is_exhausted(self, rule: Rule, core: str) -> bool:
        used = self._used.get((rule.name, core))
        return used is not None and (
            used.jobs >= (rule.jobs_per_day or UNLIMITED) or used.tokens >= (rule.tokens_per_day or UNLIMITED)
        )

    def _day_end_us(self, now: Now) -> int:
        """When the day ends here, in UTC; where the clocks change that day, as its offset is now."""
        here_us = now.utc_us + self._settings.utc_offset_s(now.utc_us // 1_000_000) * 1_000_000
        return now.utc_us + DAY_S * 1_000_000 - here_us % (DAY_S * 1_000_000)

    def _named(self, rule: Rule) -> tuple[str, ...] | None:
        """Node ids of those whom the rule is for, as far as they are known; None: all. Where they are too many, who has
        had its share goes unnamed first."""
        if ANYBODY in rule.owners:
            return None
        ids = {node_id for owner in rule.owners for node_id in self._ids_of(owner, deny=rule.deny)}
        if len(ids) > OWNERS_MAX:
            ids = set(sorted(ids, key=lambda node_id: (self._is_exhausted(rule, node_id), node_id))[:OWNERS_MAX])
        return tuple(sorted(ids))

    def _is_for(self, rule: Rule, core: str) -> bool:
        return ANYBODY in rule.owners or any(core in self._ids_of(owner, deny=rule.deny) for owner in rule.owners)

    def _may_be_for(self, rule: Rule, core: str) -> bool:
        """Of a host that has only just begun: whoever is to be denied must not be the quicker."""
        by_name = any(owner != ANYBODY and not NODE_ID.match(owner) for owner in rule.owners)
        return by_name and core not in rule.owners and core not in self._known

    def _ids_of(self, owner: str, *, deny: bool) -> set[str]:
        """A name, or an id itself. A name that two members have is nobody's: it must not be had by taking it, and both
        are denied what it is denied."""
        if NODE_ID.match(owner):
            return {owner}
        ids = self._ids.get(owner, set())
        return ids if len(ids) == 1 or deny else set()

    def _local(self, now: Now) -> tuple[int, int]:
        """The day's number and the minute of the day, here; of no interest to rules without hours and quotas."""
        if not self._timed:
            return 0, 0
        seconds = now.utc_us // 1_000_000
        seconds += self._settings.utc_offset_s(seconds)
        return seconds // DAY_S, seconds // 60 % DAY_MINUTES

    def _turn_day(self, day: int, now: Now) -> None:
        if day != self._day:
            self._stale += [self._row_key(rule, core) for rule, core in self._used]
            self._day, self._used = day, {}
        for key in self._stale:
            self._post.delete_late(QUOTAS, key, now)
        self._stale.clear()

    def _row_key(self, rule: str, core: str) -> bytes:
        return f"{self._day}/{rule}/{core}".encode()


def covers(rule: Rule, label: str) -> bool:
    """Whether the rule is about work that needs this executor: "wasm", "process:*" or "*"."""
    for pattern in rule.executors:  # no generator: of each order it is asked
        if pattern == "*" or pattern == label or (pattern.endswith("*") and label.startswith(pattern[:-1])):
            return True
    return False


def within(rule: Rule, minute: int) -> bool:
    """Whether a minute of the day lies in the rule's hours, which may go past midnight; the last one does not count."""
    if not rule.hours:
        return True
    start, end = rule.hours
    return start <= minute < end if start < end else not end <= minute < start


def clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"
