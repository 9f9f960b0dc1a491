"""Audits between an owner and its hosts: what is whole is verified in a few bytes, what is not is found, named, and
brought anew; whoever is silent keeps nobody else from being told."""

from __future__ import annotations

from typing import Any

import pytest
from bulk_world import Letter, Node, World

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import Exhausted, FailedPrecondition, Fault, InvalidRequest, OutcomeUnknown
from offgrid_node.protocol.events import CORE
from offgrid_node.protocol.objects.audit import ANSWER_BYTES, NAME_BYTES, NONCE_BYTES
from offgrid_node.protocol.objects.audits import FIRST_MS, TOGETHER_MAX
from offgrid_node.protocol.objects.commands import Audited as Told
from offgrid_node.protocol.objects.commands import AuditSoon, Findings
from offgrid_node.protocol.objects.inventory import inventory_key
from offgrid_node.protocol.objects.manifest import OBJECT_ID_BYTES, object_id_bytes, object_id_from
from offgrid_node.protocol.objects.tables import KEPT, OBJECTS
from offgrid_node.protocol.quorum.records import Epoch
from offgrid_node.services.caller import Caller, Kind
from offgrid_node.services.objects import proving
from offgrid_node.services.objects.auditing import MISSING, SILENT, UNDECIDED, WHOLE, WRONG
from offgrid_node.storage.store import Batch

DATA = bytes(range(256)) * 3 + b"and a little more"
HOUR_MS = 3_600_000
NONCE = b"n" * NONCE_BYTES


class Audited:
    """DATA at `hosts` hosts, as copies or as 2 of 5 shards, its owner's own copy dropped."""

    def __init__(self, hosts: int = 5, *, code: tuple[int, int] | None = (2, 5)) -> None:
        self.world = World(hosts)
        self.owner, self.hosts = self.world.owner, self.world.hosts
        self.object_id = self.owner.put(DATA, name="data", required_milli=1_000, code=code).object_id
        self.world.pass_ms(1_000)
        self.world.log.clear()

    @property
    def info(self) -> objects_pb2.Object:
        return self.owner.info(self.object_id)

    def holder(self, shard: int) -> Node:
        """Of a shard; of copies, the host that is named so far down."""
        acks = self.info.acks
        if self.info.shards_total:
            return self.world.by_id[next(ack.node_id for ack in acks if shard in ack.shards)]
        return self.world.by_id[acks[shard].node_id]

    def blob(self, shard: int) -> tuple[Node, str]:
        name = f"{self.object_id}.{shard}" if self.info.shards_total else self.object_id
        return self.holder(shard), name

    def flip(self, shard: int) -> Node:
        node, name = self.blob(shard)
        node.blobs._kept[name].data[0] ^= 1
        return node

    def audit(self) -> objects_pb2.AuditObjectResponse:
        request = objects_pb2.AuditObjectRequest(object=self.object_id)
        answer: objects_pb2.AuditObjectResponse = self.owner.ask("AuditObject", request)
        return answer

    def outcomes(self, answer: objects_pb2.AuditObjectResponse) -> dict[str, int]:
        return {host.node_id: host.outcome for host in answer.hosts}


def ask(count: int = 1, nonce: bytes = NONCE) -> objects_pb2.AuditReplicasRequest:
    names = b"".join(bytes([number]) * NAME_BYTES for number in range(count))
    return objects_pb2.AuditReplicasRequest(question=nonce + names)


def question(object_id: str) -> objects_pb2.AuditReplicasRequest:
    return objects_pb2.AuditReplicasRequest(question=NONCE + object_id_bytes(object_id)[:NAME_BYTES])


def test_what_is_lost_is_brought_again_though_another_host_comes_in_the_same_step() -> None:
    """Then the object is looked at before its next epoch is there: by the last one all was well."""
    audited = Audited(3, code=None)
    row = objects_pb2.ObjectRow.FromString(audited.owner.store.get(OBJECTS, audited.object_id.encode()) or b"")
    before, loser = Epoch.decode(row.epoch.body).epoch, audited.hosts[0]
    findings = Findings(audited.object_id, before, (), ((loser.node_id, (0,)),))
    audited.owner.runtime.deliver("objects", Told((findings,)))
    audited.owner.meet(audited.hosts[1])
    audited.world.settle()
    row = objects_pb2.ObjectRow.FromString(audited.owner.store.get(OBJECTS, audited.object_id.encode()) or b"")
    assert Epoch.decode(row.epoch.body).epoch == before + 1


