"""The report's Table 1, bits/dim on the test split: theirs beside the best that the tracker has.

Run:     python analysis/table1.py
         python analysis/table1.py --format md --split-rates
         python analysis/table1.py --published --format md                   what is published, as the README has it
         python analysis/table1.py --export results/table1.json --hardware "1 x NVIDIA H200"
         python analysis/table1.py --probe --checkpoint runs/mnist_vqvae     which definition prefers a grey image
         python analysis/table1.py --picture models.png --checkpoint A --checkpoint B
         python analysis/table1.py reproduce mnist/vqvae_mse                 a published row again, against its interval
"""
# ruff: noqa: E402

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # started as a file: Python looks for modules in analysis/, where ours are not
    sys.path[0] = str(PROJECT)

from analysis._layout import FORMATS, STYLES, formatted, published_only
from analysis._rows import Row, find_rows, in_order, with_hardware
from analysis.published import Result, read_results, this_machine, write_results
from analysis.runs import DEFAULT_TRACKER, shown, tracking_uri
from vqvae_core.overrides import OneLineParser, fail

# torch takes seconds to import, and a table needs none: what loads a model is imported where it is used.


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what was asked for; a mistake in the command line or a tracker that does not answer is one line, status 2.

    The exit status is 1 when a row that was run again is not within its interval.
    """
    chosen = parse(arguments)
    try:
        if chosen.action:
            raise SystemExit(run_again(chosen))
        printed = probed(chosen) if chosen.probe else pictured(chosen) if chosen.picture else table(chosen)
    except (ValueError, OSError) as error:
        fail(str(error))
    try:
        print(printed, flush=True)
    except BrokenPipeError:  # `| head` has seen enough; Python must not try again when it closes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = OneLineParser(
        "analysis/table1.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("action", nargs="?", choices=("reproduce",), metavar="reproduce", help="train and test a published row again")
    add("row", nargs="?", metavar="ROW", help="data set/row, as mnist/vqvae_mse; with @sweep where there are several")
    add("--tracking-uri", metavar="URI", help=f"MLflow's ($MLFLOW_TRACKING_URI or {DEFAULT_TRACKER})")
    add("--format", choices=FORMATS, default="text", help="what to print (text)")
    add("--split", choices=("test", "valid"), default="test", help="valid: of all complete trials (test)")
    add("--split-rates", action="store_true", help="also D and R under every prior, and the bounds of S samples")
    add("--published", action="store_true", help="only the published results' table; no tracker is read")
    add("--results", type=Path, metavar="DIR", help="published results to show too (the project's results/)")
    add("--export", type=Path, metavar="FILE", help="also publish our rows as JSON in this file, beside its other ones")
    add("--hardware", metavar="TEXT", help="what they were made on, for --export (as tracked, else this machine)")
    add("--probe", action="store_true", help="what each definition of bits/dim says of a trained model and of grey")
    add("--picture", type=Path, metavar="FILE", help="draw reconstructions and samples of each --checkpoint as a PNG")
    where = (
        "a checkpoint, run's folder or run's name; --picture takes several, --probe one instead of the tracker's best"
    )
    add("--checkpoint", action="append", metavar="PATH", help=where)
    add("--dataset", metavar="NAME", help="only its rows (all); of --probe without --checkpoint (mnist)")
    add("--model", metavar="NAME", default="vqvae", help="of --probe without --checkpoint (vqvae)")
    add("--images", type=int, default=500, metavar="N", help="of --probe: how many images of the split (500)")
    add("--data-root", type=Path, metavar="DIR", help="where images are prepared (as in training, $VQSWEEP_DATA, data)")
    add("--data-source", metavar="DIR", help="of reproduce: parquet files in the hub's layout, instead of a download")
    add(
        "--seed", type=int, action="append", metavar="S", help="of reproduce: only this seed; several times for several"
    )
    add("--out", type=Path, default=Path("runs/reproduce"), metavar="DIR", help="of reproduce: (runs/reproduce)")
    chosen = parser.parse_args(arguments)
    asked = [
        name
        for name, given in (
            ("reproduce", chosen.action),
            ("--probe", chosen.probe),
            ("--picture", chosen.picture),
            ("--export", chosen.export),
        )
        if given
    ]
    if len(asked) > 1:
        parser.error(f"{' and '.join(asked)} are given; allowed is one of them")
    if chosen.seed and not chosen.action:
        parser.error(f"--seed is {chosen.seed[0]}; allowed is one only with reproduce")
    if chosen.action and not chosen.row:
        parser.error("ROW is not given; allowed is a published row, as mnist/vqvae_mse")
    if chosen.picture and chosen.picture.suffix.lower() != ".png":
        parser.error(f"--picture is {chosen.picture}; allowed is a name that ends in .png, which the picture is")
    if chosen.picture and not chosen.checkpoint:
        parser.error("--checkpoint is not given; --picture needs one or several")
    if chosen.probe and len(chosen.checkpoint or []) > 1:
        parser.error("--checkpoint is given several times; --probe takes one")
    if chosen.published and chosen.format not in STYLES:
        parser.error(f"--format is {chosen.format}; allowed with --published is one of {', '.join(STYLES)}")
    if chosen.published and chosen.export:
        parser.error("--export is given; --published reads no tracker, from which it would be")
    if chosen.images < 2:
        parser.error(f"--images is {chosen.images}; allowed is an integer >= 2")
    return chosen


def table(chosen: argparse.Namespace) -> str:
    """Table 1, and its export on the way; ``ValueError`` for what cannot be read or written."""
    if chosen.published:
        every = in_order(published_in(chosen.results), chosen.split)
        folder = chosen.results or PROJECT / "results"
        if not every:
            raise ValueError(f"--split is {chosen.split}; {folder} has no published results of it")
        published = [pair for pair in every if chosen.dataset in (None, pair[1].dataset)]
        check_there(chosen.dataset, [result.dataset for _, result in every], str(folder))
        return published_only(chosen.format, published, chosen.split_rates)
    uri = tracking_uri(chosen.tracking_uri)
    every_row = find_rows(uri, chosen.split, published_in(chosen.results))
    check_there(chosen.dataset, [row.dataset for row in every_row], f"Table 1 with {shown(uri)}")
    rows = [row for row in every_row if chosen.dataset in (None, row.dataset)]
    if chosen.export:
        export(chosen.export, rows, chosen.hardware)
    return formatted(chosen.format, rows, chosen.split, uri, chosen.split_rates)


def check_there(dataset: str | None, there: Sequence[str], where: str) -> None:
    """``ValueError`` for a data set that has no row."""
    if dataset is not None and dataset not in there:
        raise ValueError(f"--dataset is {dataset}; {where} has {', '.join(dict.fromkeys(there))}")


def probed(chosen: argparse.Namespace) -> str:
    """What every definition says of a model; ``ValueError`` when there is none, or its images are not here."""
    from analysis import _models, _probe

    uri, name = tracking_uri(chosen.tracking_uri), chosen.dataset or "mnist"
    if chosen.checkpoint:
        found: _models.Found | None = _models.in_folder(chosen.checkpoint[0])
    else:
        found = _models.best_in_tracker(uri, name, chosen.model)
    if found is None:
        raise ValueError(f"{uri} has no weights of a {chosen.model} of {name}; give --checkpoint")
    dataset = _models.images_for(found, chosen.data_root)
    return _probe.formatted(_probe.probe(found, dataset, chosen.split, chosen.images), chosen.format)


def pictured(chosen: argparse.Namespace) -> str:
    """Draw models beside each other; gives what the picture's rows are."""
    from analysis import _models, _models_picture

    models = [_models.in_folder(where) for where in chosen.checkpoint]
    dataset = _models.images_for(models[0], chosen.data_root)
    names = _models_picture.draw(models, dataset, chosen.split, chosen.picture)
    return "\n".join([str(chosen.picture), *(f"row {number}: {name}" for number, name in enumerate(names, 1))])


