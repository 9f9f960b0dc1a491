"""From "lora:/dev/ttyUSB0?region=EU868&sf=8" to an open link, for each kind of modem."""

from __future__ import annotations

from offgrid_transports.line import DeviceLine
from offgrid_transports.lora.meshcore import POWER_DBM_MAX as MESHCORE_POWER_DBM_MAX
from offgrid_transports.lora.meshcore import MeshCore
from offgrid_transports.lora.meshtastic import Meshtastic
from offgrid_transports.lora.modem import Modem
from offgrid_transports.lora.modulation import PARAMETERS, Modulation, from_spec
from offgrid_transports.lora.radio import RadioLink
from offgrid_transports.lora.regions import Band, Region, load_regions
from offgrid_transports.lora.rnode import POWER_DBM_MAX as RNODE_POWER_DBM_MAX
from offgrid_transports.lora.rnode import RNode
from offgrid_transports.lora.streamapi import PRESETS, REGIONS, preset_modulation
from offgrid_transports.registry import LinkSpec
from offgrid_transports.transport import BadSpec, LinkHost

RULES = ("region", "regions", "gain")
ANTENNA_DBI = 2.15
HOPS_MAX = 7
LISTENING_HZ = 869_525_000  # of a device whose frequency does not matter, as it only listens


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
    modulation, band = _settings(spec, "an RNode", RNODE_POWER_DBM_MAX)
    return _link(spec, RNode(modulation), band, host)


def open_meshcore(spec: LinkSpec, host: LinkHost) -> RadioLink:
    """Opens "meshcore:DEVICE": a modem with MeshCore's KISS firmware."""
    modulation, band = _settings(spec, "a MeshCore modem", MESHCORE_POWER_DBM_MAX)
    return _link(spec, MeshCore(modulation), band, host)


def open_meshtastic(spec: LinkSpec, host: LinkHost) -> RadioLink:
    """Opens "meshtastic:DEVICE" or "meshtastic:tcp/HOST:4403": a Meshtastic device, whose settings stay as they are."""
    spec.check_names(("region", "preset", "hops"))
    preset, region = spec.params.get("preset", "LONG_FAST"), region_of(spec)
    if preset not in PRESETS:
        raise BadSpec(f"{spec}: preset={preset}: allowed: {', '.join(PRESETS)}")
    if region is not None and region.name not in REGIONS:
        raise BadSpec(f"{spec}: region={region.name}: allowed with Meshtastic: {', '.join(REGIONS)}")
    modulation = preset_modulation(preset, region.usual_hz if region else LISTENING_HZ)
    code = REGIONS[region.name] if region else 0
    modem = Meshtastic(modulation, preset, code, spec.whole("hops", 0, 0, HOPS_MAX), host.rng)
    return _link(spec, modem, band_of(spec, region, modulation), host)


def _settings(spec: LinkSpec, what: str, power_dbm_max: int) -> tuple[Modulation, Band | None]:
    spec.check_names((*RULES, *PARAMETERS))
    region = region_of(spec)
    modulation = from_spec(spec, region.usual_hz if region else 0)
    if modulation.power_dbm > power_dbm_max:
        raise BadSpec(f"{spec}: power={modulation.power_dbm}: {what} has at most {power_dbm_max} dBm")
    return modulation, band_of(spec, region, modulation)


def _link(spec: LinkSpec, modem: Modem, band: Band | None, host: LinkHost) -> RadioLink:
    return RadioLink(spec.target, DeviceLine(spec.target), modem, band, host)
