"""Owner and host compare what the one has acks for with what the other keeps: nobody reads an object for it.

The owner's side carries out Compare: one small call where both agree; else coded symbols, window after window, until
the difference is known, then the names of what only the host has. Sets are read, and symbols worked out, in threads.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial, reduce
from typing import TypeVar

from google.protobuf.message import Message

from offgrid.v1 import objects_pb2
from offgrid_node.logs import fields
from offgrid_node.protocol.errors import Corrupt, Fault, InvalidRequest, PeerFault, Unavailable
from offgrid_node.protocol.objects.commands import Compared, ReplicasLost
from offgrid_node.protocol.objects.errands import Compare
from offgrid_node.protocol.objects.inventory import (
    NOTHING_KEPT,
    SUMMARY_BYTES,
    Holding,
    count_of,
    counted,
    holdings_of,
    summary_of,
)
from offgrid_node.protocol.objects.manifest import OBJECT_ID, SHARDS_MAX
from offgrid_node.protocol.objects.shards import shard_name
from offgrid_node.protocol.objects.small import SMALL, small_key
from offgrid_node.protocol.objects.tables import GIVEN, KEPT
from offgrid_node.protocol.reconcile.sessions import WINDOW_SYMBOLS_MAX, Asking, answer
from offgrid_node.protocol.reconcile.symbols import ITEMS_MAX, KEY_BYTES, SYMBOLS_MAX, SymbolCode
from offgrid_node.protocol.rng import Rng
from offgrid_node.protocol.sound import sound
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.caller import Caller
from offgrid_node.services.flow import Flow, Step, run, ticket_of
from offgrid_node.services.objects.holders import Carrier, call
from offgrid_node.services.turns import Turns
from offgrid_node.storage.blobs import BlobStore
from offgrid_node.storage.store import Store

ID_BYTES = 8  # of shortened items: two of a million hide each other once in 30 million comparisons
NAMES_MAX = 1_000  # asked for in one call
STRAYS_MAX = 10_000  # named in one comparison; the next names others
LOST_MAX = 1_000  # told to the machine at once
LOOK_ITEMS = 1_024  # read between two looks at whether this node stops
TOGETHER_MAX = 100_000  # differences; of more, objects are compared in parts, by the next character of their ids
PREFIX = re.compile(r"(o-[a-z2-7]{0,2})?\Z")
PREFIX_CHARS_MAX = 4  # "o-" and two more: a thousand parts
TRIES_MAX = 3  # of one part, when the host's set changes meanwhile
CALL_TIMEOUT_MS = 30_000  # a host works through all it keeps for one owner: some seconds where that is a million
BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
LANE = "inventory"  # no object's name; one at a time, so that other work finds a thread

M = TypeVar("M", bound=Message)
_log = logging.getLogger(__name__)


class _Changed(Exception):
    """The host's set is another one than before."""


class _TooMany(Exception):
    """More differences than are worked out together."""


