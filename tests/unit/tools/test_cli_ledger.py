"""The money's commands: amounts exact at the edge, one payment for one request, and an end that says how it stands."""

from __future__ import annotations

import threading

import pytest
from cli_run import Run
from hypothesis import given
from hypothesis import strategies as st
from small_node import OTHER_ID, SmallNode

from offgrid.command_line import exits
from offgrid.v1 import ledger_pb2
from offgrid.v1.ledger_pb2 import LedgerEvent
from offgrid_node.protocol.errors import FailedPrecondition, FieldViolation, InvalidRequest
from offgrid_tools.cli.amounts import MICRO_MAX, MICRO_PLACES, credits_of, scaled, shown


class TestAmounts:
    @pytest.mark.parametrize(
        ("text", "micro"),
        [("1", 1_000_000), ("0.000001", 1), ("12.5", 12_500_000), ("007.10", 7_100_000), ("0", 0)],
    )
    def test_are_read_exactly(self, text: str, micro: int) -> None:
        assert scaled(text, MICRO_PLACES, MICRO_MAX) == micro

    @pytest.mark.parametrize(
        "text", ["", "-1", "+1", "1e3", "nan", "inf", "1,5", ".5", "5.", " 1", "1_000", "٣", "1.0000001", "1" * 31]
    )
    def test_anything_else_is_refused_and_said_why(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"allowed|the most"):
            scaled(text, MICRO_PLACES, MICRO_MAX)

    def test_the_largest(self) -> None:
        assert scaled("9223372036854.775807", MICRO_PLACES, MICRO_MAX) == MICRO_MAX
        with pytest.raises(ValueError, match=r"more than 9223372036854\.775807"):
            scaled("9223372036854.775808", MICRO_PLACES, MICRO_MAX)

    @given(st.integers(0, MICRO_MAX), st.sampled_from([3, 6]))
    def test_what_is_shown_reads_as_the_same(self, value: int, places: int) -> None:
        assert scaled(shown(value, places), places, MICRO_MAX) == value

    def test_are_shown_without_idle_zeros(self) -> None:
        assert [credits_of(n) for n in (0, 1, 1_000, 1_500_000, 10**12)] == ["0", "0.000001", "0.001", "1.5", "1000000"]