class TestWhole:
    @pytest.mark.parametrize("code", [(2, 5), None])
    def test_it_is_verified_without_a_byte_of_it(self, code: tuple[int, int] | None) -> None:
        audited = Audited(code=code)
        assert not audited.info.local
        assert not audited.info.verified_us
        answer = audited.audit()
        assert {*audited.outcomes(answer).values()} == {WHOLE}
        assert answer.read_bytes == 0
        assert (audited.owner.auditing.wrong_shards, audited.owner.auditing.read_bytes) == (0, 0)
        assert {*audited.world.log} == {"AuditReplicas"}
        assert audited.info.verified_us
        assert all(ack.verified_us for ack in audited.info.acks)

    def test_the_schedule_asks_each_host_once_for_many_objects(self) -> None:
        audited = Audited(code=None)
        others = [audited.owner.put(bytes([n]) * 40, required_milli=1_000).object_id for n in range(3)]
        audited.world.pass_ms(FIRST_MS)
        for object_id in (audited.object_id, *others):
            audited.owner.runtime.deliver("objects", AuditSoon(object_id))
        audited.world.settle()
        audited.world.log.clear()
        audited.world.pass_ms(10_000)
        assert audited.world.log.count("AuditReplicas") <= len(audited.hosts)
        assert all(audited.owner.info(object_id).verified_us for object_id in (audited.object_id, *others))


class TestWrong:
    @pytest.mark.parametrize("shard", range(5))
    def test_one_bit_is_found_named_and_mended_and_nobody_reads_for_it(self, shard: int) -> None:
        audited = Audited()
        liar = audited.flip(shard)
        before = bytes(liar.blobs._kept[audited.blob(shard)[1]].data)
        answer = audited.audit()
        assert audited.outcomes(answer)[liar.node_id] == WRONG
        assert [*audited.outcomes(answer).values()].count(WHOLE) == 4
        assert answer.read_bytes == 0
        assert audited.owner.trust.rank(liar.node_id)[0], "asked last for what is read"
        audited.world.pass_ms(20_000)
        holder, name = audited.blob(shard)
        assert bytes(holder.blobs._kept[name].data) != before
        assert audited.owner.read("data") == DATA
        assert {*audited.outcomes(audited.audit()).values()} == {WHOLE}

    def test_two_copies_that_differ_are_read_to_tell_which_is_wrong(self) -> None:
        audited = Audited(2, code=None)
        audited.owner.blobs.delete(audited.object_id)
        liar = audited.flip(0)
        answer = audited.audit()
        assert audited.outcomes(answer)[liar.node_id] == WRONG
        assert [*audited.outcomes(answer).values()].count(WHOLE) == 1
        assert answer.read_bytes >= 2 * len(DATA)

    def test_an_owner_that_has_its_copy_still_compares_with_that(self) -> None:
        audited = Audited(2, code=None)
        assert audited.info.local, "three copies are wanted"
        liar = audited.flip(0)
        answer = audited.audit()
        assert audited.outcomes(answer)[liar.node_id] == WRONG
        assert answer.read_bytes == 0

    @pytest.mark.parametrize("gone", [False, True])
    def test_an_owner_whose_own_copy_is_damaged_blames_nobody_and_mends_it(self, *, gone: bool) -> None:
        audited = Audited(1, code=None)
        assert audited.info.local, "three copies are wanted"
        kept, before = audited.owner.blobs, audited.owner.blobs.read(audited.object_id, 0, 100)
        if gone:
            kept.delete(audited.object_id)
        else:
            kept._kept[audited.object_id].data[0] ^= 1
        audited.owner.runtime.deliver("objects", AuditSoon(audited.object_id))
        audited.world.pass_ms(FIRST_MS)
        for _ in range(30):
            audited.world.pass_ms(1_000)
        assert [ack.node_id for ack in audited.info.acks] == [audited.hosts[0].node_id]
        assert audited.info.verified_us, "it was read, since the one answer had nothing to be compared with"
        assert audited.owner.auditing.read_bytes >= len(DATA)
        assert kept.read(audited.object_id, 0, 100) == before
        answer = audited.audit()
        assert ([*audited.outcomes(answer).values()], answer.read_bytes) == ([WHOLE], 0)
        assert audited.owner.read("data") == DATA

    def test_so_many_are_wrong_that_they_must_be_read(self) -> None:
        audited = Audited()
        liars = {audited.flip(shard).node_id for shard in range(3)}
        answer = audited.audit()
        assert {node for node, outcome in audited.outcomes(answer).items() if outcome == WRONG} == liars
        assert answer.read_bytes > 0
        counted = audited.owner.auditing
        assert (counted.wrong_shards, counted.read_bytes) == (3, answer.read_bytes), "told by status"

    def test_an_answer_that_was_made_up_is_as_wrong(self) -> None:
        audited = Audited()
        liar = audited.holder(1)

        def lie(letter: Letter) -> Any:
            if letter.short == "AuditReplicas" and letter.target == liar.node_id:
                return objects_pb2.AuditReplicasResponse(answers=b"\1" + b"x" * ANSWER_BYTES)
            return None

        audited.world.bend = lie
        assert audited.outcomes(audited.audit())[liar.node_id] == WRONG

    def test_what_cannot_be_read_shuns_its_host_and_loses_nothing(self) -> None:
        audited = Audited()
        liar = audited.holder(1)

        def lie(letter: Letter) -> Any:
            if letter.short == "AuditReplicas" and letter.target == liar.node_id:
                return objects_pb2.AuditReplicasResponse(answers=b"\5")
            return None

        audited.world.bend = lie
        answer = audited.audit()
        assert audited.outcomes(answer)[liar.node_id] == SILENT
        assert [*audited.outcomes(answer).values()].count(WHOLE) == 4
        assert audited.owner.trust.rank(liar.node_id)[0]
        assert len(audited.info.acks) == 5