def run_again(chosen: argparse.Namespace) -> int:
    """Train and test a published row, say how it compares; 1 when it is not within its interval, else 0."""
    from analysis import _reproduce

    record = _reproduce.find_record(published_in(chosen.results), chosen.row)
    places = {"data.root": str(chosen.data_root or os.environ.get("VQSWEEP_DATA") or "data")}
    if chosen.data_source:
        places["data.source"] = chosen.data_source
    seeds = chosen.seed or [seed for seed in record.seeds if seed is not None]
    out = chosen.out / "-".join(filter(None, (record.dataset, record.row, record.sweep)))
    again = _reproduce.reproduce(record, seeds, out, places, lambda line: print(line, file=sys.stderr, flush=True))
    print(_reproduce.described(again), flush=True)
    return 1 if again.agrees is False else 0


def published_in(folder: Path | None) -> list[tuple[str, Result]]:
    """The published results, each with its file's name; a folder that the user named must be there."""
    if folder and not folder.is_dir():
        raise ValueError(f"--results is {folder}; allowed is a folder")
    return read_results(folder or PROJECT / "results")


def export(path: Path, rows: Sequence[Row], hardware: str | None) -> None:
    """Publish ours of all rows; ``ValueError`` when there are none or the file cannot be written.

    A file that is there keeps its rows of other configurations: what one tracker holds may not be all there is.
    """
    ours = [row.ours for row in rows if row.ours]
    if not ours:
        raise ValueError(f"there is no run to publish in {path}")
    if not hardware and not all(result.hardware for result in ours):
        hardware = this_machine()
    new = {identity(result) for result in ours}
    before = [result for file, result in read_results(path.parent) if file == path.name]
    kept = [result for result in before if identity(result) not in new]
    write_results(path, [*kept, *with_hardware(ours, hardware or "")])
    print(f"published {len(ours)} rows in {path}, beside {len(kept)} others", file=sys.stderr)


def identity(result: Result) -> tuple[object, ...]:
    """What two results have in common of which one replaces the other."""
    return result.dataset, result.split, tuple(sorted(result.config.items()))


if __name__ == "__main__":
    main()
