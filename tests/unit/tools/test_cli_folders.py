"""`offgrid put` and `get` of several files, of folders and of parts of an object."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_run import Run
from small_node import NODE_ID
from small_objects import ObjectNode

from offgrid.command_line import exits
from offgrid_node.protocol.errors import Unavailable
from offgrid_tools.cli import unfinished
from offgrid_tools.cli.trees import NAME_CHARS_MAX

FILES = {"photos/a.jpg": b"aaa", "photos/2026/b.jpg": b"bbbbbbbbbb", "photos/2026/empty": b""}


@pytest.fixture
def node() -> Iterator[ObjectNode]:
    running = ObjectNode()
    yield running
    running.close()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the user stands: a folder with photos."""
    for name, data in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "state"))
    return tmp_path


def names(node: ObjectNode) -> dict[str, bytes]:
    return {made.name: node.held[made.object_id] for made in node.objects.values()}


class TestWithADamagedRow:
    """Which may be of the folder, or not."""

    @pytest.fixture(autouse=True)
    def damaged(self, og: Run, node: ObjectNode, home: Path) -> None:
        og("put", "photos")
        node.damaged = [f"o-bad{number}" for number in range(12)]

    def test_get_brings_what_there_is_and_fails_then(self, og: Run, home: Path) -> None:
        code, out, err = og("get", "photos/", "-o", "back")
        assert code == exits.INTERNAL
        assert out.startswith("3 files")
        assert (home / "back" / "a.jpg").read_bytes() == FILES["photos/a.jpg"]
        assert "o-bad9 and 2 more" in err

    def test_rm_deletes_what_there_is_and_fails_then(self, og: Run, node: ObjectNode) -> None:
        code, out, err = og("rm", "--yes", "-r", "photos/")
        assert code == exits.INTERNAL
        assert out.count("is deleted") == len(FILES)
        assert "o-bad0" in err

    def test_of_a_folder_with_nothing_else_they_say_so(self, og: Run) -> None:
        for argv in (("get", "others/"), ("rm", "--yes", "-r", "others/")):
            code, out, err = og(*argv)
            assert (code, out, "o-bad0" in err) == (exits.INTERNAL, "", True)


class TestPut:
    def test_a_folder_is_all_its_files_by_their_paths(self, og: Run, node: ObjectNode, home: Path) -> None:
        code, out, _ = og("put", "photos")
        assert code == exits.OK
        assert names(node) == FILES
        assert [line.split()[1] for line in out.splitlines()[1:]] == ["photos/2026/b.jpg", "photos/2026/empty",
                                                                      "photos/a.jpg"]  # fmt: skip

    @pytest.mark.parametrize("said", ["photos/", "./photos", "photos/../photos"])
    def test_however_it_is_said_its_name_is_its_own(self, og: Run, node: ObjectNode, home: Path, said: str) -> None:
        assert og("put", said)[0] == exits.OK
        assert set(names(node)) == set(FILES)

    def test_a_folder_may_be_called_otherwise(self, og: Run, node: ObjectNode, home: Path) -> None:
        assert og("put", "photos/2026", "--name", "old")[0] == exits.OK
        assert set(names(node)) == {"old/b.jpg", "old/empty"}

    def test_several_at_once(self, og: Run, node: ObjectNode, home: Path) -> None:
        (home / "notes").write_bytes(b"n")
        code, out, _ = og("put", "notes", "photos/a.jpg", "--json")
        assert code == exits.OK
        assert [made["name"] for made in json.loads(out)["objects"]] == ["notes", "a.jpg"]

    def test_what_is_no_file_is_refused_before_anything_is_put(self, og: Run, node: ObjectNode, home: Path) -> None:
        (home / "photos" / "link").symlink_to("a.jpg")
        code, _, err = og("put", "photos")
        assert (code, node.objects) == (exits.USAGE, {})
        assert "photos/link is a symbolic link" in err
        (home / "photos" / "link").unlink()
        os.mkfifo(home / "photos" / "2026" / "pipe")
        code, _, err = og("put", "photos")
        assert (code, node.objects) == (exits.USAGE, {})
        assert "photos/2026/pipe is a pipe" in err

    def test_two_files_of_one_name_are_refused(self, og: Run, node: ObjectNode, home: Path) -> None:
        code, _, err = og("put", "photos/a.jpg", "photos/../photos/a.jpg")
        assert (code, node.objects) == (exits.USAGE, {})
        assert "would both be called a.jpg" in err

    def test_a_path_that_is_too_long_for_a_name_is_refused(self, og: Run, node: ObjectNode, home: Path) -> None:
        deep = home / "photos" / ("d" * 200)
        deep.mkdir()
        (deep / ("f" * 60)).write_bytes(b"x")
        code, _, err = og("put", "photos")
        assert (code, node.objects) == (exits.USAGE, {})
        assert f"at most {NAME_CHARS_MAX} are allowed" in err

    @pytest.mark.parametrize("options", [("--name", "x", "photos", "photos/a.jpg"), ("--request-id", "r", "photos")])
    def test_what_is_meant_for_one_is_refused_for_several(
        self, og: Run, node: ObjectNode, home: Path, options: tuple[str, ...]
    ) -> None:
        assert og("put", *options)[0] == exits.USAGE
        assert node.objects == {}


