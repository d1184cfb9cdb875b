"""What the documentation has from the code is what the code says now."""

import pytest
from tools.docs.pages import DOCS, blocks, current, fill

from svcplane.proxy.planes import PLANES


def test_everything_generated_is_current() -> None:
    stale = [str(path.relative_to(DOCS)) for path, text in current() if not path.exists() or path.read_text() != text]
    assert stale == [], "run `make docs`"


@pytest.mark.parametrize("mode", PLANES)
def test_each_mode_shows_its_chains_and_the_way_of_packets(mode: str) -> None:
    text = (DOCS / f"{mode}.md").read_text()
    assert "<!-- begin diagram -->" in text
    assert "<!-- begin walks -->" in text
    found = blocks(mode)
    assert "flowchart" in found["diagram"]
    for outcome in ("deliver", "reject", "drop"):
        assert outcome in found["walks"]


def test_unknown_mark_is_told() -> None:
    with pytest.raises(KeyError, match="nothing"):
        fill("<!-- begin nothing -->\n<!-- end nothing -->", {})
