"""What a joiner looks at: refused is what would keep the node from running; all else is said, with what to do."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from offgrid.v1 import mesh_pb2
from offgrid_node.config import Config, load, template
from offgrid_node.doctor.findings import fault, warning
from offgrid_node.doctor.meeting import Met
from offgrid_node.doctor.ports import why_not
from offgrid_node.joining_checks import check_alone, check_room, clock_remarks, explained, free_ports, plainly
from offgrid_node.keys import NodeKey
from offgrid_node.protocol.errors import AlreadyExists, FailedPrecondition, NotFound, PermissionDenied, Unavailable

HOUR_US = 3_600_000_000
NOON_US = 1_795_435_200_000_000  # 2026-11-23 12:00 UTC


def config_in(folder: Path, **values: object) -> Config:
    path = folder / "offgrid.toml"
    path.write_text(
        template("home", "attic", ("host",), values={key.replace("__", "."): v for key, v in values.items()})
    )
    return load(path, {})


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody has; the next two are free."""
    while True:
        port = random.randrange(20_000, 30_000)
        if all(why_not("127.0.0.1", port + more) is None for more in range(4)):
            break
    with socket.create_server(("127.0.0.1", port)):
        yield port


class TestPorts:
    def test_one_that_is_taken_is_followed_by_the_next_that_is_free(self, tmp_path: Path, taken: int) -> None:
        config = config_in(tmp_path, mesh__listen=f"127.0.0.1:{taken}", mesh__door="", gateway__listen="off")
        said = list[str]()
        assert free_ports(config, {}, said.append) == {"mesh.listen": f"127.0.0.1:{taken + 1}"}
        [sentence] = said
        assert "mesh.listen" in sentence
        assert sentence.endswith(f"this node takes 127.0.0.1:{taken + 1}")

    def test_no_two_keys_get_the_same(self, tmp_path: Path, taken: int) -> None:
        at = f"127.0.0.1:{taken}"
        config = config_in(tmp_path, mesh__listen=at, metrics__listen=f"127.0.0.1:{taken + 1}", gateway__listen="off")
        found = free_ports(config, {}, lambda sentence: None)
        assert found["mesh.listen"] == f"127.0.0.1:{taken + 2}"

    def test_one_that_was_asked_for_is_refused_and_a_free_one_named(self, tmp_path: Path, taken: int) -> None:
        at = f"127.0.0.1:{taken}"
        config = config_in(tmp_path, mesh__listen=at, mesh__door="", gateway__listen="off")
        with pytest.raises(FailedPrecondition, match=rf"--set mesh.listen=127.0.0.1:{taken + 1}") as caught:
            free_ports(config, {"mesh.listen": at}, lambda sentence: None)
        assert caught.value.reason == "AddressInUse"


class TestRoom:
    def test_a_full_disk_is_refused_before_anybody_is_asked(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        config = config_in(tmp_path)
        monkeypatch.setattr("offgrid_node.joining_checks.disks", lambda _: [fault("the disk is full", "du")])
        with pytest.raises(Unavailable, match=r"the disk is full\. Make room"):
            check_room(config, lambda sentence: None)

    def test_one_that_is_nearly_full_is_told_of(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        said = list[str]()
        monkeypatch.setattr("offgrid_node.joining_checks.disks", lambda _: [warning("little is free", "du")])
        check_room(config_in(tmp_path), said.append)
        assert said == ["little is free"]


class TestClock:
    def test_a_minute_is_nothing(self) -> None:
        grant = mesh_pb2.JoinGrant(clock_us=NOON_US)
        assert not list(clock_remarks(NOON_US + 59_000_000, grant))
        assert not list(clock_remarks(NOON_US - 59_000_000, grant))

    @pytest.mark.parametrize(("off_us", "says"), [(-3 * HOUR_US, "3 h behind"), (40 * 24 * HOUR_US, "40 d ahead of")])
    def test_more_is_said_with_the_command_that_sets_it(self, off_us: int, says: str) -> None:
        [remark] = clock_remarks(NOON_US + off_us, mesh_pb2.JoinGrant(clock_us=NOON_US))
        assert f"this machine's clock is {says} the inviter's" in remark
        assert "sudo date -u -s '2026-11-23 12:00:00'" in remark

    def test_a_door_of_before_says_nothing_of_its_clock(self) -> None:
        assert not list(clock_remarks(NOON_US, mesh_pb2.JoinGrant()))


class TestRefusals:
    @pytest.mark.parametrize(
        ("refusal", "says"),
        [
            (PermissionDenied("this invite does not open this door", reason="InviteRefused"), "offgrid mesh invite"),
            (FailedPrecondition("this invite was used already", reason="InviteUsed"), "offgrid mesh invite"),
            (AlreadyExists("a member is called 'a' already", reason="NameTaken"), "--name NAME"),
        ],
    )
    def test_they_say_what_to_do(self, refusal: FailedPrecondition, says: str) -> None:
        told = explained(refusal)
        assert (type(told), told.reason) == (type(refusal), refusal.reason)
        assert told.message.startswith(refusal.message)
        assert says in told.message

    def test_any_other_stays_as_it_is(self) -> None:
        other = NotFound("nothing")
        assert explained(other) is other


def test_a_copied_folder_is_found_out_where_the_other_one_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    key, other = NodeKey(bytes(32)), NodeKey(bytes(range(32)))
    shows = {"10.0.0.1:7440": other.node_id, "10.0.0.2:7440": key.node_id}
    monkeypatch.setattr("offgrid_node.joining_checks.meet", lambda address: (Met.THERE, shows.get(address, "")))
    check_alone(key, ["10.0.0.1:7440", "10.0.0.9:7440"])
    with pytest.raises(FailedPrecondition, match=r"runs at 10\.0\.0\.2:7440: was its folder copied"):
        check_alone(key, shows)


BY_GRPC = "failed to connect to all addresses; last error: "


@pytest.mark.parametrize(
    ("said", "plain"),
    [
        (
            f"{BY_GRPC}UNKNOWN: ipv4:10.0.0.1:1: Failed to connect: connect: Connection refused (111)",
            "connection refused",
        ),
        (f"{BY_GRPC}UNKNOWN: addr: ipv4:10.0.0.1:1 error: Network is unreachable", "network is unreachable"),
        ("the door is closed: come back later", "the door is closed: come back later"),
    ],
)
def test_a_connection_that_failed_is_told_of_in_the_systems_words(said: str, plain: str) -> None:
    assert plainly(said) == plain
