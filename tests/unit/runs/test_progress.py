"""The progress line: a log is not flooded, and says at any time how far the run is."""

import pytest

from qcrd_ray.runs.progress import Pace, Stages, format_duration, plain_line, rate_text


def paced(*reports):
    pace = Pace()
    for report in reports:
        pace.update(*report)
    return pace


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (9.6, "0:10"), (95, "1:35"), (3725, "1:02:05")]
)
def test_clock(seconds, text):
    assert format_duration(seconds) == text


def test_a_line_has_share_rate_and_time_left():
    pace = paced((0, 400, 0.0), (1, 400, 10.0), (100, 400, 40.0))
    assert (
        plain_line("qcrd", 100, 400, 50.0, pace.text(), "round 4")
        == "qcrd        100/400 25% 0:50 3.3/s eta 1:31 round 4"
    )


def test_no_time_left_is_invented_before_anything_is_done():
    assert paced((0, 400, 0.0), (0, 400, 30.0)).text() == ""
    assert plain_line("qcrd", 0, 0, 3.0, "", "starting") == "qcrd        0:03 starting"


def test_what_an_earlier_run_had_finished_is_not_counted_as_speed():
    """Bug guarded: a run that resumed at 900 of 1000 rows promised to be done in a second."""
    pace = paced(
        (0, 0, 0.0), (900, 1000, 60.0), (900, 1000, 70.0), (901, 1000, 71.0), (911, 1000, 81.0)
    )
    assert pace.rate == pytest.approx(1.0) and pace.text() == "1.0/s eta 1:29"


def test_the_time_that_workers_take_to_start_is_not_counted_as_work():
    pace = paced((0, 100, 0.0), (0, 100, 60.0), (2, 100, 61.0), (12, 100, 62.0))
    assert pace.text() == "10/s eta 0:09"


def test_the_next_split_is_timed_anew():
    assert paced((1, 10, 1.0), (5, 10, 2.0), (10, 10, 3.0), (0, 300, 4.0)).text() == ""


def test_a_finished_stage_has_no_time_left():
    assert paced((0, 10, 0.0), (5, 10, 1.0), (10, 10, 2.0)).text() == "5.0/s"


@pytest.mark.parametrize(
    ("rate", "text"),
    [(1234.5, "1,234/s"), (3.3, "3.3/s"), (0.2, "12/min"), (0.002, "7.2/h"), (1e-5, "0.0/h")],
)
def test_a_rate_has_a_unit_in_which_it_can_be_read(rate, text):
    assert rate_text(rate) == text


def test_a_log_gets_few_lines_however_often_a_stage_reports(capsys):
    stages = Stages(every_s=1000.0)
    with stages.stage("rationales") as report:
        for done in range(1, 1001):
            report(done, 1000, "")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "1000/1000 100%" in lines[-1]
    assert stages.seconds["rationales"] >= 0


def test_waiting_without_a_total_does_not_flood_the_log_either(capsys):
    """Bug guarded: "0 of 0" taken for finished, and a line for every poll while the teacher
    starts.
    """
    with Stages(every_s=1000.0).stage("rationales") as report:
        for second in range(100):
            report(0, 0, f"the teacher starts, {second} s")
    assert len(capsys.readouterr().err.splitlines()) == 1
