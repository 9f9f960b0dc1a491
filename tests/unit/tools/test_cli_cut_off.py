"""What a node says that cannot reach enough witnesses: who is away, since when, what is at risk, what it accepts."""

from __future__ import annotations

import pytest
from cli_run import Run
from small_node import SmallNode

from offgrid.command_line import exits
from offgrid.v1 import ledger_pb2

SENTENCE = "nothing becomes final until one of them is back"


@pytest.fixture
def alone(node: SmallNode) -> SmallNode:
    """Two of four are away."""
    node.witnesses = [
        ledger_pb2.Witness(name=name, weight_milli=1_000, state=ledger_pb2.WITNESS_STATE_HEARD, away_ms=away_ms)
        for name, away_ms in (("attic", 0), ("barn", 0), ("mill", 300_000), ("shed", 61_000))
    ]
    node.reach_milli = 2_000
    return node


class TestCutOff:
    @pytest.mark.parametrize(
        "argv",
        [("balance",), ("ledger", "status"), ("tx", "list", "--open"),
         ("transfer", "--dst", "nobody", "--amount", "1", "--timeout", "0.05")],
        ids=" ".join,
    )  # fmt: skip
    def test_is_said_wherever_money_is_looked_at(self, og: Run, alone: SmallNode, argv: tuple[str, ...]) -> None:
        _, out, _ = og(*argv)
        assert "2 of 4 witnesses are out of reach: mill for 5.0 min, shed for 1.0 min" in out, out
        assert f"those in reach weigh 2.0 of the 2.667 that it takes: {SENTENCE}" in out, out

    def test_is_said_of_a_transaction_that_is_not_final_and_of_no_other(self, og: Run, alone: SmallNode) -> None:
        og("transfer", "--dst", "nobody", "--amount", "1", "--no-wait")
        og("transfer", "--dst", "barn", "--amount", "1")
        waits, ended = alone.transactions
        assert SENTENCE in og("tx", "show", waits)[1]
        assert SENTENCE not in og("tx", "show", ended)[1]

    def test_names_how_many_must_be_back(self, og: Run, alone: SmallNode) -> None:
        alone.reach_milli, alone.witnesses[1].away_ms = 1_000, 1_000
        assert "3 of 4 witnesses are out of reach: barn for 1.0 s" in (out := og("balance")[1]), out
        assert "nothing becomes final until 2 of them are back" in out

    @pytest.mark.parametrize("argv", [("balance",), ("ledger", "status"), ("tx", "list", "--open")], ids=" ".join)
    def test_is_not_said_while_a_quorum_is_in_reach(self, og: Run, argv: tuple[str, ...]) -> None:
        assert "cut off" not in og(*argv)[1]

    def test_status_says_what_is_at_risk(self, og: Run, node: SmallNode) -> None:
        assert "at risk    12.501 going out, 7 coming in: offgrid tx list --open\n" in og("ledger", "status")[1]
        assert "accepted" not in og("ledger", "status")[1]
        node.accepted_micro = 5_000_000
        assert "accepted   5 of what comes in, within your credit lines" in og("ledger", "status")[1]

    def test_open_transactions_are_listed_with_what_they_have_gathered(self, og: Run, node: SmallNode) -> None:
        assert og("tx", "list", "--open")[1] == "everything is final or void\n"
        og("transfer", "--dst", "barn", "--amount", "1")
        og("transfer", "--dst", "nobody", "--amount", "2", "--no-wait")
        heading, row = og("tx", "list", "--open")[1].splitlines()
        assert heading.split()[-6:] == ["AT", "RISK", "VOTES", "CONFIRMS", "QUORUM", "ACCEPTED"]
        assert row.split()[-4:] == ["2.001", "1.0", "0.0", "3.0"]
        assert len(og("tx", "list")[1].splitlines()) == 3
        assert len(og.json("tx", "list", "--open")["transactions"]) == 1  # type: ignore[index, arg-type]


class TestCreditLines:
    def test_are_set_shown_and_taken_back(self, og: Run, node: SmallNode) -> None:
        assert "no credit line is set" in og("wallet", "credit")[1]
        code, out, _ = og("wallet", "credit", "barn", "12.5")
        assert (code, out.splitlines()[-1].split()) == (0, ["barn", "12.5", "0"])
        assert node.calls["SetCreditLine"][0].amount_micro == 12_500_000
        assert og("wallet", "credit", "barn", "0")[0] == 0
        assert node.calls["SetCreditLine"][1].amount_micro == 0
        assert og.json("wallet", "credit")["lines"][0]["payer_name"] == "barn"  # type: ignore[index]

    @pytest.mark.parametrize("argv", [("barn",), ("barn", "-1"), ("barn", "x"), ("barn", "1", "2")], ids=" ".join)
    def test_a_wrong_command_line_sets_nothing(self, og: Run, node: SmallNode, argv: tuple[str, ...]) -> None:
        assert og("wallet", "credit", *argv)[0] == exits.USAGE
        assert not node.calls

    def test_what_is_accepted_is_shown_apart_from_the_balance(self, og: Run, node: SmallNode) -> None:
        assert "accepted" not in og("balance")[1]
        node.accepted_micro = 5_000_000
        assert "accepted   5 of what comes in, within your credit lines; not to be spent yet\n" in og("balance")[1]
        og("transfer", "--dst", "nobody", "--amount", "2", "--no-wait")
        (tx,) = node.transactions.values()
        tx.accepted_micro = 2_000_000
        assert "2, within your credit line for attic" in og("tx", "show", tx.tx_id)[1]
