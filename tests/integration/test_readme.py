"""The Python in the README and in the client's page runs as it stands when it is pasted."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server_process import ServerProcess

ROOT = Path(__file__).parents[2]
_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_IMPORTS = re.compile(r"^(import|from) ", re.MULTILINE)


def blocks(page: str) -> list[str]:
    return _BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", ["README.md", "docs/client.md"])
def test_programs_run_as_pasted(own_server: ServerProcess, tmp_path: Path, page: str):
    """Whole programs (they import what they use) run one after the other against a new server."""
    programs = [block for block in blocks(page) if _IMPORTS.match(block)]
    if not programs:
        pytest.skip(f"{page} has no program")
    environment = {**os.environ, "JETWIRE_URL": own_server.addresses["tcp"], "HOME": str(tmp_path)}
    for program in programs:
        pasted = program.replace("tcp://127.0.0.1:3731", own_server.addresses["tcp"])  # where `make serve` listens
        done = subprocess.run([sys.executable, "-c", pasted], env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{program}\n{done.stderr}"
    if page == "docs/client.md":
        assert len(programs) == 3


@pytest.mark.parametrize("page", ["README.md", "docs/client.md"])
def test_fragments_are_python(page: str):
    for block in blocks(page):
        compile(block, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
