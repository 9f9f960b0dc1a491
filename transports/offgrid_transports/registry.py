"""From a description such as "lora:/dev/ttyUSB0?sf=8" to an open link.

A scheme is opened by whoever registered it under the entry point group `offgrid.transports`; a package outside this
project may add one. Opening never guesses: an unknown scheme, an unknown parameter or a value out of bounds is
refused with what is allowed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from urllib.parse import parse_qsl

import msgspec
from msgspec.structs import replace

from offgrid_transports.transport import BadSpec, LinkHost, Transport

GROUP = "offgrid.transports"
SPEC_CHARS_MAX = 512
PARAMS_MAX = 32
PRICE, PRICE_MAX = "price", 1_000.0
"""A parameter that links of all kinds have; none sees it: see `price`."""
SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,31}\Z")

Opener = Callable[["LinkSpec", LinkHost], Transport]


class LinkSpec(msgspec.Struct, frozen=True):
    """`scheme:target?name=value&…`, taken apart. Openers read parameters through `number` and `whole` and then call
    `check_names`."""

    scheme: str
    target: str
    params: Mapping[str, str] = msgspec.field(default_factory=dict)

    def __str__(self) -> str:
        query = "&".join(f"{name}={value}" for name, value in self.params.items())
        return f"{self.scheme}:{self.target}" + (f"?{query}" if query else "")

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """A parameter between `low` and `high`; raises BadSpec otherwise."""
        text = self.params.get(name)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise BadSpec(f"{self}: {name}={text}: allowed: a number from {low:g} to {high:g}")
        return value

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number between `low` and `high`; raises BadSpec otherwise."""
        value = self.number(name, default, low, high)
        if value != int(value):
            raise BadSpec(f"{self}: {name}={self.params[name]}: allowed: a whole number from {low} to {high}")
        return int(value)

    def without(self, name: str) -> LinkSpec:
        """The same but for that parameter."""
        return replace(self, params={key: value for key, value in self.params.items() if key != name})

    def check_names(self, allowed: Iterable[str]) -> None:
        """Raises BadSpec for a parameter that the link does not have."""
        names = sorted(allowed)
        for name in self.params:
            if name not in names:
                raise BadSpec(f"{self}: unknown parameter {name!r}. {_choices(name, names)}")


def parse_spec(text: str) -> LinkSpec:
    """Takes a description apart; raises BadSpec when it has no scheme, no target or doubled parameters."""
    if len(text) > SPEC_CHARS_MAX:
        raise BadSpec(f"a link's description has at most {SPEC_CHARS_MAX} characters; this one has {len(text)}")
    scheme, colon, rest = text.partition(":")
    if not colon or not SCHEME.match(scheme):
        raise BadSpec(f"{text!r}: allowed: scheme:target?name=value, such as memory:a or lora:/dev/ttyUSB0?sf=8")
    target, _, query = rest.partition("?")
    if not target:
        raise BadSpec(f"{text!r}: nothing stands after {scheme!r}; name a device or an address")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query), max_num_fields=PARAMS_MAX)
    except ValueError as error:
        raise BadSpec(f"{text!r}: parameters are written name=value&name=value, at most {PARAMS_MAX}") from error
    params = dict(pairs)
    if len(params) != len(pairs):
        raise BadSpec(f"{text!r}: a parameter stands there twice")
    return LinkSpec(scheme, target, params)


class TransportRegistry:
    """The link kinds that this process can open."""

    def __init__(self, openers: Mapping[str, Opener | EntryPoint]) -> None:
        self._openers = dict(openers)

    @classmethod
    def installed(cls) -> TransportRegistry:
        """Every kind that an installed package registers. Nothing is imported before it is opened."""
        return cls({point.name: point for point in entry_points(group=GROUP)})

    @property
    def schemes(self) -> tuple[str, ...]:
        return tuple(sorted(self._openers))

    def check(self, text: str) -> LinkSpec:
        """The description taken apart, of a kind that is there. Raises BadSpec."""
        spec = parse_spec(text)
        if spec.scheme not in self._openers:
            raise BadSpec(f"{text!r}: no link of kind {spec.scheme!r}. {_choices(spec.scheme, self.schemes)}")
        spec.number(PRICE, 0.0, 0.0, PRICE_MAX)
        return spec

    def price(self, text: str) -> float | None:
        """How many milliseconds a message would rather wait than use a millisecond of that link; None where its owner
        has not said. Raises BadSpec."""
        spec = self.check(text)
        return spec.number(PRICE, 0.0, 0.0, PRICE_MAX) if PRICE in spec.params else None

    def open(self, text: str, host: LinkHost) -> Transport:
        """Opens the link that `text` describes; raises BadSpec, or another TransportError of the link's own."""
        spec = self.check(text)
        opener = self._openers[spec.scheme]
        if not callable(opener):  # an EntryPoint, of whichever library: importlib_metadata brings its own
            try:
                opener = self._openers[spec.scheme] = opener.load()
            except (ImportError, AttributeError) as error:
                raise BadSpec(f"{text!r}: the plug-in {opener.value} cannot be loaded: {error}") from error
        return opener(spec.without(PRICE), host)


def _choices(word: str, names: Iterable[str]) -> str:
    names = list(names)
    near = difflib.get_close_matches(word, names, 1)
    return f"allowed: {', '.join(names) or 'none'}" + (f". did you mean {near[0]!r}?" if near else "")
