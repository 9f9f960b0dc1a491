"""From "lora:/dev/ttyUSB0?region=EU868&sf=8" to an open link, for each kind of modem."""

from __future__ import annotations

from offgrid_transports.line import DeviceLine
from offgrid_transports.lora.modem import Modem
from offgrid_transports.lora.modulation import PARAMETERS, Modulation, from_spec
from offgrid_transports.lora.radio import RadioLink
from offgrid_transports.lora.regions import Band, Region, load_regions
from offgrid_transports.lora.rnode import POWER_DBM_MAX as RNODE_POWER_DBM_MAX
from offgrid_transports.lora.rnode import RNode
from offgrid_transports.registry import LinkSpec
from offgrid_transports.transport import BadSpec, LinkHost

RULES = ("region", "regions", "gain")
ANTENNA_DBI = 2.15


def region_of(spec: LinkSpec) -> Region | None:
    """The region that a description names; None when it names none, and then nothing may be sent."""
    name = spec.params.get("region")
    if name is None:
        return None
    regions = load_regions(spec.params.get("regions", ""))
    if name not in regions:
        raise BadSpec(f"{spec}: region={name}: allowed: {', '.join(sorted(regions))}, or a region of regions=FILE")
    return regions[name]


def band_of(spec: LinkSpec, region: Region | None, modulation: Modulation) -> Band | None:
    """The band whose rules hold for `modulation`; raises BadSpec when there is none."""
    if region is None:
        return None
    return region.band_for(modulation, spec.number("gain", ANTENNA_DBI, -20, 60))


def open_rnode(spec: LinkSpec, host: LinkHost) -> RadioLink:
    """Opens "lora:DEVICE": a modem with the RNode firmware."""
    spec.check_names((*RULES, *PARAMETERS))
    region = region_of(spec)
    modulation = from_spec(spec, region.usual_hz if region else 0)
    if modulation.power_dbm > RNODE_POWER_DBM_MAX:
        raise BadSpec(f"{spec}: power={modulation.power_dbm}: an RNode has at most {RNODE_POWER_DBM_MAX} dBm")
    return _link(spec, RNode(modulation), band_of(spec, region, modulation), host)


def _link(spec: LinkSpec, modem: Modem, band: Band | None, host: LinkHost) -> RadioLink:
    return RadioLink(spec.target, DeviceLine(spec.target), modem, band, host)
