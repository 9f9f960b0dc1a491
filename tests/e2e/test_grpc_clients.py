"""A client that is not ours (`buf curl`) finds and calls every service, over both ways in.

The lines for `grpcurl` are those of docs/api.md; only the flags are renamed, and what the shell would fill in is.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from live import BIN, Done, grpcurl_as_buf, log_of, run

from offgrid.v1 import mesh_pb2
from offgrid_node.local_mesh import LocalMesh, LocalNode

API = Path(__file__).parents[2] / "docs" / "api.md"

pytestmark = pytest.mark.xdist_group("mesh")

NAMES = (
    "Mesh", "Link", "Join", "Job", "Market", "Host", "Object", "Quorum", "Ledger", "State", "Session", "Memory",
    "Backup", "Mail",
)  # fmt: skip
SERVICES = {f"offgrid.v1.{name}Service" for name in NAMES} | {
    "grpc.health.v1.Health",
    "grpc.reflection.v1alpha.ServerReflection",
}

# One call of each service and, where it is refused there, the gRPC code that says so.
ADMIN_CALLS = {
    "offgrid.v1.MeshService/ListPeers": "",
    "offgrid.v1.JoinService/Join": "permission_denied",  # for strangers, at the door
    "offgrid.v1.JobService/ListMissions": "",
    "offgrid.v1.MarketService/ListOffers": "",
    "offgrid.v1.HostService/GetHost": "failed_precondition",  # of a node that is none
    "offgrid.v1.ObjectService/GetCapacity": "",
    "offgrid.v1.QuorumService/ListWeights": "",
    "offgrid.v1.LedgerService/GetGenesis": "",
    "offgrid.v1.StateService/ListEvents": "",
    "offgrid.v1.SessionService/ListSessions": "",
    "offgrid.v1.MemoryService/ListSummaries": "",
    "offgrid.v1.BackupService/ListBackups": "",
    "offgrid.v1.LinkService/ListLinks": "",
    "offgrid.v1.MailService/ListMail": "",
    "grpc.health.v1.Health/Check": "",
}
MEMBER_CALLS = ADMIN_CALLS | {
    "offgrid.v1.JobService/ListMissions": "permission_denied",  # the owner's
    "offgrid.v1.HostService/GetHost": "permission_denied",
    "offgrid.v1.StateService/ListEvents": "permission_denied",
    "offgrid.v1.SessionService/ListSessions": "permission_denied",
    "offgrid.v1.MemoryService/ListSummaries": "permission_denied",
    "offgrid.v1.BackupService/ListBackups": "permission_denied",
    "offgrid.v1.LinkService/ListLinks": "permission_denied",
    "offgrid.v1.MailService/ListMail": "permission_denied",
    "offgrid.v1.MeshService/Ping": "",
}


def written(node: LocalNode, kind: str) -> list[str]:
    """The written line for "unix" or "cacert", as a buf command without its method."""
    text = API.read_text(encoding="utf-8")
    (tls,) = re.findall(r'^tls="(.*)"$', text, re.MULTILINE)
    lines = [line.replace("$tls", tls) for line in text.splitlines() if line.startswith("grpcurl ")]
    line = next(line for line in lines if f"-{kind}" in line)
    port = re.search(r"mesh +port ([0-9]+)", log_of(node))
    assert port
    line = line.replace("$me", node.node_id).replace("$port", port[1]).replace(" data/", f" {node.folder}/data/")
    words = grpcurl_as_buf(line)
    assert words[-1].endswith("offgrid.v1.MeshService/GetStatus")
    return [*words[:-1], words[-1].removesuffix("/offgrid.v1.MeshService/GetStatus")]


def call(node: LocalNode, kind: str, method: str, request: str = "{}") -> Done:
    *flags, base = written(node, kind)
    return run([*flags, "-d", request, f"{base}/{method}"])


@pytest.mark.parametrize("kind", ["unix", "cacert"])
class TestBothWaysIn:
    def test_the_written_line_works_as_it_stands(self, mesh: LocalMesh, kind: str) -> None:
        *flags, base = written(mesh["core"], kind)
        done = run([*flags, f"{base}/offgrid.v1.MeshService/GetStatus"])
        assert done.code == 0, done.said
        assert json.loads(done.out)["nodeId"] == mesh["core"].node_id

    def test_reflection_lists_every_service(self, mesh: LocalMesh, kind: str) -> None:
        done = run([*written(mesh["core"], kind), "--list-services"])
        assert set(done.out.split()) == SERVICES, done.said

    def test_every_service_is_called(self, mesh: LocalMesh, kind: str) -> None:
        calls = ADMIN_CALLS if kind == "unix" else MEMBER_CALLS
        assert {method.partition("/")[0] for method in calls} == SERVICES - {"grpc.reflection.v1alpha.ServerReflection"}
        answers = {method: call(mesh["core"], kind, method) for method in calls}
        found = {m: json.loads(done.err)["code"] if done.code else "" for m, done in answers.items()}
        assert found == calls

    def test_health_of_each_service(self, mesh: LocalMesh, kind: str) -> None:
        done = call(mesh["core"], kind, "grpc.health.v1.Health/Check", '{"service": "offgrid.v1.JobService"}')
        assert json.loads(done.out) == {"status": "SERVING"}, done.said

    def test_an_error_carries_its_details(self, mesh: LocalMesh, kind: str) -> None:
        done = call(mesh["core"], kind, "offgrid.v1.MeshService/ListPeers", '{"pageToken": "%%%"}')
        error = json.loads(done.err)
        assert error["code"] == "invalid_argument", done.said
        assert {detail["type"] for detail in error["details"]} >= {"google.rpc.ErrorInfo", "google.rpc.BadRequest"}
        assert "page_token" in error["message"]


def schema_in(folder: Path) -> Path:
    """What MeshService is, for a client that is not let in to ask: its file and all that it imports."""
    known: dict[str, FileDescriptor] = {}

    def take(file: FileDescriptor) -> None:
        for imported in file.dependencies:
            take(imported)
        known[file.name] = file

    take(mesh_pb2.DESCRIPTOR)
    files = FileDescriptorSet()
    for file in known.values():
        file.CopyToProto(files.file.add())
    path = folder / "schema.binpb"
    path.write_bytes(files.SerializeToString())
    return path


def test_the_mesh_port_lets_nobody_in_without_a_certificate(mesh: LocalMesh, tmp_path: Path) -> None:
    *_, base = written(mesh["core"], "cacert")
    name = f"{mesh['core'].node_id}.node"
    identity = mesh["core"].folder / "data" / "tls" / "identity.pem"
    buf: list[str | Path] = [
        BIN / "buf",
        "curl",
        "--schema",
        schema_in(tmp_path),
        "--protocol",
        "grpc",
        "--cacert",
        identity,
        "--servername",
        name,
    ]
    done = run([*buf, "-d", "{}", f"{base}/offgrid.v1.MeshService/GetStatus"])
    # TLS 1.3 tells the client only after it has begun to write: buf names it after whichever it noticed first.
    assert json.loads(done.err)["code"] in ("unavailable", "canceled"), done.said
    assert done.out == ""


def test_a_member_calls_another_with_its_own_certificate(mesh: LocalMesh) -> None:
    """host-a's PEM files at the broker's port, whose identity it must name."""
    *_, base = written(mesh["broker"], "cacert")
    own, theirs = (mesh[name].folder / "data" / "tls" for name in ("host-a", "broker"))
    files: list[str | Path] = [
        "--cacert",
        theirs / "identity.pem",
        "--cert",
        own / "chain.pem",
        "--key",
        own / "leaf.key",
    ]
    name = f"{mesh['broker'].node_id}.node"
    buf: list[str | Path] = [BIN / "buf", "curl", "--protocol", "grpc", *files, "--servername", name]
    done = run([*buf, "-d", "{}", f"{base}/offgrid.v1.MarketService/ListOffers"])
    assert len(json.loads(done.out)["entries"]) == 3, done.said
    refused = run([*buf, "-d", "{}", f"{base}/offgrid.v1.MarketService/SubmitJobs"])
    assert json.loads(refused.err)["code"] == "permission_denied", refused.said


def test_private_files_are_private(mesh: LocalMesh) -> None:
    folder = mesh["core"].folder
    for path in ("keys/node.key", "keys/mesh_root.key", "data/tls/leaf.key", "data/offgrid.sock"):
        assert (folder / path).stat().st_mode & 0o777 == 0o600, path
