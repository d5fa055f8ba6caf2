"""Rules of the house that no linter knows: read from the sources, so that they cannot be forgotten."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "server" / "jetwire_server"
SOURCES = [p for part in ("protocol", "client", "server") for p in (ROOT / part).rglob("*.py")]

LINES_MAX = 500
LONG_FOR_A_REASON: dict[str, str] = {}


def calls(tree: ast.AST) -> list[ast.Call]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def opens_for_writing(source: str) -> list[int]:
    """The lines that open a file in a way that could change it, whatever the spelling."""
    lines: list[int] = []
    for call in calls(ast.parse(source)):
        name = ast.unparse(call.func)
        text = " ".join(ast.unparse(a) for a in [*call.args[1:], *(k.value for k in call.keywords)])
        by_mode = name in ("open", "io.open", "aiofiles.open") and any(f"'{m}" in text for m in ("w", "a", "x", "r+", "rb+", "r+b"))
        by_flag = name == "os.open" and any(flag in text for flag in ("O_WRONLY", "O_RDWR", "O_CREAT", "O_TRUNC"))
        if by_mode or by_flag or name.endswith((".write_text", ".write_bytes")):
            lines.append(call.lineno)
    return lines


def imports(source: str) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_only_the_file_layer_opens_files_for_writing() -> None:
    guilty = {
        str(path.relative_to(SERVER)): lines
        for path in SERVER.rglob("*.py")
        if path != SERVER / "files" / "local.py" and (lines := opens_for_writing(path.read_text()))
    }
    assert guilty == {}


@pytest.mark.parametrize(
    "line",
    ["open('x', 'wb')", "open('x', mode='a')", "os.open('x', os.O_RDWR)", "Path('x').write_text('')", "aiofiles.open('x', 'w')"],
)
def test_the_rule_about_writing_sees_every_spelling(line: str) -> None:
    assert opens_for_writing(line) == [1]


def test_only_the_page_store_imports_lmdb() -> None:
    users = {str(p.relative_to(SERVER)) for p in SERVER.rglob("*.py") if "lmdb" in imports(p.read_text())}
    assert users <= {"store/embedded/pages.py", "store/embedded/view.py"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_file_is_one_idea(path: Path) -> None:
    if "data" in path.parts or path.name in ("generate.py", "methods.py"):
        return
    lines = len(path.read_text().splitlines())
    assert lines <= LINES_MAX or str(path.relative_to(ROOT)) in LONG_FOR_A_REASON, f"{lines} lines: split it, or say why not"
