"""The client over a node's gateway, by gRPC-Web: what comes through, what is refused, and whose fault it is."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from google.protobuf.message import Message

sys.path.insert(0, str(Path(__file__).parent / "gateway"))
from fake_handlers import Answer, router_of
from serving_app import app_of, ask, request, serving

from offgrid.client import Client, OffgridError, connect
from offgrid.client.web_calls import KEPT_S
from offgrid.v1 import jobs_pb2, mesh_pb2, objects_pb2
from offgrid_node.gateway.access import policy_of
from offgrid_node.gateway.grpc_web import TYPE, grpc_web_routes
from offgrid_node.gateway.server import KEEP_ALIVE_S
from offgrid_node.gateway.sign_ins import SignIns
from offgrid_node.protocol.errors import FieldViolation, InvalidRequest, NotFound, Unavailable
from offgrid_node.services.stream import Stream

TOKEN = "a-token-of-enough-letters"


def play(answers: dict[str, Answer], talk: Callable[[Client], None], *, token: str = "", policy: Any = None) -> None:
    """`talk` in a thread of its own, with a client of a gateway that answers so."""
    stopping = asyncio.Event()

    async def scenario(port: int) -> None:
        def with_client() -> None:
            with connect(f"http://127.0.0.1:{port}", timeout_s=10, reconnect_s=0.1, token=token) as client:
                talk(client)

        await asyncio.to_thread(with_client)

    routes = grpc_web_routes(router_of(answers), stopping)
    serving(app_of(routes, policy) if policy is not None else app_of(routes), scenario)


def saying(answer: Any) -> Answer:
    def handler(_: Message) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer() if callable(answer) else answer

    return handler


def test_a_call_and_the_next_one_over_the_same_connection() -> None:
    def talk(client: Client) -> None:
        assert [client.mesh.status().name for _ in range(3)] == ["attic"] * 3

    play({"MeshService/GetStatus": saying(mesh_pb2.GetStatusResponse(name="attic"))}, talk)


def test_what_the_node_refuses_is_the_same_error_as_over_its_socket() -> None:
    fault = InvalidRequest("title: too long", violations=[FieldViolation("title", "at most 200 characters — ü")])

    def talk(client: Client) -> None:
        with pytest.raises(OffgridError) as caught:
            client.missions.create("x")
        error = caught.value
        assert (error.code, error.reason) == ("INVALID_ARGUMENT", fault.reason)
        assert [(v.field, v.description) for v in error.violations] == [("title", "at most 200 characters — ü")]

    play({"JobService/CreateMission": saying(fault)}, talk)


def stream_of(*messages: Message, fault: Any = None) -> Callable[[], Stream]:
    def made() -> Stream:
        stream: Stream = Stream()
        for message in messages:
            stream.push(message)
        stream.end(fault)
        return stream

    return made


def test_a_stream_comes_message_by_message_and_ends() -> None:
    jobs = [jobs_pb2.WatchJobResponse(job=jobs_pb2.Job(job_id="j-1", state=state)) for state in (3, 4, 5)]

    def talk(client: Client) -> None:
        assert [job.state for job in client.jobs.watch("j-1")] == [3, 4, 5]

    play({"JobService/WatchJob": saying(stream_of(*jobs))}, talk)


def test_an_empty_message_comes_as_soon_as_it_is_sent() -> None:
    """Such is the first one of WatchJobs: it says that the watch has begun."""

    def begun() -> Stream:
        stream: Stream = Stream()
        stream.push(jobs_pb2.WatchJobsResponse())
        return stream

    def talk(client: Client) -> None:
        watching = client._calls.stream("JobService/WatchJobs", jobs_pb2.WatchJobsRequest(), jobs_pb2.WatchJobsResponse)
        assert next(iter(watching)) == jobs_pb2.WatchJobsResponse()
        watching.close()

    play({"JobService/WatchJobs": saying(begun)}, talk)


def test_a_stream_that_fails_says_why() -> None:
    def talk(client: Client) -> None:
        with pytest.raises(OffgridError) as caught:
            list(client.objects.scrub("o-1"))
        assert caught.value.reason == "NoSuch"

    play({"ObjectService/ScrubReplicas": saying(stream_of(fault=NotFound("no", reason="NoSuch")))}, talk)


def test_a_large_piece_comes_whole() -> None:
    data = bytes(range(256)) * 4096
    answer = objects_pb2.ReadObjectResponse(data=data)

    def talk(client: Client) -> None:
        found = client._calls.unary("ObjectService/ReadObject", objects_pb2.ReadObjectRequest(), type(answer))
        assert bytes(found.data) == data

    play({"ObjectService/ReadObject": saying(answer)}, talk)


def test_a_gateway_that_asks_for_a_token_is_given_it() -> None:
    policy = policy_of((), SignIns(TOKEN, "offgrid"))
    answers = {"MeshService/GetStatus": saying(mesh_pb2.GetStatusResponse(name="attic"))}
    play(answers, _named, token=TOKEN, policy=policy)

    def refused(client: Client) -> None:
        with pytest.raises(OffgridError) as caught:
            client.mesh.status()
        assert caught.value.code == "UNAUTHENTICATED"
        assert caught.value.reason

    play(answers, refused, token="x" * 20, policy=policy_of((), SignIns(TOKEN, "offgrid")))
    play(answers, refused, policy=policy_of((), SignIns(TOKEN, "offgrid")))


def _named(client: Client) -> None:
    assert client.mesh.status().name == "attic"


def test_a_node_that_is_busy_is_asked_again_as_over_its_socket() -> None:
    answers = [Unavailable("just now", reason="Busy", retry_ms=1), mesh_pb2.GetStatusResponse(name="attic")]

    def handler(_: Message) -> Any:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    play({"MeshService/GetStatus": handler}, _named)


ENDED = b"\0\0\0\0\0\x80\0\0\0\x10grpc-status: 0\r\n"
WELL = b"HTTP/1.1 200 OK\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (TYPE.encode(), len(ENDED)) + ENDED


class DyingGateway:
    """Answers so many calls of each connection; the next one it carries out, and hangs up. `idle` hangs up before."""

    def __init__(self, *answered: int, idle: bool = False) -> None:
        self.paths: list[str] = []
        self._idle, self._listening = idle, socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.hung_up = threading.Event()
        threading.Thread(target=self._serve, args=(answered,), daemon=True).start()

    def _serve(self, answered: tuple[int, ...]) -> None:
        with self._listening:
            for count in answered:
                with self._listening.accept()[0] as peer:
                    for number in range(count + (not self._idle)):
                        if self._read(peer) and number < count:
                            peer.sendall(WELL)
                self.hung_up.set()

    def _read(self, peer: socket.socket) -> bool:
        """One call, unless the client has hung up."""
        head, _, body = peer.recv(1 << 16).partition(b"\r\n\r\n")
        if not head:
            return False
        self.paths.append(head.split()[1].decode())
        (length,) = (int(line.partition(b":")[2]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length"))
        while len(body) < length:
            body += peer.recv(1 << 16)
        return True


def test_what_may_have_been_carried_out_is_not_sent_again_by_itself() -> None:
    gateway = DyingGateway(1, 1)
    with connect(f"http://127.0.0.1:{gateway.port}", timeout_s=5) as client:
        client.mesh.status()
        with pytest.raises(OffgridError) as caught:
            client.mesh.invite()
    assert caught.value.code == "UNAVAILABLE"
    assert gateway.paths == ["/offgrid.v1.MeshService/GetStatus", "/offgrid.v1.MeshService/CreateInvite"]


def test_a_connection_that_the_node_has_closed_is_not_tried() -> None:
    gateway = DyingGateway(1, 1, idle=True)
    with connect(f"http://127.0.0.1:{gateway.port}", timeout_s=5) as client:
        client.mesh.status()
        assert gateway.hung_up.wait(5)
        client.mesh.invite()
    assert len(gateway.paths) == 2


def test_a_connection_that_the_node_is_about_to_close_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    assert KEPT_S < KEEP_ALIVE_S
    monkeypatch.setattr("offgrid.client.web_calls.KEPT_S", 0.0)
    gateway = DyingGateway(1, 1)
    with connect(f"http://127.0.0.1:{gateway.port}", timeout_s=5) as client:
        client.mesh.status()
        client.mesh.invite()
    assert len(gateway.paths) == 2


def test_nobody_there_and_another_program_there_are_told_apart() -> None:
    with connect("http://127.0.0.1:9", timeout_s=1) as client, pytest.raises(OffgridError) as caught:
        client.mesh.status()
    assert (caught.value.code, caught.value.reason) == ("UNAVAILABLE", "NoAnswer")

    async def scenario(port: int) -> None:
        def talk() -> None:
            with connect(f"http://127.0.0.1:{port}", timeout_s=5) as client, pytest.raises(OffgridError) as caught:
                client.mesh.status()
            assert caught.value.reason in ("UnknownPath", "NotANode")

        await asyncio.to_thread(talk)

    serving(app_of([]), scenario)


def test_an_https_url_of_what_speaks_none_says_so() -> None:
    async def scenario(port: int) -> None:
        def talk() -> None:
            with connect(f"https://127.0.0.1:{port}", timeout_s=5) as client, pytest.raises(OffgridError) as caught:
                client.mesh.status()
            assert (caught.value.code, caught.value.reason) == ("FAILED_PRECONDITION", "NoTls")

        await asyncio.to_thread(talk)

    serving(app_of([]), scenario)


def test_a_certificate_of_an_authority_that_is_not_known_is_not_taken_unless_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a proxy that speaks TLS before the gateway: here what answers is no node, but that is told by TLS alone."""
    certificate = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.05)

        def answer() -> None:
            while len(reasons) < 2:
                with contextlib.suppress(OSError), context.wrap_socket(listening.accept()[0], server_side=True) as peer:
                    peer.recv(1 << 16)
                    peer.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

        reasons = list[str]()
        answering = threading.Thread(target=answer, daemon=True)
        answering.start()
        url = f"https://127.0.0.1:{listening.getsockname()[1]}"
        for _ in range(2):
            with connect(url, timeout_s=5) as client, pytest.raises(OffgridError) as caught:
                client.mesh.status()
            reasons.append(caught.value.reason)
            monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        answering.join()
    assert reasons == ["Untrusted", "NotANode"]


