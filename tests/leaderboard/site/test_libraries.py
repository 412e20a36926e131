"""What the site takes from packages is what its pages can load."""

from __future__ import annotations

import importlib.resources

import pytest

from peftmark.errors import PeftmarkError
from peftmark.leaderboard.site.data import as_script
from peftmark.leaderboard.site.libraries import as_classic_script, write_libraries


def test_the_installed_packages_give_classic_scripts(tmp_path) -> None:
    write_libraries(tmp_path)
    tables = (tmp_path / "datatables.js").read_text("utf-8")
    module = (importlib.resources.files("itables") / "html" / "dt_bundle.js").read_text("utf-8")
    assert "globalThis.jQuery=" in tables
    assert "export{" not in tables
    assert abs(len(tables) - len(module)) < 200  # all else is as it was
    assert b"Plotly" in (tmp_path / "plotly.js").read_bytes()[:10_000]


@pytest.mark.parametrize("module", ["", "var a=1;", "export{a as b};", "import {a} from 'x';"])
def test_another_kind_of_module_is_refused(module: str) -> None:
    with pytest.raises(PeftmarkError, match="install itables"):
        as_classic_script(module)


def test_data_are_javascript_whatever_text_they_hold() -> None:
    hostile = "</script><!-- \u2028 \u2029 ' \" \\"
    text = as_script({"name": hostile}).decode()
    assert "<" not in text
    assert "\u2028" not in text
    assert "\u2029" not in text
