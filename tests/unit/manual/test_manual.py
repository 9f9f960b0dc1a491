"""The documents as pages: every link leads somewhere, nothing in them runs or comes from outside."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from offgrid_node.docs_command import docs
from offgrid_node.manual import Library, NoDocuments, Site, library
from offgrid_node.manual.library import CHECKOUT, REST
from offgrid_node.manual.rendering import Renderer, slug_of

SOURCE = "offgrid_node/manual/pages"


@pytest.fixture(scope="module")
def site() -> Site:
    return Site(Library.found())


def test_every_document_is_a_page_and_stands_in_a_group(site: Site) -> None:
    documents = {path.relative_to(CHECKOUT).as_posix() for path in (CHECKOUT / "docs").rglob("*.md")}
    assert set(Library.found().pages) == documents | {"README.md", "CHANGELOG.md"}
    assert set(Library.found().groups[REST]) == {"CHANGELOG.md", "docs/example-transport/README.md"}
    assert all(site.page(path) for path in site.paths)


def test_what_readme_boasts_of_was_measured() -> None:
    readme, figures = ((CHECKOUT / name).read_text("utf-8") for name in ("README.md", "docs/performance.md"))
    readme = " ".join(readme.split())

    def measured(figure: str) -> float:
        (value,) = re.findall(rf"^\| {figure} \| ([\d.]+) \|", figures, re.MULTILINE)
        return float(value)

    assert f"jobs {measured('inflight64_vs_dask'):.1f} times as fast as Dask's" in readme
    assert f"a put {measured('put_vs_tahoe'):.0f}, a get" in readme
    assert f"lost {measured('get_lost_vs_tahoe'):.0f} times as fast as Tahoe-LAFS" in readme
    assert f"every tenth frame {measured('lora_loss10_vs_reticulum'):.0f} times what Reticulum" in readme
    assert "within a second" in readme
    assert measured("host_killed_to_reassigned_p99_s") < 1


def test_the_glossary_is_in_order_and_has_each_word_once() -> None:
    glossary = (CHECKOUT / "README.md").read_text("utf-8").partition("## Glossary")[2].partition("\n## ")[0]
    words = [row.split("|")[1].strip().casefold() for row in glossary.splitlines() if row.startswith("| ")][1:]
    assert words == sorted(set(words))


@pytest.mark.parametrize("guide", sorted((CHECKOUT / "docs" / "guide").glob("*.md")), ids=lambda path: path.stem)
def test_a_guide_says_what_it_takes_and_what_to_do_when_it_does_not_work(guide: Path) -> None:
    text = guide.read_text("utf-8")
    if guide.stem != "demos":  # which clean up behind them
        assert "**You need** " in text
        assert "\n## When " in text


def test_every_link_leads_to_a_page_and_an_anchor_that_are_there(site: Site) -> None:
    assert list(site.broken()) == []


def test_every_link_to_a_file_of_the_source_leads_to_one_that_is_there() -> None:
    for page in Library.found().pages:
        for target in re.findall(r"\]\(([^)\s#]+)[^)\s]*\)", (CHECKOUT / page).read_text("utf-8")):
            if "://" not in target:
                assert (CHECKOUT / page).parent.joinpath(target).exists(), f"{page}: {target}"


def test_pages_run_nothing_and_load_nothing_from_elsewhere(site: Site) -> None:
    for path in site.paths:
        page = site.page(path).decode()
        assert not re.search(r"<script|<style|<img|<iframe|<[^>]*\s(style|on\w+)=|\"javascript:", page), path
        assert set(re.findall(r'<link rel="stylesheet" href="([^"]+)"', page)) <= {"style.css", "../style.css"} | (
            {"../../style.css"} if path.count("/") == 2 else set()
        )


def test_links_between_pages_and_to_anchors_are_relative(site: Site) -> None:
    page = site.page("guide/first-mesh.html").decode()
    assert '<a href="jobs.html">' in page
    assert '<a href="../reference/config.html">configuration</a>' in page
    assert '<a href="../index.html">' in page
    assert '<h2 id="the-first-machine">' in page


def test_pages_are_turned_in_the_order_in_which_they_are_read(site: Site) -> None:
    first, second = (site.page(path).decode().partition('class="turn"')[2] for path in site.paths[:2])
    assert "Before: " not in first
    assert 'Next: <a href="guide/first-mesh.html">' in first
    assert 'Before: <a href="../index.html">' in second


def test_html_in_a_document_is_text_and_what_is_no_page_is_no_link() -> None:
    rendered = Renderer({"a.md": "a.html", "d/b.md": "d/b.html"}).render(
        "# A\n\n<script>x</script> [b](d/b.md#c) [code](src/x.py) [gone](gone.md) [out](https://example.org)"
        " [bad](javascript:x)\n",
        "a.md",
    )
    assert "&lt;script&gt;" in rendered.body
    assert '<a href="d/b.html#c">b</a>' in rendered.body
    assert "<a" not in rendered.body.split("[bad]")[0].split("b</a>")[1].split("<a")[0]
    assert "src/x.py" not in rendered.body
    assert '<a href="https://example.org" rel="noreferrer external">' in rendered.body
    assert 'href="javascript' not in rendered.body
    assert rendered.broken == ("gone.md",)
    assert rendered.links == (("d/b.md", "c"),)


def test_anchors_are_those_of_github() -> None:
    assert slug_of("What `market` shows, and why: a/b") == "what-market-shows-and-why-ab"
    headings = Renderer({}).headings("# One\n## Two & more\n```sh\n# no heading\n```\n## `Two` [& more](x.md)\n")
    assert [heading.anchor for heading in headings] == ["one", "two--more", "two--more-1"]


def test_the_wheel_takes_the_documents_along() -> None:
    wheel = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]
    taken = wheel["force-include"]
    assert {name: taken[name] for name in ("README.md", "CHANGELOG.md", "docs")} == {
        name: f"{SOURCE}/{name}" for name in ("README.md", "CHANGELOG.md", "docs")
    }


def test_an_installation_has_the_pages_that_a_checkout_has(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "PACKAGED", tmp_path / "pages")
    monkeypatch.setattr(library, "CHECKOUT", tmp_path / "nowhere")
    with pytest.raises(NoDocuments):
        Library.found()
    shutil.copytree(CHECKOUT / "docs", tmp_path / "pages" / "docs")
    for name in ("README.md", "CHANGELOG.md"):
        shutil.copy(CHECKOUT / name, tmp_path / "pages" / name)
    installed = Site(Library.found())
    assert installed.paths == site.paths
    assert installed.page("index.html") == site.page("index.html")


def test_the_command_writes_the_same_pages(tmp_path: Path, site: Site) -> None:
    result = CliRunner().invoke(docs, ["--out", str(tmp_path / "site")])
    assert result.exit_code == 0, result.output
    written = {path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("*.*")}
    assert written == set(site.paths)
    assert (tmp_path / "site" / "guide" / "jobs.html").read_bytes() == site.page("guide/jobs.html")
