"""The generated halves of the client are what the generator writes today."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("twins", ROOT / "client" / "twins.py")
assert spec
assert spec.loader
twins = importlib.util.module_from_spec(spec)
spec.loader.exec_module(twins)


def tidy(text: str, name: str) -> str:
    """As the house's formatter leaves it."""
    ruff = [sys.executable, "-m", "ruff"]
    options = ["--stdin-filename", str(ROOT / "client" / "jetwire" / name), "-"]
    fixed = subprocess.run(
        [*ruff, "check", "--fix", "--quiet", *options], input=text, capture_output=True, text=True, cwd=ROOT, check=False
    )
    return subprocess.run(
        [*ruff, "format", "--quiet", *options], input=fixed.stdout, capture_output=True, text=True, cwd=ROOT, check=True
    ).stdout


@pytest.mark.parametrize("path", list(twins.outputs()), ids=lambda p: f"{p.parent.name}/{p.name}")
def test_generated_files_are_current(path: Path) -> None:
    expected = tidy(twins.outputs()[path], f"{path.parent.name}/{path.name}")
    assert path.read_text() == expected, "run client/twins.py, ruff check --fix and ruff format"


def test_the_blocking_twin_awaits_nothing() -> None:
    for path in twins.outputs():
        if path.parent.name == "_sync":
            words = path.read_text()
            assert "await " not in words
            assert "async " not in words.replace("_async ", "")
