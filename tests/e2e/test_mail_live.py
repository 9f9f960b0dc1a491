"""Mail between two nodes that never run at the same time, by way of a third, as people send and read it."""

from __future__ import annotations

import json
from pathlib import Path

from live import SAY_HI, eventually, mesh_of, offgrid

from offgrid.v1.mail_pb2 import MailState
from offgrid_node.local_mesh import LocalMesh, LocalNode

TEXT = "The pump is fixed."


def state(node: LocalNode, number: int) -> str:
    with node.client() as client:
        return MailState.Name(client.mail.get(number).mail.state).removeprefix("MAIL_STATE_")


def started(mesh: LocalMesh, name: str) -> LocalNode:
    mesh[name].run("run")
    mesh[name].wait_ready()
    return mesh[name]


def held(node: LocalNode) -> int:
    with node.client() as client:
        return client.mail.mailbox().count


def test_a_message_and_a_job_wait_for_a_node_that_is_away_and_the_answers_for_their_sender(tmp_path: Path) -> None:
    module, notes = tmp_path / "hi.wasm", tmp_path / "notes.txt"
    module.write_bytes(SAY_HI)
    notes.write_text("a note")
    roles = {"alice": ["core"], "box": ["host"], "carol": ["core", "broker", "host"]}
    with mesh_of(tmp_path, roles, mail__jobs_from=["alice"]) as mesh:
        alice, box, carol = (mesh[name] for name in roles)
        assert carol.stop() == 0

        sent = offgrid(alice, "--json", "mail", "send", "carol", "--text", TEXT)
        assert sent.code == 0, sent.said
        text_number = int(json.loads(sent.out)["mail"]["number"])
        sent = offgrid(alice, "--json", "mail", "job", "carol", notes, "--wasm", module)
        assert sent.code == 0, sent.said
        job_number = int(json.loads(sent.out)["mail"]["number"])
        eventually(lambda: held(box) == 2, "the box has custody")
        assert [state(alice, number) for number in (text_number, job_number)] == ["HELD", "HELD"]
        assert alice.stop() == 0

        started(mesh, "carol")
        eventually(lambda: len(_inbox(carol)) == 1, "carol has the message")
        (message,) = _inbox(carol)
        assert (message["source"], message["read"]) == (alice.node_id, False)
        assert "new messages: 1" in offgrid(carol, "status").out
        assert TEXT in offgrid(carol, "mail", "read", message["message_id"]).out
        with box.client() as client:
            eventually(
                lambda: (
                    {parcel.destination for parcel in client.mail.held()} == {alice.node_id}
                    and client.mail.mailbox().count == 2
                ),
                "both answers are in the box",
            )
        assert carol.stop() == 0

        started(mesh, "alice")
        for number in (text_number, job_number):
            eventually(lambda n=number: state(alice, n) == "ANSWERED", f"the answer to {number} is here")
        shown = offgrid(alice, "mail", "show", str(job_number), "--output", "-")
        assert (shown.code, shown.out) == (0, "hi"), shown.said
        assert "answered" in offgrid(alice, "mail", "sent").out
        assert held(box) == 0


def _inbox(node: LocalNode) -> list[dict[str, str]]:
    listed = offgrid(node, "--json", "mail", "inbox")
    assert listed.code == 0, listed.said
    found: list[dict[str, str]] = json.loads(listed.out)["messages"]
    return found