def self_signed(folder: Path) -> Path:
    """A certificate for 127.0.0.1 and its key, in one file."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "barn")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    made = (
        builder.not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2100, 1, 1, tzinfo=UTC))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (folder / "barn.pem").write_bytes(made.public_bytes(Encoding.PEM) + secret)
    return folder / "barn.pem"


@pytest.mark.parametrize("url", ["http://", "http://a:b", "http://host/?x=1", "https://user@host", "http://h:99999999"])
def test_a_url_that_is_none_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(OffgridError) as caught:
        connect(url)
    assert (caught.value.code, caught.value.reason) == ("INVALID_ARGUMENT", "BadUrl")


@pytest.mark.parametrize(
    ("fields", "body", "status", "said"),
    [
        (("Content-Type: application/json",), b"{}", 415, b"NotGrpcWeb"),
        ((f"Content-Type: {TYPE}",), b"", 200, b"grpc-status: 3"),
        ((f"Content-Type: {TYPE}",), b"\0\0\0\0\5ab", 200, b"grpc-status: 3"),
        ((f"Content-Type: {TYPE}",), b"\1\0\0\0\0", 200, b"grpc-status: 3"),
        ((f"Content-Type: {TYPE}",), b"\0\0\0\0\2\xff\xff", 200, b"grpc-status: 3"),
        ((f"Content-Type: {TYPE}", "Grpc-Timeout: soon"), b"\0\0\0\0\0", 200, b"grpc-status: 3"),
        ((f"Content-Type: {TYPE}", "Origin: http://evil.example"), b"\0\0\0\0\0", 403, b"CrossSite"),
    ],
)
def test_what_is_no_call_is_refused_in_words(fields: tuple[str, ...], body: bytes, status: int, said: bytes) -> None:
    async def scenario(port: int) -> None:
        line = "POST /offgrid.v1.MeshService/GetStatus HTTP/1.1"
        raw = request(line, *fields, f"Content-Length: {len(body)}", body=body)
        got, _, text = await ask(port, raw)
        assert got == status
        assert said in text

    answers = {"MeshService/GetStatus": saying(mesh_pb2.GetStatusResponse())}
    serving(app_of(grpc_web_routes(router_of(answers), asyncio.Event())), scenario)
