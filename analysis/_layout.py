"""Table 1 on paper: which columns, which words, in each format."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from analysis._rows import NAMES, PRIORS, REPORT, Row
from analysis.published import OF_FIRST, Result, as_json
from analysis.runs import is_missing, shown
from vqvae_core import tables
from vqvae_core.tables import Column

PRICED = ("uniform", "unigram", "normal", "prior")  # priors, as rates are named after them
SAMPLES = (1, 10, 50)  # of the bounds L_S

NO_RUN = "no run yet"
NO_SWEEP = "no sweep for it exists yet"

EXPLAINED = (
    "ours: an upper bound on -log2 p(x) per dimension of integer pixels: distortion D plus the rate R of the codes "
    "under the prior named; the mean over n seeds with its 95 % interval (Student's t), of the configuration with the "
    "least mean valid/bits_per_dim. One seed has no interval.",
    "paper: van den Oord, Vinyals, Kavukcuoglu (2017), CIFAR10 only, as reported in the original paper.",
    "report: Kumar, Deleu, Racah (2018), Table 1, where VIMCO is blank: the report's Equation 7 as printed, divided by "
    "ln 2. That is no likelihood: a worse reconstruction scores better under it, a grey image better than a trained "
    "model. Compare it with the column named Equation 7, never with ours.",
    "model: mse is trained on squared errors, as in the report, and priced with one scale that is fitted afterwards; "
    "ema too, with a codebook that is kept alive; the others on the likelihood that prices them. + is the same model "
    "with a PixelCNN that prices its codes (of a dVAE and VIMCO: the likeliest), and the class that it is given too.",
    'remark: among the models of one data set, "not separable from the best" where the interval overlaps the best\'s.',
    "images seen: in training, by the weights that were measured; those of a prior after those of its model. "
    "A commit with * had changes that are not in it.",
)
ON_VALID = (
    "These figures are on the images that chose the configuration, and so a little too good: quote the test split."
)


@dataclass(frozen=True)
class Style:
    """How a format shows a table, a paragraph, a line of a list, and a command."""

    table: Callable[[Sequence[Column]], str]
    prose: Callable[[str], str]
    item: Callable[[str], str]
    code: Callable[[str], str]


TEXT = Style(tables.text, tables.wrapped, tables.wrapped, str)
MARKDOWN = Style(tables.markdown, tables.markdown_text, lambda words: f"- {tables.markdown_text(words)}", "`{}`".format)
# Only the tables are for the paper; everything else is a comment there.
LATEX = Style(tables.latex, tables.latex_comment, tables.latex_comment, str)
STYLES = {"text": TEXT, "md": MARKDOWN, "latex": LATEX}


def as_csv(rows: Sequence[Row], split: str, tracker: str) -> str:
    """One line a row, numbers with all their digits, lists with spaces between their parts."""
    return tables.comma_separated([_flat(row, split) for row in rows])


def as_json_text(rows: Sequence[Row], split: str, tracker: str) -> str:
    """Every row with ours, an object or null."""
    content = {"table": "Table 1", "unit": "bits/dim", "split": split, "tracker": shown(tracker)}
    content_rows = [
        {
            "row": _title(row),
            "dataset": row.dataset,
            "model": row.model,
            "name": row.name,
            "theirs": {"original_paper": row.original_paper, "report": row.report},
            "ours": {**as_json(row.ours), "remark": row.remark} if row.ours else None,
            "published": [{"file": file, **as_json(result)} for file, result in row.published],
            "how_to_make": row.how,
        }
        for row in rows
    ]
    return json.dumps({**content, "rows": content_rows, "notes": _notes(split)}, indent=1, ensure_ascii=False)


FORMATS = ("text", "md", "csv", "latex", "json")


def formatted(form: str, rows: Sequence[Row], split: str, tracker: str, split_rates: bool = False) -> str:
    """Table 1 in a format; CSV and JSON have all rates and bounds anyway."""
    match form:
        case "csv":
            return as_csv(rows, split, tracker)
        case "json":
            return as_json_text(rows, split, tracker)
        case _:
            return page(STYLES[form], rows, split, tracker, split_rates)


def page(style: Style, rows: Sequence[Row], split: str, tracker: str, split_rates: bool = False) -> str:
    """Title, tables, the commands for what is missing, and the notes."""
    made = [(row, row.ours) for row in rows if row.ours]
    published = [pair for row in rows for pair in row.published]
    missing = [row for row in rows if not row.ours]
    title = f"Table 1: bits/dim on the {split} split, less is better. Tracker: {shown(tracker)}"
    parts = [style.prose(title), style.table(_main_columns(rows))]
    if is_missing(tracker):
        parts += [style.prose("There is no tracker yet: this file does not exist.")]
    elif not made:
        parts += [style.prose(f"The tracker holds no complete run with {split} figures.")]
    if made:
        parts += [style.prose("What ours are made of:"), style.table(_detail_columns(made))]
    if published:
        files = ", ".join(dict.fromkeys(file for file, _ in published))
        parts += [style.prose(f"Published in {files}:"), style.table(_published_columns(published))]
    if split_rates:
        parts += split_tables(style, [*(result for _, result in made), *(result for _, result in published)])
    if missing:
        how = [f"{style.item(_title(row))}: {style.code(row.how) if row.how else NO_SWEEP}" for row in missing]
        parts += [style.prose("To make the rows without a run:"), "\n".join(how)]
    return "\n\n".join([*parts, "\n".join(map(style.item, _notes(split)))])


def published_only(form: str, published: Sequence[tuple[str, Result]], split_rates: bool = False) -> str:
    """The published rows alone, with their file's name each, for another page."""
    style, results = STYLES[form], [result for _, result in published]
    split = split_tables(style, results) if split_rates else []
    return "\n\n".join([style.table(_published_columns(published)), *split])


