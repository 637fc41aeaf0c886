"""One self-contained HTML file with tables, figures and findings of a run."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from costsim.files import write_atomically

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; color: #1b1b1b; background: #fff;
       max-width: 1180px; margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
.question { color: #444; max-width: 60rem; }
table { border-collapse: collapse; font-size: 12.5px; width: 100%; margin: .6rem 0 1.2rem; }
th { text-align: left; border-bottom: 2px solid #333; padding: .3rem .45rem; }
td { border-bottom: 1px solid #e3e3e3; padding: .28rem .45rem; vertical-align: top;
     overflow-wrap: anywhere; }
th.n { text-align: right; }
td.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap;
       overflow-wrap: normal; }
td small { color: #777; display: block; }
figure { margin: 1.2rem 0; } img { max-width: 100%; height: auto; border: 1px solid #eee; }
ul { padding-left: 1.2rem; } .warn li { color: #8a4b00; } footer { color: #777; margin: 3rem 0; }
"""


def embed(path: Path, alt: str) -> str:
    """Return a figure with the image inside."""
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    kind = "svg+xml" if path.suffix == ".svg" else "png"
    return (f'<figure><img alt="{html.escape(alt)}" '
            f'src="data:image/{kind};base64,{data}"></figure>')


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Return a table; a cell ``"value [interval]"`` shows its interval small below it."""
    head = "".join(f'<th{" class=n" if i >= left else ""}>{html.escape(c)}</th>'
                   for i, c in enumerate(columns))
    body = []
    for row in rows:
        cells = [_cell(str(cell), i >= left) for i, cell in enumerate(row)]
        body.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _cell(text: str, numeric: bool) -> str:
    value, bracket, interval = text.replace("\\[", "[").partition(" [")
    shown = html.escape(value)
    if bracket:
        shown += f"<small>[{html.escape(interval)}</small>"
    return f'<td class="n">{shown}</td>' if numeric else f"<td>{shown}</td>"


def items(lines: Iterable[str], kind: str = "") -> str:
    """Return a list."""
    inner = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f'<ul class="{kind}">{inner}</ul>' if inner else ""


def page(title: str, question: str, sections: Iterable[tuple[str, str]], foot: str) -> str:
    """Return the whole document.

    Args:
        title, question: on top.
        sections: headings with their HTML.
        foot: versions and sources.
    """
    body = "".join(f"<h2>{html.escape(head)}</h2>{inner}" for head, inner in sections if inner)
    return (f'<!doctype html><html lang="en"><head><meta charset="utf-8">'
            f'<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{html.escape(title)}</title><style>{_STYLE}</style></head><body>"
            f'<h1>{html.escape(title)}</h1><p class="question">{html.escape(question)}</p>'
            f"{body}<footer>{html.escape(foot)}</footer></body></html>")


def write_page(path: Path, document: str) -> Path:
    """Write a document atomically."""
    return write_atomically(path, document)
