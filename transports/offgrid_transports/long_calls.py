"""The calling half of long messages: brings a long request in blocks, and reads a long answer so.

A block that does not come is asked for again, over whichever session there is then, until the call's time is up. What
came of an answer is kept, so that a call that is repeated goes on where it was. As a short call, a long one is carried
out once at most: only blocks are asked for again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import msgspec

from offgrid_transports.calls import CallRefused, Done, End, Reply
from offgrid_transports.endpoint import Endpoint, UnknownPeer
from offgrid_transports.headway import Headway
from offgrid_transports.long_messages import (
    ASK_WRITTEN,
    LONG_BYTES_MAX,
    READ,
    WRITE,
    Held,
    Read,
    Shelf,
    Trouble,
    Write,
    block_bytes,
    digest_of,
    read_partial,
    write_read,
    write_write,
)
from offgrid_transports.records import RecordError, read_varint, varint
from offgrid_transports.sharing import Shared, Sharing
from offgrid_transports.transport import Priority

BODIES_BYTES_MAX = 64 * 1024 * 1024  # of requests under way that are longer than a block
TRIES_MAX = 8  # for a block, in a row
BLOCK_TIMES = 4  # as long as a block takes without loss, and nobody else on the link
RETRY_MS, RETRY_MS_MAX = 250, 8_000
BEGUN_MAX = 64  # requests of which a part may be there already


class _Call(msgspec.Struct):
    """One under way. `tries`: in a row, for the same block; `headway`: of the request, and then of the answer."""

    peer: str
    method: int
    body: bytes
    headway: Headway
    done: Done
    priority: Priority
    digest: bytes = b""
    tries: int = 0


class LongCalls:
    """Calls out over an endpoint. `answers` is what is kept of those that have not come whole."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self.answers = Shelf(endpoint.now_ms)
        self._begun: OrderedDict[tuple[str, bytes], None] = OrderedDict()
        self._bodies_bytes = 0
        self._sharing = Sharing(endpoint, self._alone)

    def call(
        self, peer: str, method: int, body: bytes, timeout_ms: float, done: Done, *, priority: Priority = Priority.JOB
    ) -> None:
        """As the endpoint's, with a body, and an answer, of LONG_BYTES_MAX at most. What several on one radio channel
        are asked at once is said once."""
        deadline_ms = self._endpoint.now_ms() + timeout_ms
        if self._sharing.takes(Shared(peer, method, body, deadline_ms, done, priority)):
            return
        call = _Call(peer, method, body, Headway(deadline_ms), done, priority)
        if len(body) <= self._room(peer):
            self._endpoint.call(peer, method, body, timeout_ms, partial(self._on_answer, call), priority=priority)
            return
        if len(body) > LONG_BYTES_MAX:
            raise CallRefused(f"a request of {len(body)} bytes; {LONG_BYTES_MAX} are taken")
        if self._bodies_bytes + len(body) > BODIES_BYTES_MAX:
            raise CallRefused(f"long requests hold {self._bodies_bytes} bytes; {BODIES_BYTES_MAX} are allowed")
        self._bodies_bytes += len(body)
        call.done = partial(self._written, len(body), done)
        call.digest = digest_of(body)
        began = (peer, call.digest) in self._begun
        self._begun[peer, call.digest] = None
        if len(self._begun) > BEGUN_MAX:
            self._begun.popitem(last=False)
        self._write(call, 0, 0 if began else self._room(peer))

    def _alone(self, shared: Shared) -> None:
        headway = Headway(shared.deadline_ms)
        call = _Call(shared.peer, shared.method, shared.body, headway, shared.done, shared.priority)
        self._send(call, call.method, call.body, partial(self._on_answer, call))

    def _written(self, length: int, done: Done, reply: Reply) -> None:
        self._bodies_bytes -= length
        done(reply)

    # ---- the request

    def _write(self, call: _Call, offset: int, length: int) -> None:
        """A block of it; an empty one asks how much is there."""
        asked = Write(call.digest, len(call.body), offset, call.body[offset : offset + length])
        self._send(call, WRITE, write_write(asked), partial(self._on_wrote, call, length or self._room(call.peer)))

    def _on_wrote(self, call: _Call, length: int, reply: Reply) -> None:
        there = -1
        if reply.end is End.OK:
            try:
                there, _ = read_varint(reply.body, 0, len(call.body))
            except RecordError:
                reply = Reply(End.REFUSED, detail="the peer does not say how much is there")
        if reply.end is End.ERROR and reply.partial:
            call.done(Reply(End.REFUSED, detail=f"its request: {_words_of(reply.body)}"))
        elif there == len(call.body):
            asked = call.digest + varint(call.method)
            self._send(call, ASK_WRITTEN, asked, partial(self._on_answer, call))
        elif there >= 0:
            self._comes_on(call, there, length)
            self._write(call, there, self._room(call.peer))
        else:
            there_words = f"{call.headway.bytes} of {len(call.body)} bytes of its request are there"
            gave_up = Reply(End.REFUSED, detail=f"{there_words}: {reply.detail}")
            self._again(call, gave_up, partial(self._write, call, 0, 0))

    # ---- the answer

    def _on_answer(self, call: _Call, reply: Reply) -> None:
        if not reply.partial:
            call.done(reply)
            return
        if reply.end is End.ERROR:
            gave_up = Reply(End.REFUSED, detail=f"its request: {_words_of(reply.body)}")
            self._again(call, gave_up, partial(self._write, call, 0, 0))
            return
        try:
            answer = read_partial(reply.body)
        except RecordError as error:
            call.done(Reply(End.UNKNOWN, detail=f"its answer: {error}"))
            return
        held = self.answers.open(call.peer, answer.digest, answer.total)
        held.add(0, answer.block)
        call.digest = answer.digest
        self._comes_on(call, len(call.body) + len(held.data), self._room(call.peer))
        self._read(call, held)

    def _read(self, call: _Call, held: Held) -> None:
        if held.whole:
            self._end(call, held)
            return
        asked = Read(call.digest, len(held.data), min(self._room(call.peer), held.total - len(held.data)))
        self._send(call, READ, write_read(asked), partial(self._on_read, call, held, asked))

    def _on_read(self, call: _Call, held: Held, asked: Read, reply: Reply) -> None:
        if reply.end is End.ERROR and reply.partial:
            call.done(Reply(End.UNKNOWN, detail=f"the rest of its answer: {_words_of(reply.body)}"))
        elif reply.end is End.OK and reply.body:
            held.add(asked.offset, reply.body)
            self.answers.get(call.peer, call.digest)
            self._comes_on(call, len(call.body) + len(held.data), asked.length)
            self._read(call, held)
        else:
            gave_up = Reply(End.UNKNOWN, detail=f"{len(held.data)} of {held.total} bytes of its answer came")
            self._again(call, gave_up, partial(self._read, call, held))

    def _end(self, call: _Call, held: Held) -> None:
        body = bytes(held.data)
        self.answers.drop(call.peer, call.digest)
        if digest_of(body) != call.digest:
            call.done(Reply(End.UNKNOWN, detail="its answer's blocks are not what was announced"))
        else:
            call.done(Reply(End.OK, body))

    # ---- blocks

    def _send(self, call: _Call, method: int, body: bytes, done: Done) -> None:
        left_ms = call.headway.deadline_ms - self._endpoint.now_ms()
        try:
            if left_ms <= 0:
                raise CallRefused("the time given is over")
            self._endpoint.call(call.peer, method, body, left_ms, done, priority=call.priority)
        except (UnknownPeer, CallRefused) as error:
            self._endpoint.later(0, partial(done, Reply(End.REFUSED, detail=str(error))))

    def _comes_on(self, call: _Call, total: int, asked: int) -> None:
        """So many bytes are there in all, of the last block that was asked for so many: there is time for the next."""
        session, next_ms = self._endpoint.session_of(call.peer), 0.0
        if session is not None:
            next_ms = BLOCK_TIMES * session.path.answered_ms(self._room(call.peer), call.priority)
        if call.headway.on_bytes(self._endpoint.now_ms(), total, asked, next_ms):
            call.tries = 0

    def _again(self, call: _Call, gave_up: Reply, again: Callable[[], None]) -> None:
        wait_ms = min(RETRY_MS << call.tries, RETRY_MS_MAX)
        call.tries += 1
        if call.tries >= TRIES_MAX or self._endpoint.now_ms() + wait_ms >= call.headway.deadline_ms:
            call.done(gave_up)
        else:
            self._endpoint.later(wait_ms, again)

    def _room(self, peer: str) -> int:
        session = self._endpoint.session_of(peer)
        return block_bytes(session.path if session is not None else None)


def _words_of(trouble: bytes) -> str:
    known = len(trouble) == 1 and trouble[0] in tuple(Trouble)
    return Trouble(trouble[0]).name.lower().replace("_", " ") if known else "the peer does not say why"
