"""The table of operating points, laid out by the width of the screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table

from costsim.reports.tables import mark, shown

if TYPE_CHECKING:
    from costsim.planning.estimate import Estimate

ESTIMATE_COLUMNS = ("deployment", "hardware", "layout", "batch", "TTFT", "TPOT",
                    "tok/s/accel", "bottleneck", "$/query", "$/1M in", "$/1M out")
_TIMES, _SPEED, _MONEY = range(4, 7), range(4, 8), range(8, 11)
# Below the first width times and prices stand in two tables, one under the other; below the
# second, hardware and layout stand under the name.
_WIDE, _NARROW = 150, 100


def estimate_row(e: Estimate, name: str = "") -> list[str]:
    """Return the cells of one estimate."""
    d = e.deployment
    doubtful = d.hardware.provenance if d.hardware.provenance == "rumoured" else ""
    return [
        name or mark(d.model.title, d.model.provenance),
        f"{int(d.accelerators)}x {mark(d.hardware.name, doubtful)}",
        str(d.layout), str(e.batch), shown(e.ttft_s), shown(e.tpot_s),
        shown(e.output_tokens_per_s_per_accelerator), e.bottleneck, shown(e.usd_per_query),
        shown(e.usd_per_million_input_tokens), shown(e.usd_per_million_output_tokens),
    ]


@dataclass(frozen=True)
class EstimateTable:
    """Rows of `ESTIMATE_COLUMNS`, in one table or, on a narrow screen, in two.

    Args:
        title: above them.
        rows: from `estimate_row`.
    """

    title: str
    rows: Sequence[Sequence[str]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the tables that fit the width."""
        narrow = options.max_width < _NARROW
        if options.max_width >= _WIDE:
            yield self._table(self.title, range(4, 11), narrow)
            return
        yield self._table(self.title, _TIMES if narrow else _SPEED, narrow)
        yield self._table("", _MONEY, narrow)

    def _table(self, title: str, cells: range, narrow: bool) -> Table:
        table = Table(title=title or None, title_justify="left", header_style="bold",
                      box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        table.add_column("deployment", overflow="fold", min_width=14)
        if not narrow:
            table.add_column("hardware, layout, batch", overflow="fold", min_width=16)
        for i in cells:
            table.add_column(ESTIMATE_COLUMNS[i], justify="right", no_wrap=True)
        for row in self.rows:
            place = _place(row)
            limit = f", {row[7]}" if row[7] else ""
            head = [f"{row[0]}\n{place}{limit}"] if narrow else [row[0], place]
            table.add_row(*head, *(_stacked(row[i]) for i in cells))
        return table


def _place(row: Sequence[str]) -> str:
    hardware, layout, batch = row[1:4]
    return f"{hardware}\n{layout}, {batch}" if batch else f"{hardware}\n{layout}"


def _stacked(cell: str) -> str:
    """Return a value with its interval, dimmed, on a second line."""
    value, bracket, interval = cell.partition(" \\[")
    return f"{value}\n[dim]\\[{interval}[/dim]" if bracket else value


def estimate_table(estimates: Sequence[Estimate], names: Sequence[str] = (),
                   title: str = "") -> Group:
    """Return the table of operating points, with what it assumes below it."""
    labels = list(names) or [""] * len(estimates)
    rows = [estimate_row(e, n) for e, n in zip(estimates, labels, strict=True)]
    first = estimates[0]
    title = title or f"{first.isl:g} tokens in, {first.osl:g} out"
    notes = dict.fromkeys(f"{e.deployment.hardware.name}: {e.provenance}; rent "
                          f"${float(e.rent.central):.2f}/h ({e.rent.note})" for e in estimates)
    return Group(EstimateTable(f"{title} · value \\[90 % interval]", rows), *notes)
