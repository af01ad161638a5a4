"""What was read from a teacher's samples: how many are right, unread or cut off, and the votes.

`qcrd generate` ends with it, `qcrd parse` too, and the report's section on rows shows it.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions at import, where no type checker sees them.
from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from qcrd_ray.data.records import Outcome
from qcrd_ray.rationales.store import RationaleStore
from qcrd_ray.report.html import Markup, figure, join, table
from qcrd_ray.runs.folder import RunFolder

EXAMPLES = 3
SHOWN = 160  # characters of the end of a text
_COLUMNS = [
    *("question_id", "gold", "outcome", "vote"),
    *(f"completions.list.element.{name}" for name in ("answer", "reason", "finish_reason")),
]


@dataclass(frozen=True, slots=True)
class Unread:
    """A sample without an answer: why, and how its text ends."""

    id: str
    reason: str
    text: str


@dataclass(slots=True, kw_only=True)
class ReadingSummary:
    """Counts over the samples of some questions.

    ``right`` counts samples of questions with a gold answer, which are ``known``; unread ones among
    them are not right. A sample that the token limit cut off is ``cut_off`` and not ``unread``.
    """

    questions: int = 0
    samples: int = 0
    unread: int = 0
    cut_off: int = 0
    known: int = 0
    right: int = 0
    ties: int = 0
    votes: int = 0
    votes_known: int = 0
    votes_right: int = 0
    examples: list[Unread] = field(default_factory=list)

    def add(
        self,
        *,
        id: str,
        gold: str | None,
        outcome: str,
        vote: str | None,
        completions: Iterable[Mapping[str, Any]],
    ) -> None:
        """Add a question, whose ``gold`` answer is in canonical spelling, with its samples."""
        self.questions += 1
        self.ties += outcome == Outcome.NO_CONSENSUS
        if outcome == Outcome.ACCEPTED:
            self.votes += 1
            self.votes_known += gold is not None
            self.votes_right += gold is not None and vote == gold
        for each in completions:
            self.samples += 1
            self.known += gold is not None
            cut = each["finish_reason"] == "length"
            self.cut_off += cut
            self.right += gold is not None and each["answer"] == gold
            if each["answer"] is None and not cut:
                self.unread += 1
                if len(self.examples) < EXAMPLES and "text" in each:
                    ending = " ".join(each["text"].split())[-SHOWN:]
                    self.examples.append(Unread(id, each["reason"], ending))

    def add_rows(self, table: pa.Table) -> None:
        """Add questions with their samples, rows of finished rationales; keeps no example."""
        gold, outcome = table["gold"], table["outcome"]
        accepted = pc.equal(outcome, Outcome.ACCEPTED.value)
        self.questions += table.num_rows
        self.ties += _count(pc.equal(outcome, Outcome.NO_CONSENSUS.value))
        self.votes += _count(accepted)
        self.votes_known += _count(pc.and_(accepted, pc.is_valid(gold)))
        self.votes_right += _count(pc.and_(accepted, pc.equal(table["vote"], gold)))
        samples = pc.list_flatten(table["completions"])
        golds = gold.take(pc.list_parent_indices(table["completions"]))
        answer = pc.struct_field(samples, "answer")
        cut = pc.equal(pc.struct_field(samples, "finish_reason"), "length")
        self.samples += len(samples)
        self.known += _count(pc.is_valid(golds))
        self.cut_off += _count(cut)
        self.right += _count(pc.equal(answer, golds))
        self.unread += _count(pc.and_(pc.is_null(answer), pc.invert(cut)))

    def rows(self) -> list[tuple[str, str, str]]:
        """What is counted, the count, and its share."""
        rows = [
            ("samples without a readable answer", *_part(self.unread, self.samples)),
            ("samples cut off by the token limit", *_part(self.cut_off, self.samples)),
            ("questions whose vote is tied", *_part(self.ties, self.questions)),
        ]
        if self.known:
            rows.insert(0, ("single samples right", *_part(self.right, self.known)))
        if self.votes_known:
            rows.insert(1, ("votes right", *_part(self.votes_right, self.votes_known)))
        return rows

    def lines(self) -> list[str]:
        """The summary for a terminal."""
        lines = [f"{self.samples:,} samples of {self.questions:,} questions"]
        lines += [f"  {name:<36} {count:>17} {share:>8}" for name, count, share in self.rows()]
        if self.examples:
            lines.append("  unread, for example:")
            lines += [f"    {each.id}: {each.reason}: ...{each.text!r}" for each in self.examples]
        return lines


def read_summary(folder: RunFolder, split: str) -> ReadingSummary:
    """The summary of the rationales of ``split``, from the files of a run folder."""
    store, summary = RationaleStore(folder.rationales(split)), ReadingSummary()
    for part in store.tables(_COLUMNS):
        summary.add_rows(part)
    if summary.unread:
        summary.examples = _examples(store)
    return summary


def reading_figure(split: str, summary: ReadingSummary) -> Markup:
    """The summary as tables of the report."""
    shown = [table(("", "count", "share"), summary.rows())]
    if summary.examples:
        rows = [(each.id, each.reason, f"... {each.text}") for each in summary.examples]
        shown.append(table(("unread sample of", "why", "its end"), rows))
    return figure(f"What was read from the samples of {split}", join(*shown))


def _examples(store: RationaleStore) -> list[Unread]:
    """The first unread samples with their texts; stops as soon as it has enough."""
    summary = ReadingSummary()
    texts = [*_COLUMNS, "completions.list.element.text"]
    for part in store.tables(texts):
        for row in part.to_pylist():
            summary.add(
                id=row["question_id"],
                gold=None,
                outcome=row["outcome"],
                vote=None,
                completions=row["completions"],
            )
            if len(summary.examples) == EXAMPLES:
                return summary.examples
    return summary.examples


def _count(mask: pa.ChunkedArray) -> int:
    """How many are true; unknown ones are not."""
    return pc.sum(mask).as_py() or 0


def _part(count: int, whole: int) -> tuple[str, str]:
    share = f"{100 * count / whole:.1f} %" if whole else "-"
    return f"{count:,} of {whole:,}", share
