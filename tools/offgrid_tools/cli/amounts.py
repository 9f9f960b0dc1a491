"""Amounts and weights as people write them: decimal on the command line alone, integers elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import click

MICRO_PLACES, MILLI_PLACES = 6, 3
MICRO_MAX, WEIGHT_MILLI_MAX = 2**63 - 1, 1_000_000_000

_DECIMAL = re.compile(r"([0-9]{1,30})(?:\.([0-9]{1,30}))?\Z", re.ASCII)


def scaled(text: str, places: int, most: int) -> int:
    """ "12.5" with 3 places → 12500, exactly. Raises ValueError, saying what is wrong and what is allowed."""
    found = _DECIMAL.match(text)
    allowed = f"a number such as 12 or 12.5, with at most {places} places"
    if found is None:
        raise ValueError(f"{text[:40]!r} is no amount; allowed is {allowed}")
    whole, places_given = found[1], found[2] or ""
    if len(places_given) > places:
        raise ValueError(f"{text[:40]} has {len(places_given)} places behind the point; allowed is {allowed}")
    value = int(whole + places_given.ljust(places, "0"))
    if value > most:
        raise ValueError(f"{text[:40]} is more than {shown(most, places)}, the most that is allowed")
    return value


def shown(value: int, places: int) -> str:
    """The inverse of `scaled`, without zeros that say nothing."""
    whole, rest = divmod(value, 10**places)
    return f"{whole}.{rest:0{places}d}".rstrip("0").rstrip(".")


def credits_of(micro: int) -> str:
    """Millionths as credits, exactly: 12500000 → "12.5"."""
    return shown(micro, MICRO_PLACES)


def weight_of(milli: int) -> str:
    """Thousandths as people write weights, always with a point: 2000 → "2.0"."""
    text = shown(milli, MILLI_PLACES)
    return text if "." in text else f"{text}.0"


_REFUSALS = {
    "AmountTooLarge": "{total} with its fee is too much: {most} at most are allowed",
    "FeeTooLow": "a fee of {fee} is too low: this ledger takes {least} at least",
    "InsufficientFunds": "the transfer needs {needed} with its fee; the account has {available} that are final and not "
    "spoken for",
    "SupplyTooLarge": "all balances together are {supply}: {most} at most are allowed",
}


def refusal_in_credits(reason: str, metadata: Mapping[str, str]) -> str:
    """A refusal over amounts as a sentence for people: nodes name amounts in millionths, apart from their own sentence.
    "" where it is about something else."""
    named = {
        name.removesuffix("_micro"): credits_of(int(amount))
        for name, amount in metadata.items()
        if name.endswith("_micro") and amount.isdecimal()
    }
    try:
        return _REFUSALS.get(reason, "").format_map(named)
    except KeyError:  # a node of another version names other amounts
        return ""


class _Decimal(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2 only; 8.1 is allowed
    """A decimal as an integer of its smallest part; more than none, unless `zero` is allowed."""

    def __init__(self, places: int, most: int, zero: bool = False) -> None:
        self._places, self._most, self._zero = places, most, zero

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            parts = scaled(value, self._places, self._most)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if parts == 0 and not self._zero:
            self.fail("it must be more than 0", param, ctx)
        return parts


class Amount(_Decimal):
    """Credits as integer millionths; more than none, unless `zero` is allowed."""

    name = "amount"

    def __init__(self, *, zero: bool = False) -> None:
        super().__init__(MICRO_PLACES, MICRO_MAX, zero)


class Weight(_Decimal):
    """A weight such as 2.0, more than none, as integer thousandths."""

    name = "weight"

    def __init__(self) -> None:
        super().__init__(MILLI_PLACES, WEIGHT_MILLI_MAX)


def pairs(option: str, given: Iterable[str], *, bare: bool = False) -> dict[str, str]:
    """NAME=VALUE as often as it was given; with `bare` the value may be missing. Raises BadParameter."""
    found: dict[str, str] = {}
    for text in given:
        name, separator, value = text.partition("=")
        if not name or not (value or (bare and not separator)):
            form = "NAME or NAME=VALUE" if bare else "NAME=VALUE"
            raise click.BadParameter(f"{text!r} is not of the form {form}", param_hint=option)
        if name in found:
            raise click.BadParameter(f"{name!r} is there twice", param_hint=option)
        found[name] = value
    return found


def numbered(option: str, given: dict[str, str], places: int, most: int) -> dict[str, int]:
    """The values of `pairs` as integers, 0 where there is none. Raises BadParameter that names the pair."""
    found = {}
    for name, value in given.items():
        try:
            found[name] = scaled(value, places, most) if value else 0
        except ValueError as error:
            raise click.BadParameter(f"{name}: {error}", param_hint=option) from error
        if value and found[name] == 0 and places == MILLI_PLACES:
            raise click.BadParameter(f"{name}: a weight must be more than 0", param_hint=option)
    return found