def split_tables(style: Style, results: Sequence[Result]) -> list[str]:
    """What a sum is made of, and how much tighter several samples are than one."""
    several = [result for result in results if result.bounds]
    return [
        style.prose("Distortion and rate by prior:"),
        style.table(_split_columns(results)),
        *([style.prose("Bounds of S samples:"), style.table(_bound_columns(several))] if several else []),
    ]


def _notes(split: str) -> list[str]:
    return [*EXPLAINED, ON_VALID] if split == "valid" else list(EXPLAINED)


def _main_columns(rows: Sequence[Row]) -> list[Column]:
    def ours(show: Callable[[Result], str]) -> list[str]:
        return [show(row.ours) if row.ours else "-" for row in rows]

    published = [min((result.value for _, result in row.published), default=None) for row in rows]
    return [
        Column("data set", [_name(row.dataset) for row in rows], left=True, most=14),
        Column("model", [_label(row) for row in rows], left=True, most=11),
        Column("paper", [_figure(row.original_paper) for row in rows]),
        Column("report", [_figure(row.report) for row in rows]),
        Column("ours", ours(lambda result: _figure(result.value))),
        Column("95 %", ours(_plus_minus)),
        Column("n", ours(lambda result: str(result.n))),
        Column("D", ours(lambda result: _figure(result.D))),
        Column("R", ours(lambda result: _figure(result.R))),
        Column("prior", ours(lambda result: result.prior or "-"), left=True, most=8),
        *([Column("pub-\nlished", [_figure(value) for value in published])] if set(published) - {None} else []),
        Column("remark", [row.remark if row.ours else NO_RUN for row in rows], left=True),
    ]


def _detail_columns(made: Sequence[tuple[Row, Result]]) -> list[Column]:
    results = [result for _, result in made]
    return [
        Column("data set", [_name(row.dataset) for row, _ in made], left=True, most=14),
        Column("model", [_label(row) for row, _ in made], left=True, most=11),
        Column("R\nuniform", [_figure(result.rates.get("uniform")) for result in results]),
        Column("Equation 7,\nnot a likelihood", [_figure(result.eq7) for result in results]),
        Column("chan-\nnels", [_channels(result) for result in results]),
        Column("im-\nages\nseen", [_images_seen(result) for result in results]),
        Column("train\nim-\nages", [_number(result.data.get("train")) for result in results]),
        Column("valid\nim-\nages", [_number(result.data.get("valid")) for result in results]),
        Column("test\nim-\nages", [_number(result.data.get("test")) for result in results]),
        Column("commit", [_commit(result) for result in results], left=True),
        Column("sweep", [result.sweep or "-" for result in results], left=True, most=26),
    ]


def _split_columns(results: Sequence[Result]) -> list[Column]:
    """D, and R and the sum under every prior that was measured."""
    priors = [name for name in PRICED if any(name in result.rates for result in results)]

    def total(result: Result, name: str) -> str:
        rate = result.rates.get(name)
        return "-" if rate is None or result.D is None else f"{result.D + rate:.3f}"

    return [
        *_named(results),
        Column("D", [_figure(result.D) for result in results]),
        *(
            column
            for name in priors
            for column in (
                Column(f"R\n{PRIORS.get(name, name)}", [_figure(result.rates.get(name)) for result in results]),
                Column("D + R", [total(result, name) for result in results]),
            )
        ),
        Column("unigram\npixels", [_figure(result.unigram_pixels) for result in results]),
    ]


def _bound_columns(results: Sequence[Result]) -> list[Column]:
    return [
        *_named(results),
        *(Column(f"L_{S}", [_figure(result.bounds.get(f"s{S}")) for result in results]) for S in SAMPLES),
        Column("of\nimages", [_count(result.bound_images) for result in results]),
    ]


