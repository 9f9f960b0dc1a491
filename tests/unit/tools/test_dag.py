"""The ledger's blocks as a graph: as text, as a picture, as JSON."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import pytest
from cli_run import Run
from hypothesis import given
from hypothesis import strategies as st
from signed_ledger import opened
from signed_receipts import GENESIS
from small_node import SmallNode

from offgrid.v1 import common_pb2, ledger_pb2
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.blocks import seal_block
from offgrid_node.protocol.ledger.items import Seen, Statement
from offgrid_node.protocol.ledger.tables import LOG
from offgrid_node.protocol.mesh.records import decode_genesis
from offgrid_tools.dag import DETAILS_MAX, Vertex, lines, svg, vertices
from offgrid_tools.ledgersim.keys import SALT, Key
from offgrid_tools.ledgersim.whole.world import World

SVG = "{http://www.w3.org/2000/svg}"
NAMES = ("attic", "barn", "cellar", "dock", "hub <&>", "shed")


@cache
def lived() -> tuple[World, tuple[ledger_pb2.Block, ...]]:
    world = World(5, observers=2)
    world.open()
    world.run(5_000)
    owners = [*world.nodes.values()]
    for number in range(30):
        owner, payee = world.rng.sample(owners, 2)
        owner.transfer(payee.node_id, 1 + world.rng.randrange(900), f"r-{number}")
        world.run(world.rng.randrange(600))
    world.run(10_000)
    return world, tuple(ledger_pb2.Block.FromString(raw) for _, raw in owners[0].store.scan(LOG))


def graph_of(blocks: tuple[ledger_pb2.Block, ...]) -> list[Vertex]:
    return vertices(enumerate(blocks, 1), SALT, dict(zip(lived()[0].names, NAMES, strict=True)))


def forked() -> tuple[ledger_pb2.Block, ...]:
    """A first block of the last author's, and another one in its place."""
    world, _ = lived()
    author = world.names[-1]
    said = [Seen(node_id_bytes(world.names[0]), bytes((number,)) * 32) for number in range(20)]
    made = [
        seal_block(node_id_bytes(author), 1, world.genesis.digest(SALT), (), items, 9, Key(author), SALT)
        for items in (said, said[:1])
    ]
    return tuple(ledger_pb2.Block.FromString(block.raw) for block in made)


def test_each_block_is_a_line_with_what_it_names_and_says() -> None:
    _, blocks = lived()
    shown = [*lines(graph_of(blocks))]
    assert len(shown) == len(blocks) > 100
    assert [line[0] for line in shown] == [*range(1, len(blocks) + 1)]
    first = shown[0]
    assert (first[2], first[3]) == ("-", "1 tx, 1 vote")
    parented = next(line for line in shown if line[2] != "-")
    assert str(parented[2]).split(", ")[0] in {line[1] for line in shown}
    assert any("vote" in str(line[3]) for line in shown)
    assert any("confirm" in str(line[3]) for line in shown)


def test_a_block_before_the_view_is_called_by_its_digest() -> None:
    _, blocks = lived()
    later = next(place for place, block in enumerate(graph_of(blocks)) if block.parents)
    [vertex] = graph_of(blocks[later : later + 1])
    assert next(iter(lines([vertex])))[2] == ", ".join(digest[:12] for digest in vertex.parents)


def test_forks_are_marked_in_text_and_red_in_the_picture() -> None:
    graph = graph_of(forked())
    assert [vertex.forked for vertex in graph] == [True, True]
    assert [line[1] for line in lines(graph)] == ["shed 1 FORK", "shed 1 FORK"]
    assert svg(graph, "t").count("#c53030") == 2
    assert "#c53030" not in svg(graph_of(lived()[1]), "t")


def test_the_picture_of_a_long_ledger_has_every_block_once_and_all_lines() -> None:
    _, blocks = lived()
    graph = graph_of(blocks)
    root = ElementTree.fromstring(svg(graph, "a & b"))  # noqa: S314 - it is our own
    assert root.find(f"{SVG}g/{SVG}title").text == "a & b"  # type: ignore[union-attr]
    groups = root.findall(f"{SVG}g/{SVG}g")
    assert len(groups) == len(blocks)
    here = {vertex.digest for vertex in graph}
    edges = sum(digest in here for vertex in graph for digest in (vertex.prev, *vertex.parents))
    assert len(root.findall(f"{SVG}g/{SVG}path")) == edges > len(blocks)
    boxes = [group.find(f"{SVG}rect").attrib for group in groups]  # type: ignore[union-attr]
    assert len({box["y"] for box in boxes}) == len(blocks), "each has a row of its own"
    assert len({box["x"] for box in boxes}) == len({vertex.author for vertex in graph}), "each author a column"


