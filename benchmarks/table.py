"""The table and the plot of `make bench`."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


@dataclass(frozen=True)
class Row:
    """One measurement, what it is beside, and what it is held to."""

    what: str
    value: str
    ratio: str
    goal: str


def markdown(rows: Sequence[Row], by: str = "`make bench`") -> str:
    """A Markdown table with a line on how it was made."""
    lines = ["| what | median | beside | goal |", "|---|---|---|---|"]
    lines += [f"| {r.what} | {r.value} | {r.ratio} | {r.goal} |" for r in rows]
    packages = ", ".join(f"{p} {version(p)}" for p in ("torch", "transformers", "peft"))
    lines += [
        "",
        f"Printed by {by} with {packages}, Python {platform.python_version()}, "
        f"{os.cpu_count()} cores, float32 base, bfloat16 adapters; one process, alternating.",
    ]
    return "\n".join(lines)


def put_into(page: Path, text: str) -> None:
    """Replace what is between the page's bench markers."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}", encoding="utf-8")


def plot(times: Mapping[str, Sequence[float]], path: Path) -> None:
    """Milliseconds to attach the n-th adapter, for each library, on a log scale (SVG)."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "adapterdock"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.6))
    for name, label, colour in (
        ("peft", "PEFT", "#d1495b"),
        ("transformers", "transformers", "#edae49"),
        ("ours", "adapterdock", "#00798c"),
    ):
        numbers = sorted(int(k.split()[1]) for k in times if k.startswith(f"{name} "))
        axes.plot(
            numbers,
            [1000 * median(times[f"{name} {n}"]) for n in numbers],
            marker="o",
            markersize=3,
            label=label,
            color=colour,
        )
    axes.axhline(
        1000 * median(times["load_file"]),
        linestyle=":",
        color="#555",
        label="safetensors.load_file",
    )
    axes.set_yscale("log")
    axes.set_xlabel("adapters on the model")
    axes.set_ylabel("attach one more (ms)")
    axes.set_ylim(bottom=5)
    axes.grid(True, axis="y", alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