class Inventories:
    """The handlers of CompareInventory and NameInventory, and the carrier of Compare."""

    def __init__(self, runtime: Runtime, carrier: Carrier, rng: Rng, bulk: Bulk) -> None:
        self._runtime, self._carrier, self._rng, self._bulk = runtime, carrier, rng, bulk
        self._under_way: set[str] = set()
        self._turns = Turns("comparisons", 1)  # each reads all that is kept for the caller, who asks for one at a time

    # ---- a host's side

    def answer(self, caller: Caller, request: objects_pb2.CompareInventoryRequest) -> Ticket:
        if request.count > WINDOW_SYMBOLS_MAX:
            raise InvalidRequest.field("count", f"{request.count} symbols; at most {WINDOW_SYMBOLS_MAX} are allowed")
        if request.first + request.count > SYMBOLS_MAX:
            said = f"up to symbol {request.first + request.count}; none from {SYMBOLS_MAX} on is made"
            raise InvalidRequest.field("first", said)
        if not request.count:
            summary = summary_of(self._runtime.store, KEPT, caller.node_id)
            return ticket_of(_at_once(objects_pb2.CompareInventoryResponse(summary=summary)))
        code, prefix = _code(request.key), _prefix(request.prefix)
        return ticket_of(self._answer(caller.node_id, code, prefix, request.first, request.count))

    def _answer(self, owner: str, code: SymbolCode, prefix: str, first: int, count: int) -> Flow[Message]:
        def work() -> Message:
            kept = _read(self._runtime.store, KEPT, owner, prefix, code, self._bulk)
            symbols = answer(code, kept, first, count)
            return objects_pb2.CompareInventoryResponse(summary=_summary(kept.values()), symbols=symbols)

        response: Message = yield self._turns.take(owner, self._bulk.run(work, key=LANE))
        return response

    def name(self, caller: Caller, request: objects_pb2.NameInventoryRequest) -> Ticket:
        if len(request.ids) > NAMES_MAX:
            raise InvalidRequest.field("ids", f"{len(request.ids)} of them; at most {NAMES_MAX} are named in one call")
        code, prefix = _code(request.key), _prefix(request.prefix)
        return ticket_of(self._name(caller.node_id, code, prefix, tuple(request.ids)))

    def _name(self, owner: str, code: SymbolCode, prefix: str, ids: Sequence[int]) -> Flow[Message]:
        def work() -> Message:
            items = _read(self._runtime.store, KEPT, owner, prefix, code, self._bulk)
            named = (items[id_] for id_ in ids if id_ in items)
            holdings = [objects_pb2.Holding(object_id=each.object_id, shards=each.shards) for each in named]
            return objects_pb2.NameInventoryResponse(holdings=holdings)

        response: Message = yield self._turns.take(owner, self._bulk.run(work, key=LANE))
        return response

    # ---- an owner's side

    def compare(self, work: Compare) -> None:
        """Its end enters the runtime as Compared. Machines that were loaded anew say it again: it goes on as it is."""
        if work.node in self._under_way:
            return
        self._under_way.add(work.node)

        def ended(outcome: Compared | Fault) -> None:
            self._under_way.discard(work.node)
            end = Compared(work.node, fault=outcome) if isinstance(outcome, Fault) else outcome
            self._runtime.deliver("objects", end)

        run(self._compare(work.node), ended)

    def _compare(self, node: str) -> Flow[Compared]:
        request = objects_pb2.CompareInventoryRequest()
        told = yield self._call(node, "CompareInventory", request, objects_pb2.CompareInventoryResponse)
        if told.summary == summary_of(self._runtime.store, GIVEN, node):
            return Compared(node)
        if told.summary == NOTHING_KEPT:
            with suppress(_Changed):
                return (yield from self._all_lost(node))
        compared = yield from self._compare_part(node, "")
        if compared.lost or compared.strays:
            lost, strays = len(compared.lost), len(compared.strays)
            said = fields("host_lost", peer=node, lost=lost, unasked=strays)
            _log.info("a host keeps other things of this node's than it should", extra=said)
        return compared

    def _compare_part(self, node: str, prefix: str) -> Flow[Compared]:
        """Objects whose ids begin so; where they differ in too much, a part of them at a time."""
        for _ in range(TRIES_MAX):
            try:
                return (yield from self._find_out(node, prefix, SymbolCode(self._rng.randbytes(KEY_BYTES), ID_BYTES)))
            except _Changed:
                continue
            except _TooMany:
                return (yield from self._compare_parts(node, prefix))
        raise Unavailable(f"what {node} keeps changed {TRIES_MAX} times while it was compared", reason="InventoryMoves")

    def _compare_parts(self, node: str, prefix: str) -> Flow[Compared]:
        """Raises PeerFault (NoEnd) where the parts are as small as they get: so much nobody keeps."""
        if len(prefix) == PREFIX_CHARS_MAX:
            text = f"{node} differs in more than {TOGETHER_MAX} objects whose ids begin with {prefix}"
            raise PeerFault(text, reason="NoEnd")
        lost, strays = list[Holding](), list[Holding]()
        for character in BASE32:
            compared = yield from self._compare_part(node, (prefix or "o-") + character)
            lost += compared.lost
            strays += compared.strays[: STRAYS_MAX - len(strays)]
        return Compared(node, tuple(lost), tuple(strays))

    def _all_lost(self, node: str) -> Flow[Compared]:
        """A host that keeps nothing: no symbols are needed, however much it was. What is read now was acked before it
        says so again."""
        given = yield self._bulk.run(lambda: tuple(holdings_of(self._runtime.store, GIVEN, node)), key=LANE)
        request = objects_pb2.CompareInventoryRequest()
        told = yield self._call(node, "CompareInventory", request, objects_pb2.CompareInventoryResponse)
        if told.summary != NOTHING_KEPT:
            raise _Changed
        _log.info("a host has lost all of this node's", extra=fields("host_lost_all", peer=node, lost=len(given)))
        return Compared(node, given)

    def _find_out(self, node: str, prefix: str, code: SymbolCode) -> Flow[Compared]:
        # What is read now was acked before the host is asked again: what it lacks then, it has lost.
        given = yield self._bulk.run(
            lambda: _read(self._runtime.store, GIVEN, node, prefix, code, self._bulk), key=LANE
        )
        asking = yield from self._ask(node, prefix, code, given)
        lost = tuple(given[id_] for id_ in sorted(asking.here))
        strays = yield from self._names(node, prefix, code, sorted(asking.there)[:STRAYS_MAX])
        return Compared(node, lost, strays)

    def _ask(self, node: str, prefix: str, code: SymbolCode, given: Mapping[int, Holding]) -> Flow[Asking]:
        """Windows of symbols until the difference is known, or known to be too much."""
        asking, summary = Asking(code, given), b""
        while not asking.complete:
            first, count = asking.window
            request = objects_pb2.CompareInventoryRequest(key=code.key, first=first, count=count, prefix=prefix)
            told = yield self._call(node, "CompareInventory", request, objects_pb2.CompareInventoryResponse)
            items = count_of(told.summary)
            if len(told.summary) != SUMMARY_BYTES or items > ITEMS_MAX:
                said = told.summary[:SUMMARY_BYTES].hex()
                raise PeerFault(f"{node} says that what it keeps is {said!r}", reason="BadSummary")
            if summary and told.summary != summary:
                raise _Changed
            summary, symbols = told.summary, told.symbols
            yield self._bulk.run(partial(asking.on_answer, symbols, items), key=LANE)
            if not asking.complete and asking.differences > TOGETHER_MAX:
                raise _TooMany
        return asking

    def _names(self, node: str, prefix: str, code: SymbolCode, ids: Sequence[int]) -> Flow[tuple[Holding, ...]]:
        """What those items are, as the host says; what it says is no evidence of anything but what it keeps."""
        named = list[Holding]()
        for at in range(0, len(ids), NAMES_MAX):
            asked = ids[at : at + NAMES_MAX]
            request = objects_pb2.NameInventoryRequest(key=code.key, ids=asked, prefix=prefix)
            told = yield self._call(node, "NameInventory", request, objects_pb2.NameInventoryResponse)
            for holding in told.holdings[: len(asked)]:
                if OBJECT_ID.match(holding.object_id) and all(shard < SHARDS_MAX for shard in holding.shards):
                    named.append(Holding(holding.object_id, tuple(holding.shards[:SHARDS_MAX])))
        return tuple(named)

    def _call(self, node: str, method: str, request: Message, answer: type[M]) -> Step[M]:
        return call(self._carrier, node, method, request, answer, timeout_ms=CALL_TIMEOUT_MS)


