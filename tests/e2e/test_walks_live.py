"""What README and the first guide tell to type does what they say, on real nodes; `soak docs` types the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from offgrid_tools.walks.catalogue import PLAIN, walk_plain


@pytest.mark.parametrize("name", PLAIN)
def test_what_is_to_be_typed_does_what_the_page_says(name: str, tmp_path: Path) -> None:
    said: list[str] = []
    assert walk_plain(name, tmp_path, said.append, soak=False) >= 8, said
