"""`offgrid-node join TOKEN`: makes this machine a member of the mesh that invited it.

The door is plain TCP: the joiner is nobody yet. Both sides prove the invite's secret by sealing what they say with
it, and the grant is checked from the mesh tag in the token upwards, so whoever sits in between can only be in the way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
from google.protobuf.message import DecodeError

from offgrid.v1 import mesh_pb2
from offgrid_node.discovery.addresses import join_address
from offgrid_node.folder import Folder, Made, name_or_default, open_store
from offgrid_node.joining_checks import (
    Multicast,
    Say,
    check_alone,
    check_room,
    clock_remarks,
    explained,
    free_ports,
    plainly,
    sentence,
)
from offgrid_node.keys import (
    NodeKey,
    check_identity_certificate,
    identity_certificate,
    open_sealed,
    seal,
    verify,
)
from offgrid_node.keys.store import key_path
from offgrid_node.protocol.errors import AlreadyExists, Fault, NotFound, PeerFault, Unavailable
from offgrid_node.protocol.ids import NAME
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.founding import adopt_grant, held_directory, store_not_empty
from offgrid_node.protocol.mesh.joining import ask_context, grant_context, is_worth_asking_again, join_ask
from offgrid_node.protocol.mesh.records import open_genesis
from offgrid_node.protocol.mesh.token import InviteToken
from offgrid_node.services.status import fault_of
from offgrid_node.storage.store import Batch

if TYPE_CHECKING:
    from offgrid_node.config import Config

MESH_UNKNOWN = "unknown"  # in the draft of the config, until the grant says which mesh it is
ATTEMPT_TIMEOUT_S = 5.0
PAUSE_S = 0.5
LINKS_AFTER_S = 3.0  # of a token that names addresses


def join(
    path: Path,
    token_text: str,
    name: str | None,
    roles: Sequence[str],
    values: Mapping[str, object],
    timeout_s: float,
    say: Say = lambda sentence: None,
) -> Made:
    """Joins and writes config, identity and the first rows; asking again after an interruption is safe. `say` is told
    what its owner should know.

    Raises InvalidRequest for a mistyped token, FailedPrecondition (reason StoreNotEmpty) when the folder's store has
    served another node, Unavailable when no door was found or answered in time, and whatever the inviter says
    (InviteUsed, NameTaken, …).
    """
    token = InviteToken.parse(token_text)
    folder, chosen = Folder(path), name_or_default(name)
    # Whatever speaks against joining here must be known before the door has spent the invite.
    config = folder.draft(MESH_UNKNOWN, chosen, roles, values)
    check_room(config, say)
    values = {**values, **free_ports(config, values, say)}
    store, multicast = open_store(config, create=True), Multicast(config)
    try:
        folder.check_empty()  # another join may have had the store until now
        held = held_directory(store, verify=verify, check_certificate=check_identity_certificate)
        if held is not None:
            _check_own(held, folder, token)
        old = key_path(folder.keys_path, "node").exists()
        key = NodeKey.load_or_create(folder.keys_path)
        if old:
            check_alone(key, [*(held.addresses(key.node_id) if held else ()), *multicast.addresses_of(key.node_id)])
        chosen, grant = _admitted(token, key, chosen, config, timeout_s, say, named=name is not None)
        for remark in clock_remarks(time.time_ns() // 1_000, grant):
            say(remark)
        rows = adopt_grant(
            grant, token.mesh_tag, key.node_id, verify=verify, check_certificate=check_identity_certificate
        )
        store.commit(Batch(writes=rows))
        mesh = open_genesis(grant.genesis, verify).mesh_name
        folder.draft(mesh, chosen, roles, values)
        folder.keep()
    except Unavailable as fault:
        trouble = multicast.trouble() if fault.reason == "NoDoor" else ""
        raise (Unavailable(f"{fault.message} {sentence(trouble)}", reason=fault.reason) if trouble else fault) from None
    finally:
        store.close()
    if trouble := multicast.trouble():
        say(f"{trouble}. Members that move to other addresses are found late")
    return Made(folder, key.node_id, chosen, mesh)


def _admitted(
    token: InviteToken, key: NodeKey, name: str, config: Config, timeout_s: float, say: Say, *, named: bool
) -> tuple[str, mesh_pb2.JoinGrant]:
    """The grant, under the name that is free there unless this one was `named`. Raises what the door says, with what
    to do."""
    try:
        return name, asyncio.run(_ask_by_all(token, key, name, config, timeout_s))
    except AlreadyExists as fault:
        free = fault.metadata.get("suggestion", "")
        if named or fault.reason != "NameTaken" or not NAME.match(free):
            raise explained(fault) from fault
        say(f"a member is called {name} already: this node is {free} (--name chooses another)")
    except Fault as fault:
        raise explained(fault) from fault
    return _admitted(token, key, free, config, timeout_s, say, named=True)


def _check_own(held: Directory, folder: Folder, token: InviteToken) -> None:
    """Raises unless the store is what an interrupted `join` of the same mesh with the same key has left."""
    try:
        key = NodeKey.load(folder.keys_path)
    except NotFound:
        raise store_not_empty(held) from None
    if held.genesis.mesh_tag != token.mesh_tag or not held.is_member(key.node_id):
        raise store_not_empty(held)


async def _ask_by_all(
    token: InviteToken, key: NodeKey, name: str, config: Config, timeout_s: float
) -> mesh_pb2.JoinGrant:
    """By IP, and over the links that the config names where that takes long; asking twice is safe."""
    by_ip = asyncio.create_task(_ask_until(token, key, name, timeout_s))
    await asyncio.wait([by_ip], timeout=LINKS_AFTER_S if token.addresses else 0)
    if by_ip.done() or not config.links.open:
        return await by_ip
    over_links = asyncio.create_task(_ask_over_links(token, key, name, config, timeout_s))
    pending = {by_ip, over_links}
    faults: list[Fault] = []
    try:
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                try:
                    return task.result()
                except Fault as failed:
                    if failed.reason == "BadLink":  # the node could not run with it, wherever it has joined
                        raise
                    faults.append(failed)
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
    said = [fault for fault in faults if not isinstance(fault, Unavailable)]
    raise said[0] if said else Unavailable("; ".join(fault.message for fault in faults), reason="NoDoor")


async def _ask_over_links(
    token: InviteToken, key: NodeKey, name: str, config: Config, timeout_s: float
) -> mesh_pb2.JoinGrant:
    from offgrid_node.joining_links import LinkJoiner  # with the links, for those that have some

    async with LinkJoiner(token, key, config.links.open, config.node.data_dir) as joiner:
        try:
            async with asyncio.timeout(timeout_s):
                response = await joiner.ask(_request(token, key, name))
        except TimeoutError:
            last = f" (the last try: {joiner.last.message})" if joiner.last is not None else ""
            text = f"nobody answered within {timeout_s:g} s on {joiner.links}{last}"
            raise Unavailable(text, reason="NoDoor") from None
    return _grant(token, response, "the door on a link")


def _request(token: InviteToken, key: NodeKey, name: str) -> mesh_pb2.JoinRequest:
    ask = join_ask(token.mesh_tag, token.invite_id, name, identity_certificate(key), key)
    sealed = seal(token.secret, ask_context(token.invite_id), ask.SerializeToString())
    return mesh_pb2.JoinRequest(invite_id=token.invite_id, sealed=sealed)


def _grant(token: InviteToken, response: mesh_pb2.JoinResponse, door: str) -> mesh_pb2.JoinGrant:
    try:
        return mesh_pb2.JoinGrant.FromString(open_sealed(token.secret, grant_context(token.invite_id), response.sealed))
    except DecodeError as error:
        raise PeerFault(f"{door}: what was answered is no grant", reason="MalformedGrant") from error


async def _ask_until(token: InviteToken, key: NodeKey, name: str, timeout_s: float) -> mesh_pb2.JoinGrant:
    """Tries the token's addresses, then whatever mDNS shows, until one answers or the time is over."""
    deadline = time.monotonic() + timeout_s
    tried: dict[str, str] = {}
    addresses = list(token.addresses)
    while True:
        for address in addresses:
            try:
                return await _ask(address, token, key, name)
            except Fault as fault:
                if not is_worth_asking_again(fault):
                    raise
                tried[address] = plainly(fault.message)
        addresses = [*token.addresses, *await _look_around(token, deadline)]
        if time.monotonic() >= deadline:
            detail = ", ".join(f"{address}: {why}" for address, why in tried.items()) or "mDNS showed none either"
            raise Unavailable(
                f"no door of the inviting mesh answered within {timeout_s:g} s ({detail}). Is the inviter running, "
                "and in the same network?",
                reason="NoDoor",
            )
        await asyncio.sleep(PAUSE_S)


async def _look_around(token: InviteToken, deadline: float) -> list[str]:
    left = deadline - time.monotonic()
    wait = min(left, ATTEMPT_TIMEOUT_S if not token.addresses else 1.0)
    from offgrid_node.discovery.mdns import find_door  # with zeroconf, for those whose token's addresses do not answer

    found = await find_door(token.mesh_tag, wait) if wait > 0 else []
    return [join_address(host, port) for host, port in found]


async def _ask(address: str, token: InviteToken, key: NodeKey, name: str) -> mesh_pb2.JoinGrant:
    async with grpc.aio.insecure_channel(address, options=(("grpc.enable_http_proxy", 0),)) as channel:
        call = channel.unary_unary(
            "/offgrid.v1.JoinService/Join",
            request_serializer=mesh_pb2.JoinRequest.SerializeToString,
            response_deserializer=mesh_pb2.JoinResponse.FromString,
        )
        try:
            response = await call(_request(token, key, name), timeout=ATTEMPT_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            fault: Fault = fault_of(error)
            raise fault from None
    return _grant(token, response, address)