class TestTransfer:
    def test_waits_until_it_is_final(self, og: Run, node: SmallNode) -> None:
        code, out, err = og(
            "transfer", "--src", "attic", "--dst", "barn", "--amount", "12.5", "--meta", "action=read", "--meta", "n=1"
        )
        assert code == 0
        asked = node.calls["CreateTransfer"][0]
        assert (asked.src, asked.dst, asked.amount_micro, asked.fee_micro) == ("attic", "barn", 12_500_000, 0)
        assert dict(asked.meta) == {"action": "read", "n": "1"}
        for line in ("state     final", "to        barn: 12.5", "fee       0.001", "action  read", "3.0 of the 3.0"):
            assert line in out, out
        assert "at risk" not in out
        assert "waiting" in err

    def test_says_what_is_at_risk_when_it_is_not_final_in_time(self, og: Run) -> None:
        code, out, err = og("transfer", "--dst", "nobody", "--amount", "12.5", "--fee", "0.25", "--timeout", "0.2")
        assert code == exits.PENDING
        assert "state     signed" in out
        assert "votes     1.0 of the 3.0" in out
        assert "at risk   12.75: the payee has not got it" in out
        assert "do not send it again: offgrid tx show c0ffee" in err.splitlines()[-1]

    def test_without_waiting_it_is_done_once_it_is_signed(self, og: Run, node: SmallNode) -> None:
        code, out, err = og("transfer", "--dst", "nobody", "--amount", "1", "--no-wait")
        assert (code, err) == (0, "")
        assert "signed" in out
        assert not node.calls["WatchTransaction"]

    @pytest.mark.parametrize(
        ("reason", "amounts", "sentence"),
        [
            ("FeeTooLow", {"fee_micro": "500", "least_micro": "1000"},
             "a fee of 0.0005 is too low: this ledger takes 0.001 at least"),
            ("AmountTooLarge", {"total_micro": str(MICRO_MAX + 1), "most_micro": str(MICRO_MAX)},
             "9223372036854.775808 with its fee is too much: 9223372036854.775807 at most are allowed"),
            ("SupplyTooLarge", {"supply_micro": str(2**63), "most_micro": str(2**62)},
             "all balances together are 9223372036854.775808: 4611686018427.387904 at most are allowed"),
        ],
        ids=["FeeTooLow", "AmountTooLarge", "SupplyTooLarge"],
    )  # fmt: skip
    def test_a_refusal_over_amounts_is_in_credits(
        self, og: Run, node: SmallNode, reason: str, amounts: dict[str, str], sentence: str
    ) -> None:
        said = FieldViolation("fee_micro", "500; no less than 1000")
        node.stumble(
            "CreateTransfer", InvalidRequest("in millionths", reason=reason, violations=[said], metadata=amounts)
        )
        code, _, err = og("transfer", "--dst", "barn", "--amount", "1", "--fee", "0.0005")
        assert (code, err) == (exits.USAGE, f"offgrid: {sentence}\n")

    def test_repeated_with_one_request_id_it_pays_once(self, og: Run, node: SmallNode) -> None:
        for _ in range(2):
            assert og("transfer", "--dst", "barn", "--amount", "1", "--request-id", "rent-may")[0] == 0
        assert len(node.transactions) == 1
        assert og("transfer", "--dst", "barn", "--amount", "1")[0] == 0
        assert len(node.transactions) == 2

    @pytest.mark.parametrize(
        ("argv", "words"),
        [
            (["--amount", "0"], "--amount"),
            (["--amount", "1.0000001"], "at most 6 places"),
            (["--amount", "-5"], "is no amount"),
            (["--amount", "1", "--fee", "x"], "--fee"),
            (["--amount", "1", "--meta", "job"], "NAME=VALUE"),
            (["--amount", "1", "--meta", "a=1", "--meta", "a=2"], "twice"),
            ([], "--amount"),
        ],
    )
    def test_a_wrong_command_line_pays_nothing(self, og: Run, node: SmallNode, argv: list[str], words: str) -> None:
        code, out, err = og("transfer", "--dst", "barn", *argv)
        assert (code, out) == (exits.USAGE, "")
        assert words in err
        assert not node.calls

    def test_a_closed_ledger_says_how_it_is_opened(self, og: Run, node: SmallNode) -> None:
        node.stumble("CreateTransfer", FailedPrecondition("not open: offgrid ledger open", reason="LedgerNotOpen"))
        code, _, err = og("transfer", "--dst", "barn", "--amount", "1")
        assert code == exits.REFUSED
        assert err.count("offgrid ledger open") == 1, "the node's own sentence says it"

    def test_what_hangs_can_be_ended(self, og: Run, node: SmallNode) -> None:
        code, _, err = og("tx", "unlock")
        assert (code, "under way" in err) == (exits.REFUSED, True), err
        og("transfer", "--dst", "barn", "--amount", "1", "--no-wait")
        code, out, err = og("tx", "unlock")
        assert code == 0
        assert "waiting until its slot has ended" in err
        assert "state     final" in out
        assert len(node.calls["UnlockSlot"]) == 2

    def test_what_does_not_end_in_time_goes_on(self, og: Run, node: SmallNode) -> None:
        og("transfer", "--dst", "nobody", "--amount", "1", "--no-wait")
        code, out, _ = og("tx", "unlock", "--timeout", "0.05")
        assert code == exits.PENDING
        assert "at risk" in out

    def test_for_scripts(self, og: Run) -> None:
        tx = og.json("transfer", "--dst", "barn", "--amount", "0.05")["transaction"]
        assert isinstance(tx, dict)
        assert (tx["state"], tx["outputs"][0]["amount_micro"]) == ("TX_STATE_FINAL", 50_000)
        assert og.json("tx", "show", tx["tx_id"])["transaction"] == tx


class TestLookingAtIt:
    def test_a_balance(self, og: Run) -> None:
        code, out, _ = og("balance", "barn")
        assert code == 0
        assert "account    barn" in out
        assert "balance    999987.499\n" in out
        assert "going out  12.501\n" in out
        assert "coming in" not in out
        assert og.json("balance")["balance"]["final_micro"] == 999_987_499_000  # type: ignore[index]

    def test_all_balances_with_fees_and_supply(self, og: Run) -> None:
        lines = og("balance", "--all")[1].splitlines()
        assert [line.split()[0] for line in lines] == ["ACCOUNT", "attic", "barn", "shed", "fees"]
        assert lines[-1] == "fees 0.001, supply 2000000"
        assert len(og.json("balance", "--all")["balances"]) == 3  # type: ignore[arg-type]

    def test_one_account_or_all(self, og: Run, node: SmallNode) -> None:
        assert og("balance", "barn", "--all")[0] == exits.USAGE
        assert not node.calls
        assert og("balance", "nobody")[0] == exits.NOT_FOUND

    def test_history(self, og: Run) -> None:
        for amount in ("1", "2", "3"):
            og("transfer", "--dst", "barn", "--amount", amount, "--meta", "job_id=j-1")
        lines = og("history")[1].splitlines()
        assert [line.split()[6] for line in lines[1:]] == ["3", "2", "1"], lines
        assert lines[1].endswith("job_id=j-1")
        assert len(og("history", "--limit", "1")[1].splitlines()) == 2
        assert og("history", "--account", "shed")[1] == "there are no transactions\n"
        assert len(og.json("history", "--limit", "0")["transactions"]) == 3  # type: ignore[arg-type]

    def test_bookings(self, og: Run) -> None:
        lines = og("bookings")[1].splitlines()
        assert [line.split()[-1] for line in lines[1:4]] == ["owed", "c0ffeec0ffeec0ff", "c0ffeec0ffeec0ff"]
        assert lines[-1].startswith("0.05 owed")
        assert len(og.json("bookings", "--job", "j-1")["bookings"]) == 1  # type: ignore[arg-type]