class TestHowItIsKept:
    def test_code_copies_and_time_to_live_reach_the_node(self, og: Run, node: ObjectNode, home: Path) -> None:
        assert og("put", "photos/a.jpg", "--code", "4/7", "--expires", "30d")[0] == exits.OK
        assert og("put", "photos/a.jpg", "--copies", "5")[0] == exits.OK
        coded, copied = node.calls["PutObject"]
        assert (coded.code.needed, coded.code.total, coded.copies) == (4, 7, 0)
        assert coded.expires_after_ms == 30 * 24 * 3_600_000
        assert (copied.HasField("code"), copied.copies, copied.expires_after_ms) == (False, 5, 0)

    @pytest.mark.parametrize(
        "options",
        [("--code", "7/4"), ("--code", "0/4"), ("--code", "4"), ("--code", "4/129"), ("--copies", "0"),
         ("--code", "4/7", "--copies", "3"), ("--expires", "30"), ("--expires", "0d"), ("--expires", "101000000d")],
    )  # fmt: skip
    def test_what_makes_no_sense_is_a_usage_error(
        self, og: Run, node: ObjectNode, home: Path, options: tuple[str, ...]
    ) -> None:
        assert og("put", "photos/a.jpg", *options)[0] == exits.USAGE
        assert node.objects == {}

    def test_whether_hosts_learn_its_size_reaches_the_node(self, og: Run, node: ObjectNode, home: Path) -> None:
        for options, said in (((), None), (("--padded",), True), (("--exact",), False)):
            assert og("put", "photos/a.jpg", *options)[0] == exits.OK
            request = node.calls["PutObject"][-1]
            assert (request.padded if request.HasField("padded") else None) == said
        node._make(b"x", "x").padded_bytes = 1_024
        assert "padded to  1.0 kB" in og("info", "x")[1]

    def test_info_says_until_when(self, og: Run, node: ObjectNode, home: Path) -> None:
        node._make(b"x", "x").expires_us = 1_700_000_000_000_000
        assert "expires    2023-11-1" in og("info", "x")[1]

    def test_info_says_how_and_where(self, og: Run, node: ObjectNode, home: Path) -> None:
        made = node._make(b"x", "x")
        assert "kept as    full copies\n" in og("info", "x")[1]
        made.shards_needed, made.shards_total = 2, 3
        del made.acks[:]
        made.acks.add(node_id=NODE_ID, weight_milli=1_000, shards=[0, 2])
        out = og("info", "x")[1]
        assert "kept as    any 2 of 3 shards\n" in out
        assert ", shards 0, 2\n" in out