class TestGone:
    def test_what_a_host_has_no_more_is_brought_again(self) -> None:
        audited = Audited()
        host, name = audited.blob(3)
        host.blobs.delete(name)
        answer = audited.audit()
        assert audited.outcomes(answer)[host.node_id] == MISSING
        audited.world.pass_ms(20_000)
        assert audited.holder(3).blobs.size(f"{audited.object_id}.3")
        assert {*audited.outcomes(audited.audit()).values()} == {WHOLE}


class TestSilent:
    def test_a_frozen_host_keeps_nobody_else_from_being_told(self) -> None:
        audited = Audited()
        frozen, liar = audited.holder(0), audited.flip(4)

        def freeze(letter: Letter) -> Fault | None:
            return OutcomeUnknown("no answer came", reason="NoAnswer") if letter.target == frozen.node_id else None

        audited.world.bend = freeze
        outcomes = audited.outcomes(audited.audit())
        assert outcomes[frozen.node_id] == SILENT
        assert outcomes[liar.node_id] == WRONG
        assert [*outcomes.values()].count(WHOLE) == 3

    def test_too_few_answers_prove_nothing_but_reading_does(self) -> None:
        audited = Audited()
        for shard in range(3):
            audited.holder(shard).up = False
        answer = audited.audit()
        assert sorted(audited.outcomes(answer).values()) == [WHOLE, WHOLE, SILENT, SILENT, SILENT]
        assert answer.read_bytes > 0

    def test_where_nobody_answers_nothing_is_known(self) -> None:
        audited = Audited()
        for host in audited.hosts:
            host.up = False
        assert {*audited.outcomes(audited.audit()).values()} == {SILENT}
        assert UNDECIDED not in audited.outcomes(audited.audit()).values()


