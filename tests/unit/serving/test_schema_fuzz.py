"""Requests drawn from the endpoint's own OpenAPI description, right ones and wrong ones.

QCRD_FUZZ sets how many cases a route gets of each kind (`make fuzz`: 10,000), other ones each time.
"""

from __future__ import annotations

import os

import pytest
import schemathesis
from endpoint_tiny import client, load
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance
from test_hostile_requests import at_once

CASES = int(os.environ.get("QCRD_FUZZ", "25"))


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_request_is_answered_as_described(exported_student, mode):
    """Guards a 500, a status or a body that the description does not have."""
    app = client(load(exported_student), write=at_once, allowed_hosts=("testserver",)).app
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert len(operations) > 5
    if mode == GenerationMode.NEGATIVE:  # a GET without parameters cannot be wrong
        operations = [each for each in operations if each.method == "post"]
    for operation in operations:

        @settings(
            max_examples=CASES,
            derandomize="QCRD_FUZZ" not in os.environ,
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case):
            response = case.call()
            assert response.status_code < 500, response.text
            # what no schema says is refused too: a judged vote of a student without a judge
            excluded = [positive_data_acceptance]
            if response.status_code == 413:  # a refusal that schemathesis does not count as one
                excluded.append(negative_data_rejection)
            case.validate_response(response, excluded_checks=excluded)

        check()
