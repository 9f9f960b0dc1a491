"""objects: sealed, coded and placed data; put, read back, listed; and the outbox that brings it to its hosts."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from offgrid.client.calls import Calls, fresh_request_id
from offgrid.client.errors import OffgridError
from offgrid.client.following import follow
from offgrid.client.object_parts import PATIENCE_S, Parts, Progress, exactly, reader_of
from offgrid.client.paging import pages
from offgrid.client.putting import Putting
from offgrid.client.resuming import resumed
from offgrid.client.targets import replaced
from offgrid.v1 import objects_pb2

Source = str | os.PathLike[str] | bytes | BinaryIO

AUDIT_S = 3_600.0  # where answers do not tell, whole shards are read
REENCRYPT_S = 120.0  # all objects are counted
DELETE_S = 60.0  # a node with very many open jobs looks at each of them
ACCEPTED = objects_pb2.OBJECT_STATE_ACCEPTED
DURABLE, LOCAL = objects_pb2.OBJECT_STATE_DURABLE, objects_pb2.OBJECT_STATE_LOCAL
DAMAGED = objects_pb2.OBJECT_STATE_DAMAGED
ROWS_DAMAGED = "RowsDamaged"
NAMED_MAX = 10  # objects in one message


def _silent(*said: object) -> None:
    """Nobody looks."""


def _rows_damaged(damaged: Sequence[str]) -> OffgridError:
    more = f" and {len(damaged) - NAMED_MAX} more" if len(damaged) > NAMED_MAX else ""
    text = f"the node's store has damaged rows, and cannot say what these objects are: {', '.join(damaged[:NAMED_MAX])}"
    return OffgridError("DATA_LOSS", ROWS_DAMAGED, text + more, metadata={"objects": ",".join(damaged)})


class Objects:
    """ObjectService."""

    def __init__(self, calls: Calls) -> None:
        self._calls, self._putting = calls, Putting(calls)

    def capacity(self) -> objects_pb2.GetCapacityResponse:
        """What this node's disk can hold."""
        return self._calls.unary(
            "ObjectService/GetCapacity", objects_pb2.GetCapacityRequest(), objects_pb2.GetCapacityResponse
        )

    def explain_placement(
        self,
        wanted: str = "",
        *,
        size_bytes: int = 0,
        code: tuple[int, int] | None = None,
        copies: int = 0,
        padded: bool | None = None,
        policy: str = "",
    ) -> objects_pb2.ExplainPlacementResponse:
        """What every host holds of an object or would get of it now, and why; or, with `wanted` "", of one of
        `size_bytes` that might be put, `code` (needed, total) or `copies` (as the config says where neither is given),
        filled up to its size's class where `padded` (None: as the config says).
        `policy` is "balanced", "latency", "bandwidth" or "" for the config's; ValueError for any other."""
        request = objects_pb2.ExplainPlacementRequest(
            object=wanted, size_bytes=size_bytes, copies=copies, padded=padded
        )
        if code is not None:
            request.code.needed, request.code.total = code
        if policy:
            request.policy = objects_pb2.PlacementPolicy.Value(f"PLACEMENT_POLICY_{policy.upper()}")
        return self._calls.unary("ObjectService/ExplainPlacement", request, objects_pb2.ExplainPlacementResponse)

    # ---- in

    def put(
        self,
        source: Source,
        *,
        name: str = "",
        required_milli: int = 0,
        code: tuple[int, int] | None = None,
        copies: int = 0,
        expires_after_ms: int = 0,
        padded: bool | None = None,
        request_id: str = "",
        on_progress: Progress = _silent,
        wait_s: float = 0.0,
    ) -> objects_pb2.Object:
        """Seals a file (by its path), bytes or a binary stream into an object that is durable on this node when this
        returns, and on its way to its hosts; `wait_durable` waits for those. What fits one call (1 MiB) waits for them
        by itself, `wait_s` and a minute at most: its state says whether it is durable.

        `required_milli` is the weight of acks in thousandths, `code` (12, 20) for 20 shards of which any 12 give the
        object back, `copies` a number of full copies: at most one of these two, and as the node's config says what is
        left out. It expires `expires_after_ms` after it is made (0: never), by the node's clock. `padded`: zeros fill
        it up to its size's class, which is all that hosts learn of it; None: as the config says. The same request id
        never makes a second object; for other data it is refused (RequestIdReused). A node that restarts has lost what
        was under way: what can be read again (a file, bytes, a stream that can seek) is then put from its beginning;
        for anything else OffgridError is raised. What breaks off here goes on where it was with the same `request_id`,
        within a day; without one the node is told to drop it.
        """
        request = objects_pb2.OpenUploadRequest(
            name=name,
            required_milli=required_milli,
            copies=copies,
            expires_after_ms=expires_after_ms,
            padded=padded,
            request_id=request_id or fresh_request_id(),
        )
        if code is not None:
            request.code.needed, request.code.total = code
        kept = bool(request_id)
        if isinstance(source, bytes):
            return self._putting.put(io.BytesIO(source), request, on_progress, wait_s, kept=kept)
        if isinstance(source, str | os.PathLike):
            with Path(source).open("rb") as file:
                return self._putting.put(file, request, on_progress, wait_s, kept=kept)
        return self._putting.put(source, request, on_progress, wait_s, kept=kept)

    def enqueue(
        self, key: str, data: bytes, etype: int, required_acks_milli: int = 0, *, request_id: str = ""
    ) -> objects_pb2.OutboxEntry:
        """At most 1 MiB, as an event of one's own kind (10 to 30) with its outbox entry, in one transaction."""
        request = objects_pb2.EnqueueRequest(
            key=key,
            data=data,
            etype=etype,
            required_acks_milli=required_acks_milli,
            request_id=request_id or fresh_request_id(),
        )
        return self._calls.unary("ObjectService/Enqueue", request, objects_pb2.EnqueueResponse).entry

    def wait_durable(
        self,
        object_id: str,
        *,
        timeout_s: float | None = None,
        on_change: Callable[[objects_pb2.Object], None] = lambda made: None,
        on_progress: Callable[[int, int], None] = lambda sent, of: None,
    ) -> objects_pb2.Object:
        """Until the quorum has acked. `on_change` gets the object at first, and when its acks or its trouble change;
        `on_progress` how many bytes the hosts that it is sent to now have of it, and of how many, twice a second.
        Raises TimeoutError; the object goes on its way all the same. Raises OffgridError (Cancelled) when that is given
        up, ObjectDamaged when its bytes were lost before enough had acked.
        """
        made, seen = objects_pb2.Object(), ""
        for answer in self._watched(object_id, timeout_s):
            made = answer.object
            if answer.sending_bytes:
                on_progress(answer.sent_bytes, answer.sending_bytes)
            if (said := f"{made.acked_milli} {made.trouble}") != seen:
                seen = said
                on_change(made)
        if made.state == DURABLE:
            return made
        if made.state == LOCAL:
            text = f"the way of {object_id} to its hosts was given up; it is kept at its owner's node alone"
            raise OffgridError("FAILED_PRECONDITION", "Cancelled", text)
        if made.state == DAMAGED:
            raise OffgridError("DATA_LOSS", "ObjectDamaged", f"{object_id} cannot become durable: {made.trouble}")
        have = f"{made.acked_milli / 1000} of {made.required_milli / 1000}"
        why = f": {made.trouble}" if made.trouble else ""
        raise TimeoutError(f"object {object_id} has acks of {have} after {timeout_s or 0:.3g} s{why}")

    def watch(self, wanted: str, *, within_s: float | None = None) -> Iterator[objects_pb2.Object]:
        """An object of this node's own, now and whenever its acks or its trouble have changed; ends once it is durable
        or its way is given up, or after `within_s`.

        A node that restarts meanwhile is waited for, the client's `reconnect_s` long; then OffgridError WatchEnded.
        """
        shown = objects_pb2.Object()
        for answer in self._watched(wanted, within_s):
            if answer.object != shown:
                yield (shown := answer.object)

    def _watched(self, wanted: str, within_s: float | None) -> Iterator[objects_pb2.WatchObjectResponse]:
        request = objects_pb2.WatchObjectRequest(object=wanted)

        def states(for_s: float | None) -> Iterator[objects_pb2.WatchObjectResponse]:
            return self._calls.stream(
                "ObjectService/WatchObject", request, objects_pb2.WatchObjectResponse, timeout_s=for_s
            )

        silence = self._calls.silence(f"object {wanted}")
        return follow(states, lambda answer: answer.object.state != ACCEPTED, silence, within_s)

    # ---- what there is

    def get(self, wanted: str) -> objects_pb2.Object:
        """By id, by the first characters of an id, or by name (the newest of that name). What others share with this
        node is named so too, or as `OWNER/ID` and `OWNER/NAME`; where several owners share what fits, only so."""
        request = objects_pb2.GetObjectRequest(object=wanted)
        return self._calls.unary("ObjectService/GetObject", request, objects_pb2.GetObjectResponse).object

    def list(
        self, prefix: str = "", *, shared: bool = False, endangered_only: bool = False, limit: int | None = None
    ) -> Iterator[objects_pb2.Object]:
        """Every object of this node's own whose name begins with `prefix`; with `shared` what others let it read, with
        `endangered_only` those alone that are gone, or may be with one more host.

        Where rows of the node's store are damaged it gives all others and then raises OffgridError (RowsDamaged), which
        names those: whatever they were called."""
        damaged = list[str]()

        def fetch(size: int, token: str) -> tuple[list[objects_pb2.Object], str]:
            request = objects_pb2.ListObjectsRequest(
                page_size=size,
                page_token=token,
                name_prefix=prefix,
                shared=shared,
                endangered_only=endangered_only,
            )
            page = self._calls.unary("ObjectService/ListObjects", request, objects_pb2.ListObjectsResponse)
            damaged.extend(page.damaged)
            return [*page.objects], page.next_page_token

        yield from pages(fetch, limit)
        if damaged:
            raise _rows_damaged(damaged)

    def outbox(self, *, open_only: bool = False, limit: int | None = None) -> Iterator[objects_pb2.OutboxEntry]:
        """The outbox, the oldest first."""

        def fetch(size: int, token: str) -> tuple[list[objects_pb2.OutboxEntry], str]:
            request = objects_pb2.ListOutboxRequest(page_size=size, page_token=token, open_only=open_only)
            page = self._calls.unary("ObjectService/ListOutbox", request, objects_pb2.ListOutboxResponse)
            return [*page.entries], page.next_page_token

        return pages(fetch, limit)

    def cancel(self, entry_id: int) -> objects_pb2.OutboxEntry:
        """Gives up an outbox entry that is not completed: the object stays at this node and goes nowhere any more. Safe
        to repeat."""
        request = objects_pb2.CancelOutboxEntryRequest(id=entry_id)
        return self._calls.unary(
            "ObjectService/CancelOutboxEntry", request, objects_pb2.CancelOutboxEntryResponse
        ).entry

    def delete(self, wanted: str) -> objects_pb2.Deletion:
        """Deletes an object for good: it is gone here when this returns, and its hosts are told until each has heard.

        Safe to repeat by the object's id. Raises OffgridError (ObjectNotFound, ObjectInUse while a job needs it).
        """
        request = objects_pb2.DeleteObjectRequest(object=wanted)
        return self._calls.unary(
            "ObjectService/DeleteObject", request, objects_pb2.DeleteObjectResponse, timeout_s=DELETE_S
        ).deletion

    def deletions(self, *, untold_only: bool = False, limit: int | None = None) -> Iterator[objects_pb2.Deletion]:
        """What was deleted; of that, what some host has not heard of yet."""

        def fetch(size: int, token: str) -> tuple[list[objects_pb2.Deletion], str]:
            request = objects_pb2.ListDeletionsRequest(page_size=size, page_token=token, untold_only=untold_only)
            page = self._calls.unary("ObjectService/ListDeletions", request, objects_pb2.ListDeletionsResponse)
            return [*page.deletions], page.next_page_token

        return pages(fetch, limit)

    def regained(self, *, limit: int | None = None) -> Iterator[objects_pb2.RegainedObject]:
        """What the node had forgotten with its disk and hosts were found to keep: what it has taken back, and what not
        yet. Of the latter `delete` gives one up, by its id."""

        def fetch(size: int, token: str) -> tuple[list[objects_pb2.RegainedObject], str]:
            request = objects_pb2.ListRegainedRequest(page_size=size, page_token=token)
            page = self._calls.unary("ObjectService/ListRegained", request, objects_pb2.ListRegainedResponse)
            return [*page.objects], page.next_page_token

        return pages(fetch, limit)

    def share(self, wanted: str, node: str) -> objects_pb2.Object:
        """Lets a member (its id, the first characters of it, or its name) read the object. It hears of it as soon as it
        is alive."""
        request = objects_pb2.ShareObjectRequest(object=wanted, node=node)
        return self._calls.unary("ObjectService/ShareObject", request, objects_pb2.ShareObjectResponse).object

    def unshare(self, wanted: str, node: str) -> objects_pb2.Object:
        """The member is told of the object no more; what it has read, and the key that it had, stay with it."""
        request = objects_pb2.UnshareObjectRequest(object=wanted, node=node)
        return self._calls.unary("ObjectService/UnshareObject", request, objects_pb2.UnshareObjectResponse).object

    def scrub(self, wanted: str = "", *, bytes_per_s: int = 0) -> Iterator[objects_pb2.ScrubReplicasResponse]:
        """Has this node read all that it keeps for others now, or one object (by its id, or the first characters of
        it), and says how far it is; the last message has `done`. What is damaged or gone its owner is told.

        `bytes_per_s` is the most that it reads, 0 as much as the disk gives while other work goes first. It ends when
        nobody takes its messages any more, and with the node: OffgridError, and nothing is read again by itself.
        """
        request = objects_pb2.ScrubReplicasRequest(object=wanted, bytes_per_s=bytes_per_s)
        return self._calls.stream("ObjectService/ScrubReplicas", request, objects_pb2.ScrubReplicasResponse)

    def audit(self, wanted: str) -> objects_pb2.AuditObjectResponse:
        """Asks all hosts of an object of this node's own to show that they have what they acked; what they have not is
        brought anew. A few bytes of each, unless their answers do not tell who is right: then the shards are read."""
        request = objects_pb2.AuditObjectRequest(object=wanted)
        return self._calls.unary(
            "ObjectService/AuditObject", request, objects_pb2.AuditObjectResponse, timeout_s=AUDIT_S
        )

    def rotate_keys(self) -> int:
        """Begins a new data key and answers its number: wraps are rewritten from then on (`data_keys` says how far that
        has come), and no byte of an object moves. Not repeated by itself: each rotates once more."""
        request = objects_pb2.RotateDataKeysRequest(number=self.data_keys().number)
        answer = self._calls.unary("ObjectService/RotateDataKeys", request, objects_pb2.RotateDataKeysResponse)
        return answer.number

    def data_keys(self) -> objects_pb2.GetDataKeysResponse:
        """Which data key is in use, and how far objects are wrapped for it, or sealed anew."""
        request = objects_pb2.GetDataKeysRequest()
        return self._calls.unary("ObjectService/GetDataKeys", request, objects_pb2.GetDataKeysResponse)

    def reencrypt(self) -> objects_pb2.Reencryption:
        """Has the node seal each object anew, under another key of its own, that was sealed before the data key of now.
        It does so in the background, whoever goes or comes; `data_keys` says how far it is. An object has another id by
        that, and is found by those of before as well. Safe to repeat."""
        request = objects_pb2.ReencryptObjectsRequest()
        answer = self._calls.unary(
            "ObjectService/ReencryptObjects", request, objects_pb2.ReencryptObjectsResponse, timeout_s=REENCRYPT_S
        )
        return answer.reencryption

    def stop_reencryption(self) -> objects_pb2.Reencryption:
        """What has been sealed anew stays so, the others as they are. Safe to repeat."""
        request = objects_pb2.StopReencryptionRequest()
        answer = self._calls.unary("ObjectService/StopReencryption", request, objects_pb2.StopReencryptionResponse)
        return answer.reencryption

    # ---- out

    def read(
        self,
        wanted: str,
        *,
        offset: int = 0,
        length: int | None = None,
        on_progress: Progress = _silent,
        timeout_s: float = PATIENCE_S,
    ) -> bytes:
        """The object, or a range of it, in memory; as `fetch`."""
        held = io.BytesIO()
        self.fetch(wanted, held, offset=offset, length=length, on_progress=on_progress, timeout_s=timeout_s)
        return held.getvalue()

    def open(self, wanted: str, *, timeout_s: float = PATIENCE_S) -> io.BufferedReader:
        """The object as a binary file to read and to seek in; close it when done. It reads ahead of a reader that goes
        from front to back, and holds some MiB at most."""
        return reader_of(self._calls, self.get(wanted), timeout_s)

    def fetch(
        self,
        wanted: str,
        target: str | os.PathLike[str] | BinaryIO,
        *,
        offset: int = 0,
        length: int | None = None,
        on_progress: Progress = _silent,
        on_wait: Callable[[str], None] = _silent,
        timeout_s: float = PATIENCE_S,
        resume: bool = False,
    ) -> int:
        """Writes an object, or `length` bytes of it from `offset` on, to a file (by its path) or a binary stream;
        returns how much.

        A file appears whole, or not at all: what was there before stays until then. A device or pipe is written to.
        A part that no host gives is asked for again for `timeout_s`, and `on_wait` is told why it does not come; then
        OffgridError (NoReplica) names the hosts. With `resume` a file that is broken off leaves what came of it, hidden
        beside it, and the same call goes on behind what of that proves right.
        """
        made = self.get(wanted)
        size = made.size_bytes
        if not 0 <= offset <= size or (length is not None and not 0 <= length <= size - offset):
            raise ValueError(f"{length} bytes from {offset} on are not within {made.object_id}, which has {size}")
        parts = Parts(self._calls, exactly(made), timeout_s)
        end = size if length is None else offset + length
        if not isinstance(target, str | os.PathLike):
            return parts.copy(offset, end, target, on_progress, on_wait)
        if not resume:
            with replaced(target) as file:
                return parts.copy(offset, end, file, on_progress, on_wait)
        with resumed(target, made.object_id, offset, end) as (partial, here):
            parts.copy(offset + here, end, partial, lambda done, _: on_progress(here + done, end - offset), on_wait)
        return end - offset
