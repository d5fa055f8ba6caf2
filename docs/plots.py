"""Draws the figures that the benchmarks left in benchmarks/results as docs/plots/NAME.svg.

`make docs` runs it, with matplotlib from docs/requirements.txt. The same data give the same bytes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt

HERE = Path(__file__).parent
RESULTS = HERE.parent / "benchmarks" / "results"
PLOTS = HERE / "plots"


def lines(axes: Any, figure: dict[str, Any]) -> None:
    for name, points in figure["series"].items():
        axes.plot(*zip(*points, strict=True), marker="o", label=name)


def bars(axes: Any, figure: dict[str, Any]) -> None:
    series = figure["series"]
    groups = list(dict.fromkeys(group for points in series.values() for group, _ in points))
    width = 0.8 / len(series)
    for number, (name, points) in enumerate(series.items()):
        places = [groups.index(group) + number * width for group, _ in points]
        axes.bar(places, [value for _, value in points], width, label=name)
    axes.set_xticks([place + 0.4 - width / 2 for place in range(len(groups))], groups)


def shares(axes: Any, figure: dict[str, Any]) -> None:
    for name, values in figure["series"].items():
        ordered = sorted(values)
        axes.step(ordered, [(n + 1) / len(ordered) for n in range(len(ordered))], where="post", label=f"{name} ({len(ordered)})")


KINDS = {"lines": lines, "bars": bars, "shares": shares}


def draw(source: Path) -> Path:
    figure = json.loads(source.read_text(encoding="utf-8"))
    picture, axes = plt.subplots(figsize=(7.2, 3.8), layout="constrained")
    KINDS[figure["kind"]](axes, figure)
    for name, value in figure["bounds"].items():
        (axes.axvline if figure["kind"] == "shares" else axes.axhline)(value, linestyle="--", linewidth=1, color="grey", label=name)
    if figure["log_x"]:
        axes.set_xscale("log")
    axes.set(title=figure["title"], xlabel=figure["x"], ylabel=figure["y"])
    if figure["kind"] != "shares":
        axes.set_ylim(bottom=0)
    axes.grid(axis="y", linewidth=0.3)
    axes.legend(frameon=False, fontsize="small")
    target = PLOTS / source.name.replace(".figure.json", ".svg")
    picture.savefig(target, metadata={"Date": None})
    plt.close(picture)
    return target


def main() -> None:
    PLOTS.mkdir(exist_ok=True)
    mpl.rcParams["svg.hashsalt"] = "jetwire"
    for source in sorted(RESULTS.glob("*.figure.json")):
        print(draw(source).relative_to(HERE.parent))


if __name__ == "__main__":
    main()
