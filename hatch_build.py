"""Compiles the modules on the way of every read and write to machine code when a wheel is built; a checkout stays plain Python.

The modules stay in the wheel as they are; Python takes what is compiled from them first. Without a C compiler the wheel is a
pure one. What a module must be like to be compiled, `tests/server/test_compiled_modules.py` checks.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = "server"
PACKAGE = "jetwire_server"
BUILT = "build/compiled"
COMPILED = {
    "redo": ("names", "position", "records", "tail", "writer"),
    "store": ("claims", "layers", "locks", "snapshots", "sortedkeys", "timeline", "transaction", "watchers"),
    "store/embedded": ("backlog", "comings", "generations", "journal", "layout", "publishing", "store", "stroke", "view"),
    "rows": ("codec", "columns", "json_view", "plans", "shape", "text", "write"),
    "keys": ("binary", "fixed", "maker", "search", "text"),
    "engine": ("row_writes", "straight", "values"),
    "rpc": ("lanes", "record_reader", "straight"),
}
"""What runs for every record. Not: classes that msgspec makes (compiled ones lose their options), and what runs long on a thread of
its own, the checkpoint above all: machine code does not hand the interpreter over."""


class CompilingHook(BuildHookInterface[Any]):
    """Called by hatchling (`tool.hatch.build.targets.wheel.hooks.custom`)."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds what is compiled to the wheel; leaves an editable install alone."""
        if version == "editable":
            return
        built = Path(self.root, BUILT)
        os.chdir(self.root)
        try:
            files = compiled(built)
        except (Exception, SystemExit) as error:  # a compiler, or Python's headers, are missing
            self.app.display_warning(f"the server's hot modules stay plain Python, they could not be compiled: {error}")
            return
        for file in files:
            build_data["force_include"][str(file)] = str(file.relative_to(built))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Leaves nothing behind."""
        shutil.rmtree(Path(self.root, BUILT), ignore_errors=True)


def compiled(target: Path) -> list[Path]:
    """The extension modules, built below a directory."""
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    os.environ["MYPYPATH"] = os.pathsep.join(("client", "protocol", SOURCES))
    modules = [f"{SOURCES}/{PACKAGE}/{room}/{name}.py" for room, names in COMPILED.items() for name in names]
    extensions = mypycify(
        ["--config-file=", "--ignore-missing-imports", *modules],
        opt_level="2",
        target_dir=str(target / "c"),
        group_name=PACKAGE,
    )
    command = build_ext(Distribution({"name": PACKAGE, "ext_modules": extensions}))
    command.build_lib = str(target)
    command.build_temp = str(target / "objects")
    command.ensure_finalized()
    command.run()
    return list(target.rglob("*.so"))
