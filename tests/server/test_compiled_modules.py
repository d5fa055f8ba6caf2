"""What a module must be like to be compiled when a wheel is built (`hatch_build.py`).

mypyc 2.4 keeps an exception that went through `try` or `with` around an `await`, and may raise it again in the next coroutine
of that kind; it drops a class's keyword arguments, which tell msgspec what a struct is like; and a slice of bytes whose end lies
before its begin, which is empty, is an error of the interpreter.
"""

from __future__ import annotations

import ast
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

from jetwire_server.store.embedded.layout import value_of

ROOT = Path(__file__).parents[2]
MODULES = [
    f"{room}/{name}" for room, names in runpy.run_path(str(ROOT / "hatch_build.py"), run_name="names")["COMPILED"].items() for name in names
]
SUSPENDS = (ast.Await, ast.Yield, ast.YieldFrom)
GUARDS = (ast.Try, ast.With, ast.AsyncWith, ast.AsyncFor)


def faults(source: str) -> Iterator[str]:
    """What is wrong with a module's source, each with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, GUARDS) and any(isinstance(inside, SUSPENDS) for inside in ast.walk(node)):
            yield f"line {node.lineno}: waits inside a {type(node).__name__}"
        elif isinstance(node, ast.AsyncFor | ast.AsyncWith):
            yield f"line {node.lineno}: waits in a {type(node).__name__}"
        elif isinstance(node, ast.ClassDef) and node.keywords:
            yield f"line {node.lineno}: class {node.name} has keyword arguments"
        elif isinstance(node, ast.Slice) and node.lower is not None and isinstance(node.upper, ast.UnaryOp):
            yield f"line {node.lineno}: a slice that ends a number from the end may end before it begins"


@pytest.mark.parametrize("module", MODULES)
def test_a_compiled_module_is_fit_for_it(module: str) -> None:
    assert not list(faults((ROOT / "server/jetwire_server" / f"{module}.py").read_text()))


@pytest.mark.parametrize(
    "source",
    [
        "async def f():\n    try:\n        await g()\n    finally:\n        h()",
        "async def f():\n    try:\n        g()\n    finally:\n        await h()",
        "async def f():\n    async with g():\n        pass",
        "async def f():\n    async for g in h():\n        pass",
        "def f():\n    with g():\n        yield 1",
        "class A(Struct, frozen=True):\n    pass",
        "value = sealed[8:-4]",
    ],
)
def test_control_what_is_unfit_is_noticed(source: str) -> None:
    assert list(faults(source))


def test_a_damaged_value_that_is_too_short_is_no_error_of_the_interpreter() -> None:
    assert [value_of(bytes(size)) for size in range(14)] == [b""] * 13 + [b"\0"]
