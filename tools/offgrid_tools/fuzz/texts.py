"""Targets of what people write: descriptions of links, addresses, and files of regions. Nothing is opened."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from offgrid_tools.fuzz.script import Script
from offgrid_transports.lora.modulation import PARAMETERS, from_spec
from offgrid_transports.lora.opening import RULES, band_of, open_rnode, region_of
from offgrid_transports.lora.regions import load_regions, parse_regions
from offgrid_transports.registry import SPEC_CHARS_MAX, TransportRegistry, parse_spec
from offgrid_transports.transport import BadSpec
from offgrid_transports.udp_sockets import SCOPES, name_of, parse_address


def descriptions(data: bytes) -> None:
    """A link's description is taken apart, or refused with a sentence; what was understood is written so that it is
    understood again. A radio's is read to the end."""
    text = data.decode("utf-8", errors="surrogateescape")
    with _refusing():
        spec = parse_spec(text)
        assert len(text) <= SPEC_CHARS_MAX
        assert spec.target
        TransportRegistry({"lora": open_rnode}).check(text)
        if "regions" in spec.params:  # a file of this machine's
            return
        spec.check_names((*RULES, *PARAMETERS))
        region = region_of(spec)
        modulation = from_spec(spec, region.usual_hz if region else 0)
        assert modulation.airtime_us(254) > 0
        band_of(spec, region, modulation)


def addresses(data: bytes) -> None:
    """An address of a datagram is read, or refused with a sentence; what was read can be sent to, and is named so that
    it is read again."""
    text = data.decode("utf-8", errors="surrogateescape")
    try:
        found = parse_address(text)
    except ValueError:
        return
    assert 0 <= found.port < 65_536, f"{found} cannot be sent to"
    assert 0 <= found.scope < SCOPES, f"{found} cannot be sent to"
    assert parse_address(name_of(found.sockaddr)) == found


def regions(data: bytes) -> None:
    """A file of regions is read, or refused with the place of a mistake; what it allows can be asked for."""
    script = Script(data)
    text = script.rest().decode("utf-8", errors="replace")
    with _refusing():
        for region in parse_regions(text, "regions.toml").values():
            for band in region.bands:
                assert 0 < band.low_hz < band.high_hz
                assert str(band)
                json.dumps([limit.window_us for limit in band.limits], allow_nan=False)


def own_regions(data: bytes) -> None:
    """The name of a file of regions, which there is none of."""
    with _refusing():
        load_regions("/nowhere/" + data.decode("utf-8", errors="surrogateescape"))
        raise AssertionError("a file that is not there was read")


@contextmanager
def _refusing() -> Iterator[None]:
    """BadSpec is what may be raised."""
    with suppress(BadSpec):
        yield
