"""The table of results: on a terminal, and in a model card."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

COLUMNS = ("split", "who", "answers by", "accuracy", "95 % interval", "right", "no answer")


def table_rows(results: Mapping) -> list[tuple[str, ...]]:
    """The cells of each row of ``results["rows"]``, split by split: accuracies in percent, the
    interval by Wilson's score.
    """
    rows = results["rows"]
    splits = list(dict.fromkeys(row["split"] for row in rows))
    return [
        (
            row["split"],
            row["name"],
            row["head"],
            f"{100 * row['accuracy']:.1f}",
            f"{100 * row['low']:.1f} - {100 * row['high']:.1f}",
            f"{row['correct']}/{row['total']}",
            str(row["unanswered"]),
        )
        for split in splits
        for row in rows
        if row["split"] == split
    ]


def render_table(results: Mapping) -> Table:
    """The results for a rich console."""
    table = Table(title="accuracy, %")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in COLUMNS[:3] else "right")
    last = None
    for cells in table_rows(results):
        if last not in (None, cells[0]):
            table.add_section()
        table.add_row(*cells)
        last = cells[0]
    return table


def markdown_table(results: Mapping) -> str:
    """The results as a Markdown table."""
    rule = ("---", "---", "---", "---:", "---:", "---:", "---:")
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (COLUMNS, rule, *table_rows(results)))