def _code(key: bytes) -> SymbolCode:
    if len(key) != KEY_BYTES:
        raise InvalidRequest.field("key", f"{len(key)} bytes; {KEY_BYTES} are needed")
    return SymbolCode(key, ID_BYTES)


def _prefix(text: str) -> str:
    if not PREFIX.match(text):
        said = f"{text[:40]!r}; an object id's first {PREFIX_CHARS_MAX} characters at most"
        raise InvalidRequest.field("prefix", said)
    return text


def _at_once(response: Message) -> Flow[Message]:
    yield from ()
    return response


def _read(store: Store, table: str, node: str, prefix: str, code: SymbolCode, bulk: Bulk) -> dict[int, Holding]:
    """In a thread: the items of one node, as the key shortens them."""
    items = dict[int, Holding]()
    for count, holding in enumerate(holdings_of(store, table, node, prefix)):
        items[code.shorten(holding.item)] = holding
        if not count % LOOK_ITEMS:
            bulk.check_going()
    return items


def _summary(items: Iterable[Holding]) -> bytes:
    return reduce(lambda summary, holding: counted(summary, holding, 1), items, NOTHING_KEPT)


# ---- at a host's start


def replicas_lost(store: Store, blobs: BlobStore) -> list[ReplicasLost]:
    """What rows say that this host keeps, and its disk does not have: some of it or all, after somebody emptied a
    folder or the disk is a new one. Whether what is there is right, only who reads it knows; so does he of a row that
    is damaged."""
    names, lost = set(blobs.names()), dict[str, list[Holding]]()
    for key, value in sound(store.scan, KEPT):
        owner, _, object_id = key.decode().partition("/")
        holding = Holding(object_id, tuple(value))
        if not _is_there(holding, names) and not _in_rows(store, owner, holding):
            lost.setdefault(owner, []).append(holding)
    return [
        ReplicasLost(owner, tuple(holdings[at : at + LOST_MAX]))
        for owner, holdings in lost.items()
        for at in range(0, len(holdings), LOST_MAX)
    ]


def _in_rows(store: Store, owner: str, holding: Holding) -> bool:
    """What is small came in one transaction with the row that says so; whether it is right, only who reads it knows."""
    names = [holding.object_id] if holding.shards == (0,) else []
    names += [shard_name(holding.object_id, shard) for shard in holding.shards]
    try:
        return any(store.get(SMALL, small_key(name, owner)) is not None for name in names)
    except Corrupt:
        return True


def _is_there(holding: Holding, names: Container[str]) -> bool:
    """Shard 0 alone may as well be a copy, which has the object's own name."""
    copied = holding.shards == (0,) and holding.object_id in names
    return copied or all(shard_name(holding.object_id, shard) in names for shard in holding.shards)
