"""What a running node and its members answer, and what the doctor makes of that: each fault, and it alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from offgrid.client import OffgridError
from offgrid.v1.common_pb2 import LIVENESS_ALIVE, LIVENESS_DEAD, ROLE_BROKER, ROLE_CORE, ROLE_HOST
from offgrid.v1.ledger_pb2 import GetLedgerStatusResponse, Witness
from offgrid.v1.links_pb2 import AirLeft, CheckPeersResponse, Link, LinkFigure, ListLinksResponse, PeerCheck
from offgrid.v1.mesh_pb2 import ALERT_STATE_WARN, Alert, GetStatusResponse, Member, ObjectRisks, Peer
from offgrid.v1.state_pb2 import Backup, Event, ListBackupsResponse, Session
from offgrid_node import __version__
from offgrid_node.config import load, template
from offgrid_node.doctor import State, clock, company, devices, files, lan, live
from offgrid_node.doctor.findings import Needs
from offgrid_node.doctor.lan import Heard
from offgrid_node.doctor.meeting import Met
from offgrid_node.doctor.running import examine
from offgrid_node.doctor.subject import Subject

NOW_US = 4_000_000_000_000_000  # long after this program was installed
HOUR_US, MIB = 3_600_000_000, 1024 * 1024
CHECKS = tuple(
    check
    for module in (clock, company, devices, live)
    for check in module.CHECKS
    if check.needs is Needs.RUNNING or module is clock
)


def peer(name: str, **told: object) -> Peer:
    member = Member(node_id=name.ljust(32, "a"), name=name)
    usual = {"liveness": LIVENESS_ALIVE, "roles_in_force": [ROLE_BROKER, ROLE_HOST], "version": __version__}
    return Peer(member=member, **{**usual, "addresses": ["10.0.0.2:7440"], **told})  # type: ignore[arg-type]


@dataclass
class Node:
    """A healthy core with a healthy neighbour; tests make one thing of it wrong."""

    status: GetStatusResponse = field(
        default_factory=lambda: GetStatusResponse(
            version=__version__, roles=[ROLE_CORE], uptime_ms=86_400_000, objects=ObjectRisks()
        )
    )
    peers: list[Peer] = field(
        default_factory=lambda: [peer("here", self=True, roles_in_force=[ROLE_CORE]), peer("there")]
    )
    checks: list[PeerCheck] = field(
        default_factory=lambda: [PeerCheck(name="there", clock_ahead_us=20_000, reaches_us=True)]
    )
    links: list[Link] = field(default_factory=list)
    ledger: GetLedgerStatusResponse = field(default_factory=GetLedgerStatusResponse)
    backups: list[Backup] = field(default_factory=lambda: [Backup(path="/b.zip", made_us=NOW_US - HOUR_US)])
    events: list[Event] = field(default_factory=list)
    sessions: list[Session] = field(default_factory=list)
    settings: dict[str, object] = field(default_factory=dict)
    gateways: dict[tuple[str, str], str] = field(default_factory=dict)
    """Those that its config names, and why nobody answers there."""

    def _events(self, since_us: int = 0, types: Iterable[str] = (), **_: object) -> Iterator[Event]:
        found = (each for each in self.events if each.timestamp_us >= since_us)
        return (each for each in found if not types or each.type in types)

    def subject(self, folder: Path) -> Subject:
        path = folder / "offgrid.toml"
        path.write_text(template("home", "here", ("core",), values=self.settings))
        subject = Subject(folder, {}, lambda: NOW_US)
        subject.status = self.status
        subject.once("gateways", lambda: self.gateways)
        subject.client = cast(
            "None",
            SimpleNamespace(
                mesh=SimpleNamespace(peers=lambda: iter(self.peers)),
                links=SimpleNamespace(
                    list=lambda: ListLinksResponse(links=self.links),
                    check_peers=lambda timeout_s: CheckPeersResponse(peers=self.checks),
                ),
                jobs=SimpleNamespace(list=lambda **_: iter(())),
                objects=SimpleNamespace(outbox=lambda **_: iter(())),
                ledger=SimpleNamespace(status=lambda: self.ledger),
                backups=SimpleNamespace(list=lambda: ListBackupsResponse(backups=self.backups)),
                events=SimpleNamespace(list=self._events),
                sessions=SimpleNamespace(list=lambda **_: iter(self.sessions)),
                close=lambda: None,
            ),
        )
        assert load(path, {}).node.roles == ("core",)
        return subject


def make(**changed: object) -> Callable[[Node], None]:
    return lambda node: [setattr(node, key, value) for key, value in changed.items()] and None


def told(**fields: object) -> Callable[[Node], None]:
    """Of the status."""
    return lambda node: node.status.MergeFrom(GetStatusResponse(**fields))  # type: ignore[arg-type]


def away(node: Node) -> None:
    node.peers = [*node.peers, peer("barn", liveness=LIVENESS_DEAD)]


GATEWAY = "http://barn:8081/"


def a_web_server_that_is_no_node(node: Node) -> None:
    node.settings, node.gateways = {"storage.hosts": [GATEWAY]}, {("storage.hosts", GATEWAY): ""}
    node.status.notices.append("storage.hosts = http://barn:8081: it does not say which node it is: Not Found")


def nobody_at_a_gateway(node: Node) -> None:
    node.settings, node.gateways = {"storage.hosts": [GATEWAY]}, {("storage.hosts", GATEWAY): "Connection refused"}
    node.status.notices.append("storage.hosts = http://barn:8081: it does not say which node it is: Connection refused")


def only_broker_away(node: Node) -> None:
    node.peers = [node.peers[0], peer("there", roles_in_force=[ROLE_HOST]), peer("hub", roles_in_force=[ROLE_BROKER])]
    node.peers[2].liveness = LIVENESS_DEAD


def losing(**risks: object) -> Callable[[Node], None]:
    """What the node says of its objects, with barn away."""

    def change(node: Node) -> None:
        away(node)
        node.status.objects.MergeFrom(ObjectRisks(away=["barn".ljust(32, "a")], **risks))  # type: ignore[arg-type]

    return change


BARN_AWAY = ("members", State.WARNING, "barn is out of reach", "ping")
LORA = "lora:/dev/ttyUSB0?region=EU868"
WITNESSES = [Witness(name="barn", weight_milli=1000, away_ms=60_000), Witness(name="here", weight_milli=1000)]
CUT_OFF = GetLedgerStatusResponse(enabled=True, open=True, quorum_milli=2000, reach_milli=1000, witnesses=WITNESSES)
MUTED = GetLedgerStatusResponse(enabled=True, open=True, muted_why="it was restored from a backup")

CASES: dict[str, tuple[Callable[[Node], None], Iterable[tuple[str, State, str, str]]]] = {
    "healthy": (lambda node: None, ()),
    "removed": (
        told(removed=True), [("membership", State.FAULT, "was removed from its mesh", "offgrid-node join TOKEN")]
    ),
    "members refuse it": (
        told(notices=["no member accepts this node: was it removed?"]),
        [("membership", State.FAULT, "members are there and refuse this node", "offgrid-node join TOKEN")],
    ),
    "a member is away": (away, [("members", State.WARNING, "barn is out of reach: 10.0.0.2:7440: no answer", "ping")]),
    "all members are away": (
        make(peers=[peer("here", self=True, roles_in_force=[ROLE_BROKER]), peer("barn", liveness=LIVENESS_DEAD)]),
        [("members", State.FAULT, "barn is out of reach", "ping -c 3 10.0.0.2")],
    ),
    "objects are one host from their end": (
        losing(at_risk=6, at_risk_names=["film", "notes"]),
        [
            BARN_AWAY,
            (
                "objects",
                State.WARNING,
                "6 objects are lost with one more host: film, notes and 4 more; their hosts that are away: barn",
                "offgrid-node run",
            ),
        ],
    ),
    "an object cannot be read": (
        losing(gone=1, gone_names=["film"]),
        [BARN_AWAY, ("objects", State.FAULT, "1 object cannot be read now: film; their hosts that are away", "run")],
    ),
    "a host that had it is no member any more": (
        lambda node: node.status.objects.MergeFrom(ObjectRisks(at_risk=1, at_risk_names=["film"], away=["x"])),
        [("objects", State.WARNING, "1 object is lost with one more host: film", "ls --at-risk")],
    ),
    "what is being repaired is no finding": (losing(degraded=9), [BARN_AWAY]),
    "their alerts are said once": (
        lambda node: node.status.MergeFrom(
            GetStatusResponse(
                objects=ObjectRisks(at_risk=1, at_risk_names=["film"]),
                alerts=[Alert(name="objects_at_risk", state=ALERT_STATE_WARN, value=1)],
            )
        ),
        [("objects", State.WARNING, "1 object is lost with one more host: film", "ls --at-risk")],
    ),
    "no broker is known": (
        make(peers=[peer("here", self=True, roles_in_force=[ROLE_CORE]), peer("there", roles_in_force=[ROLE_HOST])]),
        [("broker", State.WARNING, "no member of this mesh is a broker; jobs stay", "mesh invite --role broker")],
    ),
    "the broker is away": (
        only_broker_away,
        [
            ("members", State.WARNING, "hub is out of reach", "ping"),
            ("broker", State.WARNING, "no broker is in reach: hub", "offgrid-node run"),
        ],
    ),
    "others cannot come in": (
        make(checks=[PeerCheck(name="there", clock_ahead_us=0, reaches_us=False)]),
        [("reached", State.FAULT, "there cannot call this node at 10.0.0.2:7440", "sudo ufw allow 7440/tcp")],
    ),
    "this clock is wrong": (
        make(checks=[PeerCheck(name=name, clock_ahead_us=3 * HOUR_US) for name in "abc"]),
        [("clocks", State.WARNING, "this machine's clock is 3 h behind the members'", "timedatectl")],
    ),
    "a member's clock is wrong": (
        make(checks=[PeerCheck(name=name, clock_ahead_us=-3 * HOUR_US * (name == "b")) for name in "abc"]),
        [("clocks", State.WARNING, "the clock of b is 3 h behind this machine's", "timedatectl")],
    ),
    "the clock was put back": (
        make(events=[Event(timestamp_us=NOW_US + 2 * 24 * HOUR_US)]),
        [("clock", State.WARNING, "2 d before an event of this node's journal", "timedatectl")],
    ),
    "the clock was put back while it ran": (
        make(events=[Event(type="NODE_STARTED", timestamp_us=NOW_US - 21 * HOUR_US)]),
        [("clock", State.WARNING, "was set back by 3 h since the node was started", "timedatectl")],
    ),
    "only smoke has a session": (make(sessions=[Session(session_id="s-1", name="offgrid-smoke")]), ()),
    "nobody could read what sessions said": (
        make(sessions=[Session(session_id="s-1")]),
        [("recovery-key", State.WARNING, "nobody can read it once this disk is lost", "state recovery-key")],
    ),
    "a member runs another version": (
        make(peers=[peer("here", self=True), peer("there", version="0.0.9")]),
        [("versions", State.WARNING, "other versions than this node's", "peers")],
    ),
    "it runs another version than is installed": (
        told(version="0.0.9"), [("versions", State.WARNING, "the node runs version 0.0.9", "offgrid-node run")]
    ),
    "a link is down": (
        make(links=[Link(link=LORA, figures=[LinkFigure(name="trouble", value="unplugged")])]),
        [("airtime", State.WARNING, "is down: unplugged", "link list")],
    ),
    "the airtime is used up": (
        make(links=[Link(link=LORA, up=True, left=[AirLeft(urgency=1), AirLeft(urgency=3)])]),
        [("airtime", State.FAULT, "has used up the airtime", "link airtime")],
    ),
    "witnesses are away": (
        make(ledger=CUT_OFF),
        [("ledger", State.WARNING, "weigh 1 of the 2 that it takes: no payment becomes final. Away: barn", "ledger")],
    ),
    "it is mute in the ledger": (
        make(ledger=MUTED), [("ledger", State.FAULT, "restored from a backup", "offgrid-node rotate identity")]
    ),
    "backups are late": (
        make(backups=[Backup(made_us=NOW_US - 30 * HOUR_US)], events=[Event(timestamp_us=NOW_US - 29 * HOUR_US)]),
        [("backups", State.WARNING, "no backup was made for 3 times state.backup_interval", "state backup")],
    ),
    "nothing has happened since the newest backup": (make(backups=[Backup(made_us=NOW_US - 30 * HOUR_US)]), ()),
    "a backup lacks rows": (
        make(backups=[Backup(path="/b.zip", made_us=NOW_US, damaged_total=3)]),
        [("backups", State.WARNING, "/b.zip lacks 3 rows", "state verify-backup /b.zip")],
    ),
    "backups are off": (
        make(settings={"state.backup_interval": 0}), [("backups", State.WARNING, "makes no backups", "state backup")]
    ),
    "a figure is beyond its threshold": (
        told(alerts=[Alert(name="memory_mb", state=ALERT_STATE_WARN, value=5000, threshold=4096)]),
        [("alerts", State.WARNING, "warn: memory_mb 5000, more than 4096", "status")],
    ),
    "it says something else": (
        told(notices=["the store is damaged: a row"]), [("notices", State.WARNING, "the store is damaged", "status")]
    ),
    "it says of a gateway what no other check could see": (
        a_web_server_that_is_no_node,
        [("notices", State.WARNING, "it does not say which node it is: Not Found", "status")],
    ),
    "nobody is at a gateway, which its own check says": (nobody_at_a_gateway, ()),
    "it lacks a package": (
        told(notices=["the copy is behind: the extra `sql` is not installed: pip install 'offgrid-node[sql]'"]),
        [("notices", State.WARNING, "the extra `sql` is not installed", "pip install 'offgrid-node[sql]'")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_is_named_and_nothing_else(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(company, "meet", lambda address: (Met.SILENCE, ""))
    change, expected = CASES[name]
    node = Node()
    change(node)
    findings = examine(node.subject(tmp_path), CHECKS, 60.0)
    said = [each for each in findings if each.state in (State.FAULT, State.WARNING)]
    assert [(each.check, each.state) for each in said] == [(check, state) for check, state, _, _ in expected], said
    for each, (_, _, sentence, command) in zip(said, expected, strict=True):
        assert sentence in each.sentence
        assert command in each.command


def test_a_member_without_a_network_tells_an_address_at_which_this_machine_meets_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(company, "meet", lambda address: (Met.THERE, "of another"))
    node = Node()
    for addresses, says in (
        (["127.0.0.1:7440"], "it seems to be in no network"),
        (["127.0.0.1:7440", "10.0.0.3:7440"], "another node than that is there"),
    ):
        node.peers = [node.peers[0], peer("there"), peer("barn", liveness=LIVENESS_DEAD, addresses=addresses)]
        [finding] = examine(node.subject(tmp_path), [each for each in company.CHECKS if each.name == "members"], 60.0)
        assert says in finding.sentence


@pytest.mark.parametrize(
    ("heard", "sentence"),
    [
        (Heard(own=True), ""),
        (Heard(), "mDNS is not let in (UDP port 5353, IPv4)"),
        (Heard(refused="Operation not permitted"), "mDNS cannot be sent, so nobody finds this node by itself"),
    ],
)
def test_a_firewall_on_this_machine_that_stops_mdns(
    heard: Heard, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lan, "own_ips", lambda: ["10.0.0.1"])
    monkeypatch.setattr(lan, "ask_by_multicast", lambda ips: heard)
    [finding] = examine(Node().subject(tmp_path), [each for each in lan.CHECKS if each.name == "mdns"], 60.0)
    assert finding.state is (State.FAULT if sentence else State.OK)
    assert sentence in finding.sentence
    assert finding.command == ("sudo ufw allow 5353/udp" if sentence else "")


def test_a_token_that_the_running_node_does_not_take(tmp_path: Path) -> None:
    node = Node(settings={"admin.address": "127.0.0.1:7999"})
    subject = node.subject(tmp_path)
    subject.status, subject.trouble = None, OffgridError("UNAUTHENTICATED", "Unauthenticated", "the token is wrong")
    named = [check for check in files.CHECKS if check.name in ("process", "token")]
    process, token = examine(subject, named, 60.0)
    assert (process.state, token.state) == (State.OK, State.FAULT)
    assert "does not take the token in" in token.sentence
    assert "offgrid-node run" in token.command


def test_a_member_that_up_has_made_beside_this_node_is_started_by_up(tmp_path: Path) -> None:
    subject = cast("Subject", SimpleNamespace(path=tmp_path / "core"))
    assert live.starting(subject, peer("barn")) == "offgrid-node run   # on that machine"
    (tmp_path / "mesh.json").write_text("{}")
    (tmp_path / "barn").mkdir()
    (tmp_path / "barn" / "offgrid.toml").write_text("")
    assert live.starting(subject, peer("barn")) == f"offgrid-node up --dir {tmp_path}"
    assert live.starting(subject, peer("attic")) == "offgrid-node run   # on that machine"