class TestAHost:
    def test_answers_only_for_what_it_keeps_for_the_caller(self) -> None:
        audited = Audited()
        host, other = audited.holder(0), audited.holder(1)
        request = question(audited.object_id)
        assert len(host.ask_as(audited.owner, "AuditReplicas", request).answers) == 1 + ANSWER_BYTES
        assert host.ask_as(other, "AuditReplicas", request).answers == b""

    @pytest.mark.parametrize(
        ("request_", "field"),
        [
            (ask(0, nonce=b"n"), "question"),
            (ask(0), "question"),
            (ask(TOGETHER_MAX + 1), "question"),
            (objects_pb2.AuditReplicasRequest(question=NONCE, object_ids=b"x" * 21), "object_ids"),
            (objects_pb2.AuditReplicasRequest(question=b"n", object_ids=b"x" * 20), "object_ids"),
            (objects_pb2.AuditReplicasRequest(question=NONCE + b"name", object_ids=b"x" * 20), "say only one"),
        ],
    )
    def test_says_what_is_wrong_with_a_question(self, request_: Any, field: str) -> None:
        audited = Audited(1, code=None)
        with pytest.raises(InvalidRequest, match=field):
            audited.hosts[0].ask_as(audited.owner, "AuditReplicas", request_)

    def test_reads_so_much_a_day_and_says_when_there_will_be_more(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(proving, "SPARE_BYTES", 3 * proving.OBJECT_BYTES)
        audited = Audited()
        host = audited.holder(0)
        request = question(audited.object_id)
        host.ask_as(audited.owner, "AuditReplicas", request)
        host.ask_as(audited.owner, "AuditReplicas", request)
        host.ask_as(audited.owner, "AuditReplicas", request)
        with pytest.raises(Exhausted) as refused:
            host.ask_as(audited.owner, "AuditReplicas", request)
        assert refused.value.reason == "AuditBudgetSpent"
        assert refused.value.retry_ms
        audited.world.clock.mono_ms += refused.value.retry_ms + 1
        assert host.ask_as(audited.owner, "AuditReplicas", request).answers

    def test_ends_early_with_what_it_has_and_is_asked_for_the_rest(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(proving, "CALL_BYTES_MAX", 1)
        audited = Audited(code=None)
        other = audited.owner.put(b"more", required_milli=1_000).object_id
        for object_id in (audited.object_id, other):
            audited.owner.runtime.deliver("objects", AuditSoon(object_id))
        audited.world.settle()
        audited.world.pass_ms(10_000)
        assert audited.owner.info(audited.object_id).verified_us
        assert audited.owner.info(other).verified_us

    def test_of_two_that_begin_alike_it_says_so_and_is_asked_by_their_ids(self) -> None:
        audited = Audited(code=None)
        host = audited.holder(0)
        twin = object_id_from(object_id_bytes(audited.object_id)[:NAME_BYTES].ljust(OBJECT_ID_BYTES, b"x"))
        key = KEPT, inventory_key(audited.owner.node_id, twin)
        host.store.commit(Batch(writes={key: b"\0"}))
        with pytest.raises(FailedPrecondition) as refused:
            host.ask_as(audited.owner, "AuditReplicas", question(audited.object_id))
        assert refused.value.reason == "NameAmbiguous"
        audited.world.log.clear()
        assert {*audited.outcomes(audited.audit()).values()} == {WHOLE}
        assert audited.world.log.count("AuditReplicas") == len(audited.info.acks) + 1

    def test_one_that_only_nearly_begins_so_is_another(self) -> None:
        audited = Audited(code=None)
        host, own = audited.holder(0), object_id_bytes(audited.object_id)
        near = own[: NAME_BYTES - 1] + bytes([own[NAME_BYTES - 1] ^ 1])
        key = KEPT, inventory_key(audited.owner.node_id, object_id_from(near.ljust(OBJECT_ID_BYTES, b"x")))
        host.store.commit(Batch(writes={key: b"\0"}))
        assert host.ask_as(audited.owner, "AuditReplicas", question(audited.object_id)).answers

    def test_works_on_one_question_of_each_caller(self) -> None:
        audited = Audited()
        host, caller = audited.holder(0), Caller(Kind.MEMBER, audited.owner.node_id, frozenset({CORE}))
        waiting: list[Any] = []
        host.bulk._carry = lambda work, ended: waiting.append((work, ended))
        first = host.begin("AuditReplicas", ask(), caller)
        second = host.begin("AuditReplicas", ask(), caller)
        assert isinstance(second.outcome, Exhausted)
        work, ended = waiting.pop()
        ended(work())
        assert first.outcome.answers == b""