class TestTheLedger:
    def test_opened_by_those_who_are_named(self, og: Run, node: SmallNode) -> None:
        code, out, _ = og(
            "ledger",
            "open",
            "--witness",
            "attic",
            "--witness",
            "barn=2.5",
            "--balance",
            "attic=0.25",
            "--balance",
            "b=3",
        )
        assert code == 0
        asked = node.calls["OpenLedger"][0]
        assert [(w.name, w.weight_milli) for w in asked.witnesses] == [("attic", 0), ("barn", 2_500)]
        assert [(b.name, b.final_micro) for b in asked.balances] == [("attic", 250_000), ("b", 3_000_000)]
        assert "supply     3.25 in 2 accounts" in out
        assert "survives   none lost or lying: that takes four equal ones" in out

    def test_opened_for_all_by_default(self, og: Run, node: SmallNode) -> None:
        assert og.json("ledger", "open")["open"] is True
        assert not node.calls["OpenLedger"][0].witnesses

    @pytest.mark.parametrize(
        ("argv", "sent", "shown"),
        [([], None, "0.001"), (["--fee", "0"], 0, "0"), (["--fee", "0.25"], 250_000, "0.25")],
        ids=["the usual one", "none", "one of its own"],
    )
    def test_its_least_fee_is_chosen_once(
        self, og: Run, node: SmallNode, argv: list[str], sent: int | None, shown: str
    ) -> None:
        assert f"fee       {shown} at least\n" in og("ledger", "open", *argv)[1]
        asked = node.calls["OpenLedger"][0]
        assert (asked.fee_micro if asked.HasField("fee_micro") else None) == sent

    @pytest.mark.parametrize(
        "argv",
        [["--fee", "-1"], ["--fee", "0.0000001"],
         ["--witness", "a=0"], ["--witness", "a=1.0001"], ["--witness", "a="], ["--witness", "a", "--witness", "a=1"],
         ["--balance", "a"], ["--balance", "a=x"], ["--balance", "=1"]],
        ids=" ".join,
    )  # fmt: skip
    def test_a_wrong_pair_is_named(self, og: Run, node: SmallNode, argv: list[str]) -> None:
        code, _, err = og("ledger", "open", *argv)
        assert code == exits.USAGE
        assert argv[0] in err
        assert not node.calls

    def test_status(self, og: Run) -> None:
        code, out, _ = og("ledger", "status")
        assert code == 0
        for line in (
            "witnesses  attic (1.5)",
            "quorum     2.667 of 1.5",
            "owed       0.05",
            "1 not final yet",
            "mute",
            "0.0025 at least",
        ):
            assert line in out, out
        assert out.splitlines()[-1].split() == ["barn", "7", "0b" * 8]
        assert og.json("ledger", "status")["heads"][0]["author"] == OTHER_ID  # type: ignore[index]
        assert "no vote" not in out

    @pytest.mark.parametrize("command", ["open", "status"])
    def test_names_witnesses_that_do_not_vote_and_what_to_do(
        self, og: Run, node: SmallNode, command: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("offgrid_tools.cli.ledger.MEET_S", 0)
        node.witnesses += [
            ledger_pb2.Witness(name="barn", weight_milli=1_000, state=ledger_pb2.WITNESS_STATE_ECONOMY_OFF),
            ledger_pb2.Witness(name="shed", weight_milli=1_000, state=ledger_pb2.WITNESS_STATE_UNHEARD),
            ledger_pb2.Witness(name="loft", weight_milli=1_000, state=ledger_pb2.WITNESS_STATE_HEARD),
        ]
        code, out, _ = og("ledger", command)
        assert code == 0
        assert "barn keeps out of the ledger: set economy.enabled = true there and start it again\n" in out
        assert "nothing has come from shed yet: is it running" in out
        assert "loft yet" not in out
        assert "the others weigh 2.5: nothing becomes final until enough are there\n" in out
        node.witnesses[-1].weight_milli = 5_000
        assert "no quorum" not in og("ledger", command)[1]

    def test_opening_it_waits_a_moment_for_its_witnesses(self, og: Run, node: SmallNode) -> None:
        barn = ledger_pb2.Witness(name="barn", weight_milli=1_000, state=ledger_pb2.WITNESS_STATE_UNHEARD)
        node.witnesses.append(barn)
        heard = threading.Timer(0.3, lambda: setattr(barn, "state", ledger_pb2.WITNESS_STATE_HEARD))
        heard.start()
        assert "no vote" not in og("ledger", "open")[1]
        heard.join()
        assert len(node.calls["GetLedgerStatus"]) > 1


def test_the_journals_words_on_it(og: Run, node: SmallNode) -> None:
    paid = LedgerEvent(tx_id="c0ffee", src=OTHER_ID, amount_micro=1_500_000, outcome="final")
    node.record(28, "TX_FINAL", "c0ffee", ledger=paid)
    node.record(29, "BLOCK_ADDED", f"{OTHER_ID}/7", ledger=LedgerEvent(src=OTHER_ID, height=7, outcome="3 items"))
    first, second = og("events")[1].splitlines()[1:]
    assert first.endswith(f"final: 1.5 from {OTHER_ID[:12]}")
    assert second.endswith("3 items")
