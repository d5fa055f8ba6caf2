"""The generated pages are what the declarations say today, and no page of the site is missing."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
assert spec
assert spec.loader
generate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generate)


@pytest.mark.parametrize("path", list(generate.pages()), ids=lambda p: p.name)
def test_generated_pages_are_current(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == generate.pages()[path], "run docs/generate.py"


def test_every_page_of_the_site_is_there() -> None:
    named = re.findall(r": ([\w-]+\.md)$", (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert named
    assert [name for name in named if not (DOCS / name).exists()] == []


def test_links_between_pages_lead_somewhere() -> None:
    broken = [
        f"{page.name}: {target}"
        for page in [*DOCS.glob("*.md"), DOCS.parent / "README.md"]
        for target in re.findall(r"\]\(([\w./-]+\.md)(?:#[\w-]+)?\)", page.read_text(encoding="utf-8"))
        if not (page.parent / target).exists()
    ]
    assert broken == []


def test_the_events_page_tells_what_the_server_emits() -> None:
    page = (DOCS / "events.md").read_text()
    for number, name in (
        (102, "START_INSTANCE_ID"),
        (220, "BACKUP_FILE_START"),
        (227, "MISSING_LOG"),
        (2010, "DIFFERENTIAL"),
        (2004, "TIME_OUT"),
    ):
        assert f"| {number} | `" in page
        assert name in page
    assert "| 2000 |" not in page, "control: what nothing emits"
