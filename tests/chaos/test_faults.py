"""`make chaos`: each fault at random moments of a small run, and the same command again.

After each: every row once, the teacher paid for at most 1.05 passes, the weights and the numbers of
an unbroken run, nothing of ours alive, no traceback among the words.
"""

from __future__ import annotations

import os

import pytest
from chaos_faults import FAULTS
from chaos_trial import Fault, try_fault

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3_600)]

TRIALS = int(os.environ.get("TRIALS", "1"))


@pytest.mark.parametrize("number", range(TRIALS))
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.stage}: {fault.name}")
def test_a_fault_loses_nothing(fault: Fault, number, tmp_path, teacher, unbroken, table):
    if fault.disk and os.geteuid():
        pytest.skip("to mount a small disk takes root")
    outcome = try_fault(fault, tmp_path, teacher, unbroken, f"{fault.stage} {fault.name} {number}")
    table.add(outcome, unbroken)
    assert outcome.survived, outcome.why
