"""Machines on two switches that can be cut apart and joined again, a mesh over them, and its ledger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from live import BIN, eventually, log_of, run
from netns import Halves, Machine, namespaces

from offgrid.client import OffgridError
from offgrid.v1.ledger_pb2 import Balance

Roles = Mapping[str, tuple[str, ...]]
START_MICRO = 10**12  # that each has when the ledger is opened
QUICK = ("mesh.probe_interval_ms=300", "mesh.mdns=false")


class Town:
    """The machines, by name, and what joins them; the first founds the mesh."""

    def __init__(self, folder: Path, wires: Halves, places: Mapping[str, str], roles: Roles) -> None:
        self.wires, self._places = wires, places
        self.nodes = {name: Machine(name, each, folder / name) for name, each in roles.items()}

    def __getitem__(self, name: str) -> Machine:
        return self.nodes[name]

    def start(self) -> None:
        founder, first = next(iter(self.nodes.items()))
        flags = [*_flags("--role", first.roles), *_flags("--set", QUICK)]
        made = run([BIN / "offgrid-node", "init", "--mesh", "town", "--name", founder, *flags, "--dir", first.folder])
        assert made.code == 0, made.said
        first.start(self._places[founder], "run")
        first.wait_ready()
        for name, node in self.nodes.items():
            if node is not first:
                with first.client() as client:
                    token = client.mesh.invite().token
                flags = [*_flags("--role", node.roles), *_flags("--set", QUICK)]
                node.start(self._places[name], "join", token, "--name", name, *flags)
        for node in self.nodes.values():
            node.wait_ready()
        self.see({name: set(self.nodes) for name in self.nodes})

    def see(self, wanted: Mapping[str, set[str]]) -> None:
        for name, others in wanted.items():
            eventually(lambda n=name, o=others: self._alive(n) == o, f"{name} sees {', '.join(sorted(others))}")

    def balances(self, name: str) -> dict[str, int]:
        """By name, where this node has one for the account."""
        return {balance.name or balance.account: balance.final_micro for balance in self._balances(name)}

    def agree(self) -> None:
        """All have the same balances in the end."""
        eventually(lambda: len({self._by_account(name) for name in self.nodes}) == 1, "all balances agree")

    def _by_account(self, name: str) -> frozenset[tuple[str, int]]:
        return frozenset((balance.account, balance.final_micro) for balance in self._balances(name))

    def _balances(self, name: str) -> Sequence[Balance]:
        with self[name].client() as client:
            answer = client.ledger.balances()
        held_micro = sum(balance.final_micro for balance in answer.balances)
        assert held_micro + answer.fees_micro == answer.supply_micro == len(self.nodes) * START_MICRO
        return answer.balances

    def open_ledger(self) -> None:
        """Every member witnesses and begins with START_MICRO; all know of it afterwards."""
        with next(iter(self.nodes.values())).client() as client:
            client.ledger.open()
        for name, node in self.nodes.items():
            eventually(lambda n=node: _open(n), f"{name} knows the ledger")

    def _alive(self, name: str) -> set[str]:
        try:
            with self[name].client(2.0) as client:
                return {peer.member.name for peer in client.mesh.peers() if peer.liveness == 1}
        except OffgridError:
            return set()


def _flags(flag: str, values: tuple[str, ...]) -> list[str]:
    return [part for value in values for part in (flag, value)]


def _open(node: Machine) -> bool:
    with node.client() as client:
        return client.ledger.status().open


@contextmanager
def town_of(folder: Path, left: Sequence[str], right: Sequence[str], roles: Roles) -> Iterator[Town]:
    """Not started yet; in the end all have stopped in order, none with a traceback."""
    with namespaces("hub", *roles) as (hub, *machines):
        places = dict(zip(roles, machines, strict=True))
        wires = Halves(hub, [places[name] for name in left], [places[name] for name in right])
        town = Town(folder, wires, places, roles)
        try:
            yield town
        finally:
            codes = {name: node.stop() for name, node in town.nodes.items()}
        assert set(codes.values()) == {0}, codes
        for node in town.nodes.values():
            log_of(node)
