"""`/docs` shows the routes without a network: nothing in it is loaded from anywhere."""

from __future__ import annotations

import json
import re
import shlex
from html import unescape

import pytest
from endpoint_tiny import client, load

from qcrd_ray.serving import docs_page


@pytest.fixture(scope="module")
def api(exported_student):
    return client(load(exported_student))


def test_the_page_names_each_route_and_loads_nothing(api):
    """Bug guarded: FastAPI's page is empty where its scripts cannot be fetched."""
    answer = api.get("/docs")
    assert answer.status_code == 200
    assert "script-src 'none'" in answer.headers["content-security-policy"]
    assert not re.search(r"<script|<link|src=|https?://(?!localhost)", answer.text)
    for path in api.get("/openapi.json").json()["paths"]:
        assert path in answer.text
    assert "also score the reasoning with the discriminator" in answer.text


def test_its_commands_are_answered(api):
    """Each is pasted as it stands, into a shell."""
    page = api.get("/docs").text
    commands = re.findall(r"<pre>(curl .*?)</pre>", page, re.DOTALL)
    assert len(commands) >= 6
    for command in commands:
        words = shlex.split(unescape(command))
        path = words[2].removeprefix("localhost:8000")
        assert api.post(path, json=json.loads(words[-1])).status_code == 200, command


def test_what_a_description_says_is_not_run():
    page = docs_page.render({"info": {"title": "<script>x</script>"}, "paths": {}})
    assert "<script>" not in page and "&lt;script&gt;" in page
