"""Which code an object gets, and whether it is padded: what its put asks for, else what the config says."""

from __future__ import annotations

import msgspec

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.objects.manifest import FULL_COPIES, SHARDS_MAX, Code
from offgrid_node.protocol.objects.sizes import size_class
from offgrid_node.protocol.quorum.records import MEMBERS_MAX

AsksForCode = objects_pb2.OpenUploadRequest | objects_pb2.PutObjectRequest


class CodePolicy(msgspec.Struct, frozen=True):
    """Objects of at least `from_bytes` are coded, smaller ones are kept as full copies. `padded`: hosts are to know the
    classes of their sizes alone."""

    code: Code
    from_bytes: int
    padded: bool = False

    def pads(self, request: AsksForCode) -> bool:
        return request.padded if request.HasField("padded") else self.padded

    def code_for(self, request: AsksForCode, size_bytes: int) -> Code:
        """The request's is checked already. All of one class have one code, or that would part them."""
        if request.HasField("code"):
            return Code(request.code.needed, request.code.total)
        stored_bytes = size_class(size_bytes) if self.pads(request) else size_bytes
        return self.code if stored_bytes >= self.from_bytes and not request.copies else FULL_COPIES


NEVER_CODED = CodePolicy(FULL_COPIES, 0)


def check_code(request: AsksForCode) -> None:
    """Raises InvalidRequest."""
    if request.copies > MEMBERS_MAX:
        raise InvalidRequest.field("copies", f"{request.copies}; at most {MEMBERS_MAX} are allowed")
    if not request.HasField("code"):
        return
    needed, total = request.code.needed, request.code.total
    if request.copies:
        raise InvalidRequest.field("copies", "a coded object has no full copies; say only one of code and copies")
    if not 0 < needed < total <= SHARDS_MAX:
        text = f"{needed} of {total} shards; 1 to {SHARDS_MAX} in all are allowed, of which fewer are needed"
        raise InvalidRequest.field("code", text)
