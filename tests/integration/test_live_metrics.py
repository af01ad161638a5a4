"""Ray's metrics, read as Prometheus reads them: from the port of the node's own agent."""

import re
import time
import urllib.request

import pytest

from qcrd_ray.runs.live_metrics import RationaleMetrics, TrainingMetrics

pytestmark = pytest.mark.integration
WAIT_S = 45  # an agent is handed new values every few seconds


def exported():
    """{(name, run, stage, what): value} of our metrics, as this node exports them."""
    import ray

    (node,) = ray.nodes()
    with urllib.request.urlopen(
        f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics", timeout=10
    ) as response:
        text = response.read().decode()
    found = {}
    for name, tags, value in re.findall(r"^ray_(qcrd_\w+)\{(.*?)\} (\S+)$", text, re.MULTILINE):
        tag = dict(re.findall(r'(\w+)="(.*?)"', tags))
        what = tag.get("outcome") or tag.get("direction") or tag.get("term") or tag.get("head")
        found[name, tag.get("run"), tag.get("stage"), what] = float(value)
    return found


def test_rows_tokens_losses_and_validation_reach_the_export(local_ray):
    """Bug guarded: names or tags that Ray drops without a word, and totals counted twice."""
    rationales = RationaleMetrics("r1")
    rationales.update({"accepted": 3, "failed": 1, "rows": 4, "tokens_out": 50, "tokens_in": 20})
    rationales.update(
        {"accepted": 5, "failed": 1, "rows": 6, "tokens_out": 80, "tokens_in": 30, "retries": 2}
    )
    rationales.update({"accepted": 1, "rows": 1, "tokens_out": 10})  # the tally was restarted
    training = TrainingMetrics("r1", "qcrd")
    training.step(35)
    training.round(
        {
            "student": {"loss": 0.5, "l_neg": -0.25, "active_fraction": 0.75},
            "validation": {"label": 0.25, "mean": 0.25},
        }
    )
    expected = {
        ("qcrd_rows_total", "r1", "rationales", "accepted"): 6,
        ("qcrd_rows_total", "r1", "rationales", "failed"): 1,
        ("qcrd_teacher_tokens_total", "r1", "rationales", "out"): 90,
        ("qcrd_teacher_tokens_total", "r1", "rationales", "in"): 30,
        ("qcrd_teacher_retries_total", "r1", "rationales", None): 2,
        ("qcrd_train_step", "r1", "qcrd", None): 35,
        ("qcrd_train_loss", "r1", "qcrd", "loss"): 0.5,
        ("qcrd_train_loss", "r1", "qcrd", "l_neg"): -0.25,
        ("qcrd_train_active", "r1", "qcrd", None): 0.75,
        ("qcrd_train_validation", "r1", "qcrd", "label"): 0.25,
    }
    end = time.monotonic() + WAIT_S
    while not expected.items() <= (found := exported()).items() and time.monotonic() < end:
        time.sleep(0.5)
    assert {key: found.get(key) for key in expected} == expected
