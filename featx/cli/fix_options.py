"""The options of ``featx inspect`` that write a corrected table."""

from __future__ import annotations

from typing import Any

import click

from featx.cli.needs import ALWAYS, with_option
from featx.cli.option_groups import option
from featx.cli.options import options
from featx.constants import DUPLICATE_FIXES, EXPECTED, LEAK_FIXES


class Suggestions(click.ParamType):  # type: ignore[type-arg]
    """A whole number, at least 0, or "expected"."""

    name = "suggestions"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Convert the text of the command line."""
        if value == EXPECTED:
            return EXPECTED
        try:
            return int(click.IntRange(min=0).convert(value, param, ctx))
        except click.BadParameter:
            self.fail(f"{value!r} is neither a whole number from 0 on nor {EXPECTED}", param, ctx)


_SECTION, _WITH_FIX = "Corrected table", with_option("fix", "--fix")

FIX = options(
    option(
        "--fix", section=_SECTION, needs=ALWAYS, metavar="FILE",
        help="Write a corrected table (.csv or .parquet), which featx extract reads without a forward pass.",
    ),
    option(
        "--duplicates", type=click.Choice(DUPLICATE_FIXES), default=DUPLICATE_FIXES[0], show_default=True, section=_SECTION,
        needs=_WITH_FIX,
        help="Duplicates in that table: group names a group for each set, for featx fit-head --group; drop also drops all but "
        "one image, unless labels differ.",
    ),
    option(
        "--leaks", type=click.Choice(LEAK_FIXES), default=LEAK_FIXES[0], show_default=True, section=_SECTION, needs=_WITH_FIX,
        help="Duplicates in two splits: move puts both into the earlier of train, val, test; drop drops those in the earlier "
        "split, so that the test set remains whole; keep leaves them.",
    ),
    option(
        "--accept", type=Suggestions(), default=0, show_default=True, section=_SECTION, needs=_WITH_FIX,
        metavar=f"N|{EXPECTED}",
        help=f"Apply the N most suspicious label suggestions for training images; {EXPECTED}: as many as are probably wrong by "
        "confident learning. Labels of val and test change by --decisions alone.",
    ),
    option(
        "--decisions", section=_SECTION, needs=_WITH_FIX, metavar="TABLE",
        help="Table of labels, splits and groups to apply, such as the page exports. Images that it lacks are left out, unless "
        "it has no column split.",
    ),
)  # fmt: skip
"""Options with the parameters fix, duplicates, leaks, accept and decisions, as ``write_fixed_table`` takes them:

    if fix is not None:
        corrected = write_fixed_table(
            inspection, fix, duplicates=duplicates, leaks=leaks, accept=accept, decisions=decisions
        )

Before the work, ``featx.inspection.corrected_table.require_writable(Path(fix))`` refuses a file that could not be written;
``corrected.summary``, ``notes`` and ``commands`` are what the command prints, and ``as_dict`` what ``--json`` prints."""