class TestCutOff:
    def test_the_same_command_makes_no_second_object(self, og: Run, node: ObjectNode, home: Path) -> None:
        begun = iter([None, None, Unavailable("the node is restarting", reason="NotNow")])
        write = node.on_WriteUpload

        def failing(request: object) -> object:
            fault = next(begun, None)
            if fault is not None:
                raise fault
            return write(request)

        node.on_WriteUpload = failing  # type: ignore[method-assign]
        code, _, _ = og("put", "photos", "--timeout", "0.1")
        if code == exits.OK:  # the client itself has gone on
            assert len(node.objects) == 3
        assert og("put", "photos")[0] == exits.OK
        assert sorted(names(node)) == sorted(FILES)

    def test_its_seed_is_kept_until_the_put_has_ended(self, home: Path) -> None:
        from offgrid_tools.cli.trees import found_in

        files = found_in(["photos"], None)
        with pytest.raises(RuntimeError), unfinished.seed_for(files, "") as first:
            raise RuntimeError("cut off")
        with unfinished.seed_for(files, "") as second:
            assert second == first
        with unfinished.seed_for(files, "") as third:
            assert third != first

    def test_a_changed_file_or_another_option_is_another_put(self, home: Path) -> None:
        from offgrid_tools.cli.trees import found_in

        seeds = set()
        for options, data in (("", b"aaa"), ("2000", b"aaa"), ("", b"other")):
            (home / "photos" / "a.jpg").write_bytes(data)
            with pytest.raises(RuntimeError), unfinished.seed_for(found_in(["photos"], None), options) as seed:
                raise RuntimeError("cut off")
            seeds.add(seed)
        assert len(seeds) == 3

    @pytest.mark.parametrize("kept", [b"", b"short", b"\xff" * 20, b"../../../../etc/pas"])
    def test_a_damaged_note_is_none(self, home: Path, kept: bytes) -> None:
        from offgrid_tools.cli.trees import found_in

        files = found_in(["photos"], None)
        with pytest.raises(RuntimeError), unfinished.seed_for(files, "") as first:
            raise RuntimeError("cut off")
        (note,) = (home / "state" / "offgrid" / "puts").iterdir()
        note.write_bytes(kept)
        with unfinished.seed_for(files, "") as second:
            assert second not in (first, kept.decode("latin-1"))

    def test_where_nothing_can_be_kept_a_put_goes_all_the_same(
        self, og: Run, node: ObjectNode, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (home / "file").write_bytes(b"")
        monkeypatch.setenv("XDG_STATE_HOME", str(home / "file"))
        monkeypatch.setenv("LOCALAPPDATA", str(home / "file"))
        assert og("put", "photos")[0] == exits.OK
        with unfinished.seed_for([], "") as seed:
            assert seed == "", "nobody could use it again"


class TestGet:
    def test_a_folder_comes_back_as_it_was(self, og: Run, node: ObjectNode, home: Path) -> None:
        og("put", "photos")
        code, out, _ = og("get", "photos/", "-o", "back")
        assert (code, out) == (exits.OK, "3 files, 13 bytes in back\n")
        assert {f"photos/{path.relative_to(home / 'back').as_posix()}": path.read_bytes()
                for path in (home / "back").rglob("*") if path.is_file()} == FILES  # fmt: skip

    def test_without_a_place_its_own_must_be_free(self, og: Run, node: ObjectNode, home: Path) -> None:
        og("put", "photos")
        code, _, err = og("get", "photos/")
        assert code == exits.USAGE
        assert "is there already" in err
        (home / "photos").rename(home / "moved")
        code, out, _ = og("--json", "get", "photos/")
        assert code == exits.OK
        assert {file["name"]: Path(file["path"]).read_bytes() for file in json.loads(out)["files"]} == FILES

    def test_of_two_of_one_name_it_is_the_newest(self, og: Run, node: ObjectNode, home: Path) -> None:
        for when, data in ((2, b"newer"), (1, b"older")):
            node._make(data, "d/x").created_us = when
        assert og("get", "d/", "-o", "back")[0] == exits.OK
        assert (home / "back" / "x").read_bytes() == b"newer"

    @pytest.mark.parametrize("name", ["d/../../x", "d//x", "d/./x", "d/c:x", "d/a\\b"])
    def test_a_name_that_leads_elsewhere_is_refused_before_anything_is_written(
        self, og: Run, node: ObjectNode, home: Path, name: str
    ) -> None:
        node._make(b"x", "d/good")
        node._make(b"x", name)
        code, _, err = og("get", "d/", "-o", "back")
        assert code == exits.USAGE
        assert "is no name for a file here" in err
        assert not (home / "back").exists()

    def test_nothing_is_written_through_a_link(self, og: Run, node: ObjectNode, home: Path) -> None:
        node._make(b"x", "d/inner/x")
        (home / "elsewhere").mkdir()
        (home / "back").mkdir()
        (home / "back" / "inner").symlink_to(home / "elsewhere")
        assert og("get", "d/", "-o", "back")[0] == exits.USAGE
        assert list((home / "elsewhere").iterdir()) == []

    def test_a_folder_that_is_not_there_is_not_found(self, og: Run, node: ObjectNode, home: Path) -> None:
        code, _, err = og("get", "none/")
        assert code == exits.NOT_FOUND
        assert "there are no objects whose names begin with none/" in err
        assert "`offgrid ls` shows" in err

    def test_one_file_is_called_one(self, og: Run, node: ObjectNode, home: Path) -> None:
        node._make(b"xy", "d/x")
        assert og("get", "d/", "-o", "back")[1] == "1 file, 2 bytes in back\n"

    def test_a_folder_cannot_go_into_a_pipe_or_in_part(self, og: Run, node: ObjectNode, home: Path) -> None:
        node._make(b"x", "d/x")
        assert og("get", "d/", "-o", "-")[0] == og("get", "d/", "--range", "0-1")[0] == exits.USAGE

    @pytest.mark.parametrize(
        ("wanted", "got"),
        [
            ("0-0", b"0"),
            ("2-4", b"234"),
            ("13-", b"def"),
            ("-3", b"def"),
            ("-99", b"0123456789abcdef"),
            ("5-999", b"56789abcdef"),
            ("0-", b"0123456789abcdef"),
        ],
    )
    def test_a_range_is_just_that(self, og: Run, node: ObjectNode, home: Path, wanted: str, got: bytes) -> None:
        node._make(b"0123456789abcdef", "sixteen")
        code, _, err = og("get", "sixteen", f"--range={wanted}", "-o", "out")
        assert (code, err) == (exits.OK, "")
        assert (home / "out").read_bytes() == got

    @pytest.mark.parametrize("wanted", ["", "-", "a-b", "5", "4-2", "0x1-2", "16-", "99-100"])
    def test_a_range_that_is_none_is_a_usage_error(self, og: Run, node: ObjectNode, home: Path, wanted: str) -> None:
        node._make(b"0123456789abcdef", "sixteen")
        assert og("get", "sixteen", f"--range={wanted}", "-o", "out")[0] == exits.USAGE
        assert not (home / "out").exists()


def test_ls_tells_those_of_a_folder_and_in_full(og: Run, node: ObjectNode, home: Path) -> None:
    og("put", "photos")
    node._make(b"x", "notes")
    assert len(og("ls")[1].splitlines()) == 5
    assert len(og("ls", "photos/2026/")[1].splitlines()) == 3
    assert og("ls", "none")[1] == "there are no objects whose names begin so\n"
    (line,) = og("ls", "-l", "photos/a")[1].splitlines()[1:]
    assert line.endswith("loss of any 1 of its 2 hosts; of all of them, while this node keeps its own copy")


def test_rm_takes_a_folder_only_if_it_is_told_to(og: Run, node: ObjectNode, home: Path) -> None:
    og("put", "photos")
    code, _, err = og("rm", "--yes", "photos/")
    assert code == exits.USAGE
    assert "-r" in err
    assert og("rm", "--yes", "-r", "photos/2026/")[0] == exits.OK
    assert set(names(node)) == {"photos/a.jpg"}
    assert og("rm", "--yes", "-r", "none/")[0] == exits.NOT_FOUND