def _published_columns(published: Sequence[tuple[str, Result]]) -> list[Column]:
    results, files = [result for _, result in published], [file for file, _ in published]
    return [
        *_named(results),
        Column("value", [_figure(result.value) for result in results]),
        Column("95 %", [_plus_minus(result) for result in results]),
        Column("n", [str(result.n) for result in results]),
        Column("D", [_figure(result.D) for result in results]),
        Column("R", [_figure(result.R) for result in results]),
        Column("prior", [result.prior or "-" for result in results], left=True, most=8),
        Column("Eq. 7", [_figure(result.eq7) for result in results]),
        Column("re-\nport", [_figure(REPORT.get((result.dataset, result.model))) for result in results]),
        Column("images,\ntrain\n/ test", [_of_splits(result) for result in results]),
        Column("chan-\nnels", [_channels(result) for result in results]),
        Column("im-\nages\nseen", [_images_seen(result) for result in results]),
        Column("commit", [_commit(result) for result in results], left=True),
        *([Column("file", files, left=True, most=11)] if len(set(files)) > 1 else []),
    ]


def _named(results: Sequence[Result]) -> list[Column]:
    return [
        Column("data set", [_name(result.dataset) for result in results], left=True, most=14),
        Column("model", [_called(result.model, result.row) for result in results], left=True, most=11),
    ]


def _flat(row: Row, split: str) -> dict[str, object]:
    """A row of CSV."""
    own = as_json(row.ours) if row.ours else {}
    data, rates = own.get("data", {}), own.get("rates", {})
    published = min((result.value for _, result in row.published), default=None)

    def words(parts: Sequence[Any] | None) -> str | None:
        return None if parts is None else " ".join(map(str, parts))

    return {
        "dataset": row.dataset,
        "model": row.model,
        "name": row.name,
        "split": split,
        "original_paper": row.original_paper,
        "report": row.report,
        "ours": own.get("value"),
        "interval": own.get("interval"),
        "n": own.get("n"),
        "seeds": words(own.get("seeds")),
        "D": own.get("D"),
        "R": own.get("R"),
        "prior": own.get("prior"),
        **{f"R_{name}": rates.get(name) for name in PRICED},
        **{f"L_{S}": own.get("bounds", {}).get(f"s{S}") for S in SAMPLES},
        "bound_images": own.get("bound_images"),
        "unigram_pixels": own.get("unigram_pixels"),
        "equation_7_not_a_likelihood": own.get("eq7"),
        "images_seen": words(own.get("images_seen")),
        "train_images": data.get("train"),
        "valid_images": data.get("valid"),
        "test_images": data.get("test"),
        "commit": words(own.get("commit")),
        "dirty": own.get("dirty"),
        "sweep": own.get("sweep"),
        "remark": row.remark if row.ours else NO_RUN,
        "published": published,
        "how_to_make": row.how or NO_SWEEP,
    }


def _title(row: Row) -> str:
    return f"{_name(row.dataset)} {_label(row)}"


def _label(row: Row) -> str:
    return _called(row.model, row.name)


def _called(model: str, row: str) -> str:
    """``VQ-VAE mse`` of vqvae_mse: the model, and what tells it from other rows of that model; + is a learned prior."""
    return _name(model) + row.removeprefix(model).replace("_prior", "+").replace("_", " ")


def _name(key: str) -> str:
    return NAMES.get(key, key)


def _figure(value: float | None) -> str:
    """Three decimals, as in the report."""
    return "-" if value is None else f"{value:.3f}"


def _plus_minus(result: Result) -> str:
    return "-" if result.interval is None else f"±{result.interval:.3f}"


def _count(number: object) -> str:
    return f"{number:,}" if isinstance(number, int) else "-"


def _channels(result: Result) -> str:
    """Of the model of images."""
    return result.config.get(f"{OF_FIRST}model.hidden") or result.config.get("model.hidden", "-")


def _images_seen(result: Result) -> str:
    """``1M``, or the least and the most of the seeds; a first stage's come first: ``1M+60k``."""
    ends = sorted({min(result.images_seen), max(result.images_seen)}) if result.images_seen else []
    own = "-".join(dict.fromkeys(map(_compact, ends)))
    first = result.config.get(f"{OF_FIRST}images_seen") or result.config.get(f"{OF_FIRST}train.images")
    return f"{_compact(int(first))}+{own}" if first else own


def _of_splits(result: Result) -> str:
    """``55k/10k``."""
    return "/".join(_number(result.data.get(split)) for split in ("train", "test"))


def _number(of_images: object) -> str:
    return _compact(of_images) if isinstance(of_images, int) else "-"


def _compact(number: int) -> str:
    """2016 -> ``2.02k``, 1000000 -> ``1M``."""
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if number >= 0.9995 * limit:
            return f"{number / limit:.3g}{unit}"
    return str(number)


def _commit(result: Result) -> str:
    """``1234567``, with a star when the code had been changed since."""
    short = result.commit[0][:7] if len(result.commit) == 1 else f"{len(result.commit)} commits"
    return short + "*" * result.dirty
