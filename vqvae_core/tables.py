"""Tables as text for a terminal, Markdown, CSV, LaTeX; each knows what its characters mean."""

from __future__ import annotations

import csv
import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH = 120  # columns of a terminal that text fits


@dataclass(frozen=True)
class Column:
    """A column of a table that people read."""

    title: str  # "\n" where text breaks it
    cells: Sequence[str]
    left: bool = False  # words stand left, numbers right
    most: int = 30  # characters of a cell in text

    @property
    def unbroken(self) -> str:
        """Its title where it need not be broken."""
        return self.title.replace("-\n", "").replace("\n", " ")


def text(columns: Sequence[Column]) -> str:
    """Aligned columns under their titles, each cell cut to its column's width; no line is longer than ``WIDTH``."""
    titles = [column.title.split("\n") for column in columns]
    height = max(map(len, titles))
    lines = [[""] * (height - len(title)) + title for title in titles]
    blocks = []
    for column, title in zip(columns, lines, strict=True):
        cells = [*title, *(cut(cell, column.most) for cell in column.cells)]
        width = max(map(len, cells))
        blocks.append([cell.ljust(width) if column.left else cell.rjust(width) for cell in cells])
    rows = ["  ".join(row)[:WIDTH].rstrip() for row in zip(*blocks, strict=True)]
    return "\n".join([*rows[:height], "-" * max(map(len, rows)), *rows[height:]])


def cut(cell: str, most: int) -> str:
    """A cell of at most ``most`` characters, without line breaks."""
    cell = " ".join(cell.split())
    return cell if len(cell) <= most else cell[: most - 1] + "…"


def wrapped(words: str, width: int = WIDTH, indent: int = 2) -> str:
    """A paragraph as lines of at most ``width`` characters, all but the first indented; longer words stay whole."""
    return textwrap.fill(words, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def markdown(columns: Sequence[Column]) -> str:
    """A table of GitHub's Markdown."""
    head = [markdown_text(column.unbroken) for column in columns]
    rule = [":---" if column.left else "---:" for column in columns]
    body = zip(*([markdown_text(cell) for cell in column.cells] for column in columns), strict=True)
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, rule, *map(list, body)])


def markdown_text(words: str) -> str:
    """Words in which nothing is markup."""
    return "".join(f"\\{c}" if c in "\\|`*_[]<>" else c for c in " ".join(words.split()))


LATEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "…": r"\dots{}",
}


def latex(columns: Sequence[Column]) -> str:
    """A ``tabular`` that needs no package."""
    shape = "".join("l" if column.left else "r" for column in columns)
    head = " & ".join(latex_text(column.unbroken) for column in columns) + r" \\"
    body = [
        " & ".join(row) + r" \\"
        for row in zip(*([latex_text(cell) for cell in column.cells] for column in columns), strict=True)
    ]
    return "\n".join([rf"\begin{{tabular}}{{{shape}}}", r"\hline", head, r"\hline", *body, r"\hline", r"\end{tabular}"])


def latex_comment(words: str) -> str:
    """A paragraph that LaTeX skips."""
    return textwrap.indent(wrapped(words, WIDTH - 2), "% ")


def latex_text(words: str) -> str:
    """Words in which nothing is markup."""
    return "".join(LATEX.get(c, c) for c in " ".join(words.split()))


def comma_separated(rows: Sequence[Mapping[str, object]]) -> str:
    """CSV with a header; None is an empty cell, a number has all its digits."""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().rstrip("\n")