def test_what_stands_above_is_what_a_block_leans_on() -> None:
    graph = graph_of(lived()[1])
    place = {vertex.digest: row for row, vertex in enumerate(graph)}
    assert all(place.get(it, -1) < row for row, vertex in enumerate(graph) for it in (vertex.prev, *vertex.parents))


@given(st.text(max_size=40))
def test_no_name_makes_the_picture_anything_but_xml(name: str) -> None:
    [block] = forked()[:1]
    author = lived()[0].names[-1]
    root = ElementTree.fromstring(svg(vertices([(1, block)], SALT, {author: name}), name))  # noqa: S314
    assert len(root.findall(f"{SVG}g/{SVG}g")) == 1


def test_a_tooltip_is_bounded() -> None:
    graph = graph_of(forked())
    assert len(graph[0].details) == DETAILS_MAX
    assert "and 8 more" in svg(graph, "t")


def test_what_cannot_be_read_is_left_out_or_said() -> None:
    world, _ = lived()
    author = world.names[0]
    said = Statement(False, bytes(20), 0, 0, bytes(32))
    block = seal_block(node_id_bytes(author), 1, world.genesis.digest(SALT), (), (said,), 9, Key(author), SALT)
    strange = ledger_pb2.Block.FromString(block.raw)
    strange.items[0] = b"\xffnothing"
    graph = vertices([(1, ledger_pb2.Block(header=common_pb2.Signed(body=b"?"))), (2, strange)], SALT, {})
    assert [(vertex.position, vertex.details) for vertex in graph] == [(2, ("an item that cannot be read",))]
    assert svg([], "nothing").count("<g>") == 0


class TestCommand:
    @pytest.fixture
    def og(self, capsys: pytest.CaptureFixture[str], node: SmallNode) -> Run:
        node.ledger_genesis, _ = opened()
        node.ledger_genesis.genesis.body = GENESIS.body
        salt = decode_genesis(GENESIS.body).salt
        for height in range(1, 5):
            items = (Statement(False, bytes(20), height, 0, bytes(32)),)
            author = lived()[0].names[0]
            prev = bytes((height,)) * 32
            block = seal_block(node_id_bytes(author), height, prev, (), items, 9, Key(author), salt)
            node.blocks.append(ledger_pb2.Block.FromString(block.raw))
        return Run(capsys, node)

    def test_shows_the_newest_or_from_a_position_on(self, og: Run) -> None:
        code, out, _ = og("ledger", "dag", "--blocks", "2")
        assert code == 0
        assert [line.split()[0] for line in out.splitlines()[1:]] == ["3", "4"]
        assert [line.split()[0] for line in og("ledger", "dag", "--from", "2")[1].splitlines()[1:]] == ["2", "3", "4"]
        assert "no blocks there" in og("ledger", "dag", "--from", "9")[1]

    def test_draws_a_picture(self, og: Run, tmp_path: Path) -> None:
        path = tmp_path / "dag.svg"
        assert og("ledger", "dag", "--svg", path) == (0, "", "")
        assert len(ElementTree.fromstring(path.read_text()).findall(f"{SVG}g/{SVG}g")) == 4  # noqa: S314

    def test_gives_programs_the_graph(self, og: Run) -> None:
        answer = json.loads(og("ledger", "dag", "--json")[1])
        assert (answer["newest"], [block["height"] for block in answer["blocks"]]) == (4, [1, 2, 3, 4])
        assert answer["blocks"][0]["kinds"] == {"vote": 1}

    def test_is_bounded_and_says_when_there_is_nothing(self, og: Run, node: SmallNode) -> None:
        assert og("ledger", "dag", "--blocks", "1001")[0] == 2
        node.ledger_genesis = ledger_pb2.GetGenesisResponse(mesh="home")
        code, _, err = og("ledger", "dag")
        assert (code, "offgrid ledger open" in err) == (4, True)
