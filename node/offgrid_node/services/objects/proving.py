"""AuditReplicas: a host shows an owner that it has what it keeps for it, by sums over every byte of that.

Nobody but the owner is answered, so a host that has lost a shard gets no other to answer in its place. To sum a shard
is to read it: each owner has a budget, what is asked for waits in one lane, and a call ends early with what it has.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from google.protobuf.message import Message

from offgrid.v1 import objects_pb2
from offgrid_node.coding.coder import Coder
from offgrid_node.protocol.errors import Corrupt, Exhausted, FailedPrecondition, InvalidRequest, NotFound
from offgrid_node.protocol.objects.audit import NAME_BYTES, NONCE_BYTES, answer_of, encode_answers
from offgrid_node.protocol.objects.audits import TOGETHER_MAX
from offgrid_node.protocol.objects.commands import ReplicasLost
from offgrid_node.protocol.objects.inventory import Holding, inventory_key
from offgrid_node.protocol.objects.manifest import OBJECT_ID_BYTES, Manifest, object_id_bytes, object_id_from
from offgrid_node.protocol.objects.shards import blob_name
from offgrid_node.protocol.objects.tables import KEPT, KEPT_BYTES, REPLICAS, number_of, replica_key
from offgrid_node.protocol.sound import keys
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.caller import Caller
from offgrid_node.services.flow import Flow, settled, ticket_of
from offgrid_node.services.objects.checking import BlobsOf, vouched_shards
from offgrid_node.services.turns import Turns

LANE = "audits"  # no object's name; one at a time, so that other work finds a thread
CALL_BYTES_MAX = 128 << 20  # read for one call, beyond its last object
OBJECT_BYTES = 4_096  # what looking at a small one costs a disk beside its bytes
SPARE_BYTES = 1 << 30  # a day, beyond all that is kept for an owner once
DAY_MS = 86_400_000
AMBIGUOUS = "NameAmbiguous"


class Budget:
    """What owners may have this host read a day: all that it keeps for them once, and something to spare."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._spent: dict[str, tuple[int, int]] = {}  # owner → bytes, and when; members only, so bounded by the mesh

    def wait_ms(self, owner: str, kept_bytes: int) -> int:
        """Until the owner may ask for more; 0: at once."""
        over = self._left_over(owner, kept_bytes) - _a_day(kept_bytes)
        return -(-over * DAY_MS // _a_day(kept_bytes)) if over >= 0 else 0

    def spend(self, owner: str, kept_bytes: int, more_bytes: int) -> None:
        self._spent[owner] = self._left_over(owner, kept_bytes) + more_bytes, self._now_ms()

    def _left_over(self, owner: str, kept_bytes: int) -> int:
        """What was read and time has not paid for yet."""
        spent, at_ms = self._spent.get(owner, (0, 0))
        return max(0, spent - (self._now_ms() - at_ms) * _a_day(kept_bytes) // DAY_MS)


def _wanted(request: objects_pb2.AuditReplicasRequest) -> list[bytes]:
    """The names of objects, or their ids. Raises InvalidRequest."""
    names, ids = request.question[NONCE_BYTES:], request.object_ids
    field, raw, size = ("object_ids", ids, OBJECT_ID_BYTES) if ids else ("question", names, NAME_BYTES)
    count, rest = divmod(len(raw), size)
    if len(request.question) < NONCE_BYTES or rest or not 0 < count <= TOGETHER_MAX:
        text = f"{len(raw)} bytes; {size} for each of 1 to {TOGETHER_MAX} objects are needed"
        raise InvalidRequest.field(field, f"{text}, behind a nonce of {NONCE_BYTES} in the question")
    if ids and names:
        raise InvalidRequest.field("question", f"{len(names)} bytes of names beside ids; say only one of them")
    return [raw[at : at + size] for at in range(0, len(raw), size)]


def _spent(owner: str, wait_ms: int) -> Exhausted:
    said = f"{owner} has had all it keeps here read already, as often as a day allows"
    return Exhausted(said, reason="AuditBudgetSpent", retry_ms=wait_ms)


def _a_day(kept_bytes: int) -> int:
    return SPARE_BYTES + kept_bytes


class Proving:
    """The handler of AuditReplicas."""

    def __init__(self, runtime: Runtime, blobs_of: BlobsOf, bulk: Bulk, coder: Coder) -> None:
        self._runtime, self._blobs_of, self._bulk, self._coder = runtime, blobs_of, bulk, coder
        self._budget = Budget(lambda: runtime.clock.now().mono_ms)
        self._turns = Turns("audits", 1)  # each reads whole shards

    def answer(self, caller: Caller, request: objects_pb2.AuditReplicasRequest) -> Ticket:
        owner, nonce = caller.node_id, request.question[:NONCE_BYTES]
        wanted = _wanted(request)
        if wait_ms := self._budget.wait_ms(owner, self._kept_bytes(owner)):
            raise _spent(owner, wait_ms)
        ids = [self._named(owner, name) for name in wanted]
        return ticket_of(self._in_turn(owner, self._answers(owner, nonce, ids)))

    def _named(self, owner: str, name: bytes) -> str:
        """The id of the object that is kept for the owner here and begins so; any such id where there is none. Raises
        FailedPrecondition (NameAmbiguous)."""
        if len(name) == OBJECT_ID_BYTES:
            return object_id_from(name)
        head = object_id_from(name)[: 2 + len(name) * 8 // 5]  # the last character is cut off in the midst
        found = set[str]()
        for key in keys(self._runtime.store.scan, KEPT, prefix=inventory_key(owner, head)):
            object_id = key[len(inventory_key(owner, "")) :].decode(errors="replace")
            if object_id_bytes(object_id).startswith(name):
                found.add(object_id)
            if len(found) > 1:
                text = f"more than one object of {owner} is kept here whose id begins with {head}; name it in full"
                raise FailedPrecondition(text, reason=AMBIGUOUS)
        return next(iter(found), object_id_from(name.ljust(OBJECT_ID_BYTES, b"\0")))

    def _in_turn(self, owner: str, flow: Flow[Message]) -> Flow[Message]:
        answer: Message = yield self._turns.take(owner, settled(flow))
        return answer

    def _answers(self, owner: str, nonce: bytes, object_ids: list[str]) -> Flow[Message]:
        """Of the first ones, as far as one call and the budget go."""
        answers, read_bytes = list[dict[int, bytes]](), 0
        for object_id in object_ids:
            wait_ms = self._budget.wait_ms(owner, self._kept_bytes(owner))
            if wait_ms and not answers:
                raise _spent(owner, wait_ms)
            if wait_ms or read_bytes >= CALL_BYTES_MAX:
                break
            work = partial(self._sums, owner, nonce, object_id)
            found, lost, cost_bytes = yield self._bulk.run(work, key=LANE)
            self._budget.spend(owner, self._kept_bytes(owner), cost_bytes)
            if lost:
                self._runtime.deliver("objects", ReplicasLost(owner, (lost,)))
            answers.append(found)
            read_bytes += cost_bytes
        return objects_pb2.AuditReplicasResponse(answers=encode_answers(answers, len(object_ids)))

    def _sums(self, owner: str, nonce: bytes, object_id: str) -> tuple[dict[int, bytes], Holding | None, int]:
        """In a thread: by shard; what turns out to be gone or cut off; what it cost. Raises what a disk raises that
        says nothing of the shard."""
        try:
            kept = self._runtime.store.get(KEPT, inventory_key(owner, object_id)) or b""
        except Corrupt:  # as little as below
            vouched = vouched_shards(self._runtime.store, owner, object_id)
            return {}, Holding(object_id, vouched) if vouched else None, OBJECT_BYTES
        try:
            value = self._runtime.store.get(REPLICAS, replica_key(object_id, owner))
        except Corrupt:  # whatever is kept by it, nobody can vouch for
            return {}, Holding(object_id, tuple(kept)) if kept else None, OBJECT_BYTES
        if not kept or value is None:
            return {}, None, OBJECT_BYTES
        manifest = Manifest.decode(objects_pb2.ReplicaRow.FromString(value).manifest.signed.body)
        sums, lost = dict[int, bytes](), list[int]()
        for shard in kept:
            try:
                sums[shard] = self._sum(manifest, shard, nonce)
            except (NotFound, Corrupt):
                lost.append(shard)
        kept_now = self._runtime.store.get(KEPT, inventory_key(owner, object_id)) or b""  # it may be deleted meanwhile
        gone = tuple(shard for shard in lost if shard in kept_now)
        cost_bytes = OBJECT_BYTES + len(kept) * manifest.shard_bytes
        return sums, Holding(object_id, gone) if gone else None, cost_bytes

    def _sum(self, manifest: Manifest, shard: int, nonce: bytes) -> bytes:
        name, blobs = blob_name(manifest, shard), self._blobs_of(manifest.owner)

        def read(offset: int, length: int) -> bytes:
            self._bulk.check_going()
            return blobs.read(name, offset, length)

        return answer_of(nonce, manifest.shard_bytes, read, self._coder.combine)

    def _kept_bytes(self, owner: str) -> int:
        return number_of(self._runtime.store.get(KEPT_BYTES, owner.encode()) or b"")
