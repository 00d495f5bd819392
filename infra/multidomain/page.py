"""A page of tables and plots in one HTML file: no script, no network, light or dark as the reader has it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

CSS = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1c2128; --soft: #59636e; --line: #d5dae0;
  --band: #f4f6f8; --good: #1a7f37; --bad: #cf222e; --mark: #bc4c00; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181d; --ink: #e3e8ee; --soft: #97a1ac;
  --line: #343b44; --band: #1c2229; --good: #4ac26b; --bad: #ff7b72; --mark: #f0883e; } }
body { margin: 0 auto; padding: 2rem 1.5rem 5rem; max-width: 78rem;
  background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; }
h2 { font-size: 1.3rem; margin: 3rem 0 .2rem; padding-top: 1rem; border-top: 1px solid var(--line); }
p, figcaption, caption { color: var(--soft); }
p { margin: .2rem 0 1rem; max-width: 60rem; }
nav a { color: inherit; margin-right: 1rem; }
.wide { overflow-x: auto; margin: 1.2rem 0; }
table { border-collapse: collapse; font-size: .86rem; font-variant-numeric: tabular-nums; }
caption, figcaption { text-align: left; font-size: .9rem; font-weight: 600; padding: .2rem 0 .4rem; }
th, td { padding: .28rem .7rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
thead th { background: var(--band); }
tbody th { text-align: left; }
tbody tr:hover { background: var(--band); }
small { color: var(--soft); }
.text { text-align: left; }
.best { font-weight: 700; }
.good { color: var(--good); font-weight: 600; }
.bad { color: var(--bad); font-weight: 600; }
.mark { color: var(--mark); font-weight: 600; }
figure { margin: 1.6rem 0; }
figure svg { width: 100%; max-width: 62rem; height: auto; }
"""


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a table."""

    text: str
    small: str = ""
    """Said less loudly behind it."""
    kind: str = ""
    """A class of the style sheet: best, good, bad, mark or text."""


Row = tuple[str, Sequence[Cell]]
"""(what it is of, its cells)."""


def table(name: str, caption: str, columns: Sequence[str], rows: Iterable[Row]) -> str:
    """A table; the first column names the rows. ``name`` is its id."""
    head = "".join(f'<th scope="col">{escape(column)}</th>' for column in columns)
    body = "\n".join(
        f'<tr><th scope="row">{escape(title)}</th>{"".join(map(_cell, cells))}</tr>' for title, cells in rows
    )
    return (
        f'<div class="wide"><table id="{escape(name)}"><caption>{escape(caption)}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def figure(title: str, svg: str) -> str:
    """A plot under its title; ``svg`` goes in as it is."""
    return f"<figure><figcaption>{escape(title)}</figcaption>\n{svg}</figure>"


def section(name: str, title: str, parts: Iterable[str]) -> str:
    """A part of the page that the navigation leads to; ``parts`` go in as they are."""
    return f'<section id="{escape(name)}"><h2>{escape(title)}</h2>\n' + "\n".join(parts) + "\n</section>"


def paragraph(text: str) -> str:
    """Plain text."""
    return f"<p>{escape(text)}</p>"


def page(title: str, lead: str, links: Iterable[str], sections: Iterable[str]) -> str:
    """The whole file; ``links`` are the names of its sections."""
    navigation = "".join(f'<a href="#{escape(link)}">{escape(link)}</a>' for link in links)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{CSS}</style></head>\n'
        f"<body>\n<h1>{escape(title)}</h1>\n{paragraph(lead)}\n<nav>{navigation}</nav>\n"
        + "\n".join(sections)
        + "\n</body>\n</html>\n"
    )


def _cell(cell: Cell) -> str:
    kind = f' class="{escape(cell.kind)}"' if cell.kind else ""
    small = f" <small>{escape(cell.small)}</small>" if cell.small else ""
    return f"<td{kind}>{escape(cell.text)}{small}</td>"
