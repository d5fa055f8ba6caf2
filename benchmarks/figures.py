"""What a benchmark wants drawn: data beside its other results. `docs/plots.py` makes the pictures of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Figure:
    """One picture. A series is a list of (x, y); of bars, x is the name of the group.

    `lines` joins the points; `bars` puts the series of a group side by side; `shares` takes measured values (x is left
    out: a series is a list of numbers) and shows which share of them is at most so much.
    """

    title: str
    kind: Literal["lines", "bars", "shares"]
    x: str
    y: str
    series: Mapping[str, Sequence[object]]
    bounds: Mapping[str, float] = field(default_factory=dict)  # drawn as dashed lines: across, or upright with shares
    log_x: bool = False

    def save(self, name: str, directory: Path = RESULTS) -> Path:
        path = directory / f"{name}.figure.json"
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        return path
