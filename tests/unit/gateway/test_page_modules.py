"""Modules that are written apart and sent as one."""

from __future__ import annotations

import pytest

from offgrid_node.gateway.page_modules import joined

LIB = 'import { html } from "../vendor/v.js";\n\nexport const one = 1;\nexport async function ask() { return html; }\n'
VIEW = 'import { render, html } from "../vendor/v.js";\nimport { one } from "../lib/a.js";\n\nexport class View {}\n'
APP = 'import { one } from "./lib/a.js";\nimport { View } from "./views/b.js";\n\nlet app = one;\n'
SOURCES = {"app.js": APP, "lib/a.js": LIB, "views/b.js": VIEW, "lib/unused.js": "export const unused = 1;\n"}


def join(**changed: str) -> str:
    sources = SOURCES | {name.replace("_", "/") + ".js": text for name, text in changed.items()}
    return joined(sources, "app.js", "lib/page.js", "vendor/")


def test_each_module_comes_once_behind_what_it_imports_and_what_is_vendored_is_imported() -> None:
    assert join().split("\n") == [
        'import { html, render } from "../vendor/v.js";',
        *("", "const one = 1;", "async function ask() { return html; }"),
        *("", "class View {}"),
        *("", "let app = one;", ""),
    ]


def test_modules_that_import_each_other_come_once_each() -> None:
    one = 'import { two } from "./two.js";\nexport function one() { return two; }\n'
    two = 'import { one } from "./one.js";\nexport function two() { return one; }\n'
    text = join(app='import { one } from "./lib/one.js";\none();\n', lib_one=one, lib_two=two)
    assert text.count("function one") == text.count("function two") == 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"views_b": "export const one = 2;\n"}, "views/b.js: one is declared in lib/a.js too"),
        ({"views_b": "export function ask() {}\n"}, "views/b.js: ask is declared in lib/a.js too"),
        ({"lib_a": 'import * as all from "../vendor/v.js";\n'}, "lib/a.js: 'import \\* as all"),
        ({"lib_a": "export default 1;\n"}, "lib/a.js: 'export default 1;' cannot be joined"),
        ({"lib_a": 'import { x as y } from "../lib/c.js";\n'}, "lib/a.js: 'import { x as y }"),
    ],
)
def test_what_cannot_be_joined_is_named(changed: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        join(**changed)
