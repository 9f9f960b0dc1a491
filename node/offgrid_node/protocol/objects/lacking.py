"""Why an object that is not durable yet comes no further now, in words for people."""

from __future__ import annotations

from collections.abc import Sequence

from offgrid_node.protocol.objects.parcels import Parcel
from offgrid_node.protocol.objects.placement import members_of
from offgrid_node.protocol.objects.preference import Host
from offgrid_node.protocol.quorum.enough import decimal, weight_of

PLACEMENT_SAYS = "`offgrid placement explain` says of each why"


def lack_of(parcel: Parcel, hosts: Sequence[Host], *, roomless: bool) -> str:
    """Of an open parcel for which nothing is under way; `roomless`: living hosts take nothing of it."""
    required = decimal(parcel.required_milli)
    if not hosts:
        return f"required {required}, but no host is known besides this node, whose own copy does not count"
    known = sum(member.weight_milli for member in members_of(hosts))
    if known < parcel.required_milli:
        return f"required {required}, but the hosts known weigh {decimal(known)} altogether"
    if roomless:
        return f"hosts have no room for {parcel.size_bytes} bytes, keep nothing or are drained; " + PLACEMENT_SAYS
    if parcel.coded and parcel.terms.promised_milli < parcel.required_milli:
        promised = decimal(parcel.terms.promised_milli)
        return f"required {required}, but as its shards can lie on the hosts of now, {promised} lost would lose it"
    return f"no further host is alive: acked {decimal(weight_of(parcel.held, parcel.weights))} of {required}"


def damage_of(parcel: Parcel) -> str:
    """Of one whose copy here is not what was put, and whose hosts have vouched for too little to make it anew."""
    there = f"its hosts have acked {parcel.shards_held} of the {parcel.shards_needed} shards that are needed"
    if not parcel.coded:
        there = "no host has acked one"
    return f"this node's copy is damaged, and {there}: it is lost unless you put it again; delete this one"
