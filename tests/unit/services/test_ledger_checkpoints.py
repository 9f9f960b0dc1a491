"""What peers bring and ask of checkpoints: bounded, and each seal checked."""

from __future__ import annotations

import pytest
from ledger_house import BARN, NODE, House

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.errors import FailedPrecondition, InvalidRequest, NotFound, PeerFault
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.checkpoints import Checkpoint, cut_account
from offgrid_node.protocol.ledger.commands import CHECKPOINTS_MAX
from offgrid_node.protocol.ledger.receipts import Final
from offgrid_node.protocol.mesh.records import ROLES_ALL
from offgrid_node.services.caller import Caller, Kind

PEER = Caller(Kind.MEMBER, BARN.node_id, ROLES_ALL)
ZEROS = bytes(32)


@pytest.fixture
def house() -> House:
    house = House()
    house.open("hub", "barn")
    return house


def sealed(house: House) -> ledger_pb2.PushCheckpointsRequest:
    """A checkpoint that BARN has sealed; and it says that NODE has too."""
    ledger, salt = house.handlers._reads.ledger, house.directory.salt
    witnesses = ((NODE.node_id, 1_000), (BARN.node_id, 1_000))
    body = Checkpoint(ledger, 0, ledger, ZEROS, 0, 0, 0, ZEROS, ZEROS, ZEROS, witnesses, 1)
    final = Final(ledger, cut_account(ledger, 0, salt), 0, body.digest(salt), 0).digest(salt)
    request = ledger_pb2.PushCheckpointsRequest()
    one = request.checkpoints.add(body=body.encode())
    for node in (BARN, NODE):
        one.seals.add(witness=node_id_bytes(node.node_id), signature=BARN.sign(final))
    return request


def ask_barn(house: House) -> None:
    house.handlers._machine()._bootstrap._asked = BARN.node_id


def test_only_seals_that_hold_count(house: House) -> None:
    request = sealed(house)
    command = house.handlers._checks.checkpoints(BARN.node_id, request, house.handlers._reads.ledger)
    good = node_id_bytes(BARN.node_id), request.checkpoints[0].seals[0].signature
    assert [one.seals for one in command.checkpoints] == [(good,)]
    ask_barn(house)
    house.ask("push_checkpoints", sealed(house), PEER)


def test_what_nobody_asked_for_is_not_checked(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(house.handlers._checks, "checkpoints", None)
    with pytest.raises(FailedPrecondition, match="asked for no checkpoints"):
        house.ask("push_checkpoints", sealed(house), PEER)


def test_too_many_or_what_is_none_is_refused(house: House) -> None:
    ask_barn(house)
    many = ledger_pb2.PushCheckpointsRequest(checkpoints=[ledger_pb2.SealedCheckpoint()] * (CHECKPOINTS_MAX + 1))
    with pytest.raises(PeerFault, match=f"{CHECKPOINTS_MAX}, "):
        house.ask("push_checkpoints", many, PEER)
    none = ledger_pb2.PushCheckpointsRequest(checkpoints=[ledger_pb2.SealedCheckpoint(body=b"x")])
    with pytest.raises(PeerFault, match="checkpoint"):
        house.ask("push_checkpoints", none, PEER)


def test_accounts_are_told_of_epochs_that_are_kept_alone(house: House) -> None:
    with pytest.raises(NotFound, match="epoch 1"):
        house.ask("list_epoch_accounts", ledger_pb2.ListEpochAccountsRequest(epoch=1), PEER)
    with pytest.raises(InvalidRequest, match="20"):
        house.ask("list_epoch_accounts", ledger_pb2.ListEpochAccountsRequest(epoch=1, after=b"x"), PEER)
