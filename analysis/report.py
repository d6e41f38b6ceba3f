"""One sweep as one HTML file that asks nothing of any server: what was asked, what was found, what it cost.

Run:     python analysis/report.py --sweep beta_lr-mnist -o report.html
         python analysis/report.py --tracking-uri http://tracker:5000 --sweep beta_lr-cifar10 -o report.html
"""
# ruff: noqa: E402

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
if __name__ == "__main__":  # started as a file: Python looks for modules in analysis/, where ours are not
    sys.path[0] = str(PROJECT)

from analysis.runs import DEFAULT_TRACKER, shown, tracking_uri
from vqvae_core.files import write_whole
from vqvae_core.overrides import OneLineParser, fail

TEMPLATES = Path(__file__).parent / "templates"


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the file; a mistake in the command line, or a tracker that does not answer, is one line and status 2."""
    chosen = parse(arguments)
    try:
        text = render(tracking_uri(chosen.tracking_uri), chosen.sweep)
        write(chosen.output, text)
    except ValueError as error:
        fail(str(error))
    print(f"{chosen.output}: {len(text) / 1e6:.1f} MB, one file; open it in any browser")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = OneLineParser(
        "analysis/report.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--sweep", metavar="NAME", help="the sweep's name or id (the newest)")
    add("-o", "--output", type=Path, default=Path("report.html"), metavar="FILE", help="where to write (report.html)")
    add("--tracking-uri", metavar="URI", help=f"MLflow's ($MLFLOW_TRACKING_URI or {DEFAULT_TRACKER})")
    return parser.parse_args(arguments)


def render(uri: str, name: str | None) -> str:
    """The page of a sweep, or of a tracker that has none yet and was asked for none by name.

    Raises ``ValueError`` when the sweep is not there, or when the tracker cannot be read.
    """
    from analysis._sweep import find_sweep, read_sweep

    parent = find_sweep(uri, name)
    if parent is None:
        made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
        return fill({"title": "Nothing to report", "tracker": shown(uri), "made": made})
    from analysis._page import page

    return fill(page(read_sweep(uri, parent), uri))


def fill(content: dict[str, object]) -> str:
    """The template with its content; what is not markup of ours is escaped."""
    try:
        import jinja2
    except ImportError:
        raise ValueError("a report is laid out with Jinja2: pip install 'vqsweep[analysis]'") from None
    from markupsafe import Markup

    loader = jinja2.FileSystemLoader(TEMPLATES)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.ChainableUndefined)
    inline = {kind: Markup((TEMPLATES / f"report.{kind}").read_text("utf-8")) for kind in ("css", "js")}
    return environment.get_template("report.html").render(**inline, **content)


def write(path: Path, text: str) -> None:
    """Replace a file whole; ``ValueError`` when that cannot be done."""
    try:
        write_whole(path, text)
    except OSError as error:
        raise ValueError(f"--output is {str(path)!r}, which cannot be written ({error.strerror})") from None


if __name__ == "__main__":
    main()
