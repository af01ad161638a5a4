"""The page's policy: what is in the page runs, and nothing else."""

from __future__ import annotations

import base64
import hashlib

from qcrd_ray.serving import front_page


def test_inline_code_is_allowed_by_its_hash_alone():
    """A hash over other bytes than the browser's (blanks, entities, both kinds of tag) would leave
    the page dead.
    """
    style, script = "\n  b > a { color: red }\n", "\nif (1 < 2 && '&amp;') { go('<b>') }\n"
    sent = front_page.headers(
        f"<html><head><style>{style}</style></head><body><SCRIPT"
        f" type='module'>{script}</SCRIPT></body></html>"
    )
    policy = sent["Content-Security-Policy"]
    for text in (style, script):
        assert (
            f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
            in policy
        )
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy


def test_a_page_without_code_may_run_none():
    assert (
        "script-src 'none'; style-src 'none'"
        in front_page.headers("<p>nothing</p>")["Content-Security-Policy"]
    )
