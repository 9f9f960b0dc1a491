"""Which holds a transaction of this node's has funded that it has forgotten."""

from __future__ import annotations

from collections.abc import Container, Iterable

from offgrid_node.protocol.ledger.records import Tx, decode_meta
from offgrid_node.protocol.ledger.sources import TIME_MAX, HoldTerms


def regained(tx: Tx, own: bytes, key: int, nodes: Iterable[bytes], held: Container[bytes]) -> list[HoldTerms]:
    """Those that are not among the held; their payees are among these nodes, `key` is the newest of this node's."""
    said = decode_meta(tx.meta)
    numbers = said.get("expires", ""), said.get("number", "")
    if tx.source.signer != own or said.get("action") != "hold" or not all(map(_is_number, numbers)):
        return []  # a transfer that people made may say anything
    wanted = {account: (place, funds) for place, (account, funds) in enumerate(tx.outputs)}
    expires, first = map(int, numbers)
    found: dict[bytes, HoldTerms] = {}
    for payee, number in ((payee, number) for payee in nodes for number in range(key + 1)):
        for account, (place, funds) in wanted.items() if payee != own else ():
            terms = HoldTerms(own, payee, first + place, funds, tx.fee_micro, expires, number)
            if terms.account == account and account not in held:
                found[account] = terms
        if len(found) == len(wanted):
            break
    return [*found.values()]


def _is_number(text: str) -> bool:
    """Of those that a hold's terms have room for, with as many added as one transaction funds."""
    return text.isascii() and text.isdecimal() and len(text) < len(str(TIME_MAX))
