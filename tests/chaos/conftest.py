"""What the chaos tests share: the teacher, an unbroken run, and the table of all trials."""

from __future__ import annotations

from pathlib import Path

import pytest
from chaos_stages import QUESTIONS, SEED
from chaos_table import Table
from chaos_teacher import teaching
from chaos_trial import Reference

OUT = Path(__file__).resolve().parents[2] / "jobs" / "recipes" / "results" / "chaos"
TABLE = pytest.StashKey[Table]()


def pytest_addoption(parser):
    parser.addoption("--chaos-out", default=str(OUT), help="a folder: faults.jsonl, soak.jsonl")


@pytest.fixture(scope="session")
def teacher():
    with teaching(QUESTIONS, SEED) as teacher:
        yield teacher


@pytest.fixture(scope="session")
def unbroken(teacher, tmp_path_factory):
    return Reference(tmp_path_factory.mktemp("unbroken"), teacher)


@pytest.fixture(scope="session")
def table(pytestconfig) -> Table:
    table = Table(Path(pytestconfig.getoption("--chaos-out")) / "faults.jsonl")
    pytestconfig.stash[TABLE] = table
    return table


def pytest_terminal_summary(terminalreporter, config):
    if table := config.stash.get(TABLE, None):
        terminalreporter.section("the worst of each fault's trials")
        terminalreporter.write_line(table.text())
        terminalreporter.write_line(str(table.file))
