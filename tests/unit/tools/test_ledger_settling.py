"""The figure of what settling costs: a small run of it, every host paid once."""

from __future__ import annotations

from offgrid_tools.bench.ledger_settling import settle_receipts


def test_more_receipts_of_as_many_hosts_cost_no_more_bytes() -> None:
    few, many = settle_receipts(hosts=4, receipts=40), settle_receipts(hosts=4, receipts=400)
    assert few.paid_once
    assert many.paid_once
    assert few.vouchers == many.vouchers == 8, "one for each host and batch"
    assert many.bytes_per_host < few.bytes_per_host * 1.05
