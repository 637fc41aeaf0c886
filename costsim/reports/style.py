"""How figures look: one style, one palette, PNG and SVG, sources at the foot."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from costsim.files import write_atomically

# Okabe-Ito (colour-blind safe), then darker companions.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8B5A2B",
           "#7A52A1", "#5A7D1E")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
_RC: dict[Any, Any] = {
    "figure.figsize": (9.0, 5.4), "figure.dpi": 110, "savefig.dpi": 150, "font.size": 10.5,
    "axes.titlesize": 12.5, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.alpha": 0.25, "grid.linewidth": 0.6, "legend.frameon": False, "legend.fontsize": 9.0,
    "svg.hashsalt": "costsim", "font.family": "DejaVu Sans",
}


@contextmanager
def figure(
    title: str, foot: str = "", columns: int = 1, height: float = 5.4, rows: int = 1
) -> Iterator[Any]:
    """Yield a matplotlib figure and its axes in the common style.

    Args:
        title: of the first axes, or of the whole figure where there are several.
        foot: source and caveats, small under the figure.
        columns: axes side by side.
        height: inches.
        rows: of axes, which come one row after the other.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with plt.rc_context(_RC):
        width = 9.0 if columns == 1 else 4.8 * columns
        drawn, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False)
        if columns == 1:
            axes[0][0].set_title(title)
        else:
            drawn.suptitle(title, x=0.01, ha="left", fontweight="bold", fontsize=12.5)
        drawn.costsim_foot = foot  # type: ignore[attr-defined]
        yield drawn, (axes[0][0] if columns * rows == 1 else axes.ravel())
        plt.close(drawn)


def save(drawn: Any, folder: Path, name: str) -> list[Path]:
    """Write a figure as PNG and SVG; returns both paths."""
    foot = getattr(drawn, "costsim_foot", "")
    top = getattr(drawn, "costsim_top", 1 - 0.34 / drawn.get_figheight() if drawn._suptitle else 1)
    if drawn._suptitle:
        drawn._suptitle.set_in_layout(False)  # its place is kept by ``top``
    drawn.tight_layout(rect=(0, 0.045 if foot else 0, 1, top))
    if foot:
        import textwrap

        lines = textwrap.wrap(foot, int(drawn.get_figwidth() * 17))[:2]
        drawn.text(0.012, 0.008, "\n".join(lines), fontsize=7.5, color="#555555", va="bottom")
    paths = []
    for kind in ("png", "svg"):
        buffer = io.BytesIO()
        metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {"Software": None}
        drawn.savefig(buffer, format=kind, metadata=metadata)
        paths.append(write_atomically(folder / f"{name}.{kind}", buffer.getvalue()))
    return paths


def label_right(axis: Any, marks: Sequence[tuple[str, float, float, str]]) -> None:
    """Name points at the right edge, in order of their height, with lines that lead to them.

    Args:
        axis: with its limits set and a logarithmic y axis.
        marks: name, x, y and colour of each point.
    """
    import numpy as np

    low, high = np.log(axis.get_ylim())
    wanted = sorted(((np.log(m[2]) - low) / (high - low), m) for m in marks)
    at = -1.0
    for height, (name, x, y, tint) in wanted:
        at = max(height, at + 0.045)
        axis.annotate(name, (x, y), xytext=(1.01, at), textcoords="axes fraction", va="center",
                      fontsize=8, color=tint, annotation_clip=False,
                      arrowprops={"arrowstyle": "-", "color": tint, "lw": 0.5, "alpha": 0.6})


def colours(names: list[str]) -> dict[str, str]:
    """Return a colour for each name, in order."""
    return {name: PALETTE[i % len(PALETTE)] for i, name in enumerate(names)}


def dollars(value: float, _: Any = None) -> str:
    """Return an axis label for a price."""
    if value >= 1:
        return f"${value:,.0f}" if value >= 10 else f"${value:.2g}"
    if value >= 0.01:
        return f"{100 * value:.2g} ¢"
    return f"{100 * value:.2g} ¢" if value >= 1e-5 else f"${value:.1e}"
