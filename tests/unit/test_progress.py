"""The progress line: a log is not flooded, and says at any time how far the run is."""

import pytest

from qcrd_ray.progress import Stages, clock, plain_line


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (9.6, "0:10"), (95, "1:35"), (3725, "1:02:05")])
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_a_line_has_share_rate_and_time_left():
    assert plain_line("qcrd", 100, 400, 30.0, "round 4") == "qcrd        100/400 25% 0:30 eta 1:30 round 4"


def test_no_time_left_is_invented_before_anything_is_done():
    assert "eta" not in plain_line("qcrd", 0, 400, 30.0, "")
    assert plain_line("qcrd", 0, 0, 3.0, "starting") == "qcrd        0:03 starting"


def test_a_log_gets_few_lines_however_often_a_stage_reports(capsys):
    stages = Stages(every_s=1000.0)
    with stages.stage("rationales") as report:
        for done in range(1, 1001):
            report(done, 1000, "")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "1000/1000 100%" in lines[-1]
    assert stages.seconds["rationales"] >= 0


def test_waiting_without_a_total_does_not_flood_the_log_either(capsys):
    """Bug guarded: "0 of 0" taken for finished, and a line for every poll while the teacher starts."""
    with Stages(every_s=1000.0).stage("rationales") as report:
        for second in range(100):
            report(0, 0, f"the teacher starts, {second} s")
    assert len(capsys.readouterr().err.splitlines()) == 1
