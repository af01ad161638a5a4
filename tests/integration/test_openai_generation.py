"""The rationales stage with an endpoint as its teacher, on a real local Ray and over real HTTP."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
import ray
from openai_server import KEY, reply, serving, status
from test_generation import make_recipe, outcomes

from qcrd_ray.doctor import diagnose
from qcrd_ray.errors import UserError
from qcrd_ray.rationales import generate, generate_splits
from qcrd_ray.recipe.file import dump_recipe
from qcrd_ray.runs.folder import RunFolder

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("local_ray")]


@pytest.fixture
def key_file(tmp_path_factory) -> str:
    file = tmp_path_factory.mktemp("secret") / "key"
    file.write_text(f"{KEY}\n")
    return str(file)


def teacher(server, key_file: str, **settings) -> dict:
    return {
        "source": "openai",
        "base_url": server.url,
        "model": "a-model",
        "api_key_file": key_file,
        **settings,
    }


def told_key(folder: Path) -> list[Path]:
    return [
        file for file in folder.rglob("*") if file.is_file() and KEY.encode() in file.read_bytes()
    ]


def test_a_row_that_fails_is_asked_again_by_the_next_run_and_only_it(tmp_path, key_file):
    """Every tenth question fails for good in the first run. The key is in no file of the run, nor
    in any log of Ray.
    """
    away = True

    def script(number, body):
        asked = body["messages"][-1]["content"]
        return status(500, "oh no") if away and sum(map(ord, asked)) % 10 == 0 else reply(body)

    with serving(script) as server:
        recipe = make_recipe(tmp_path / "run", teacher=teacher(server, key_file), attempts=2)
        folder = RunFolder.open(recipe)
        first = generate(recipe, folder)
        failed = {id for id, outcome in outcomes(folder).items() if outcome == "failed"}
        assert 0 < len(failed) == first.outcomes["failed"] < 60
        rows = {row["question_id"]: row for row in folder.read_rationales("train").to_pylist()}
        assert {rows[id]["reason"] for id in failed} == {"HTTP 500: oh no"}
        away, before = False, len(server.requests)
        second = generate(recipe, folder)
        assert len(server.requests) - before == len(failed) == second.calls[-1]["asked"]
    assert second.outcomes["accepted"] == second.rows == 60
    assert second.tokens == 60 * 30
    assert (
        sum(json.loads((folder.root / "rationales" / "spent.json").read_text()).values())
        == server.paid
    )
    assert Counter(server.lists) == {"/v1/models": 2}
    assert told_key(folder.root) == []
    assert told_key(Path(ray._private.worker._global_node.get_session_dir_path()) / "logs") == []


def test_a_limit_on_tokens_stops_in_order_and_a_higher_one_goes_on(tmp_path, key_file):
    """Two actors share one count, and a later run counts what an earlier one spent."""
    with serving() as server:
        few = make_recipe(
            tmp_path / "run",
            teacher=teacher(server, key_file, max_spent_tokens=1_000),
            actors=2,
            requests_in_flight=2,
        )
        folder = RunFolder.open(few)
        with pytest.raises(
            UserError,
            match=(
                r"stopped before \d+ of the 60 questions of train: 1,\d\d\d tokens are"
                r" spent.*max_spent_tokens"
            ),
        ):
            generate_splits(few, folder, ["train", "test"])
        assert 1_000 <= server.paid < 1_000 + 4 * 50  # what was in flight is paid for
        done = server.paid // 50
        assert Counter(outcomes(folder).values()) == {"accepted": done, "failed": 60 - done}
        with pytest.raises(UserError, match="stopped before"):
            generate(few, folder)
        assert server.paid == done * 50  # nothing more is spent
        more = make_recipe(
            tmp_path / "run", teacher=teacher(server, key_file, max_spent_tokens=10_000)
        )
        assert generate(more, RunFolder.open(more)).outcomes["accepted"] == 60
        assert server.paid == len(server.requests) * 50 == 60 * 50


def test_a_limit_is_kept_where_the_endpoint_does_not_say_what_it_took(tmp_path, key_file):
    """Guards a bill over the limit, and a job that one odd reply ends."""
    with serving(lambda number, body: reply(body, usage=False)) as server:
        recipe = make_recipe(
            tmp_path / "run",
            teacher=teacher(server, key_file, max_spent_tokens=1_000),
            requests_in_flight=1,
        )
        with pytest.raises(UserError, match=r"stopped before \d+ of .*max_spent_tokens"):
            generate(recipe, RunFolder.open(recipe))
        assert len(server.requests) >= 1 and server.paid < 1_000 + 2 * 50


def test_a_wrong_key_is_told_before_anything_is_asked(tmp_path, key_file):
    Path(key_file).write_text("sk-of-somebody-else")
    with serving() as server:
        recipe = make_recipe(tmp_path / "run", teacher=teacher(server, key_file))
        with pytest.raises(UserError, match="refuses the key"):
            generate(recipe, RunFolder.open(recipe))
        assert server.requests == []


def test_the_doctor_asks_the_endpoint(tmp_path, key_file):
    with serving() as server:
        recipe = make_recipe(tmp_path / "run", teacher=teacher(server, key_file))
        (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
        told = {finding.name: finding for finding in diagnose(tmp_path / "recipe.yaml")}
        assert told["teacher"].ok and f"with the key in {key_file}" in told["teacher"].text
        assert (
            told["teacher's endpoint"].ok
            and "has a-model, one of 1 models" in told["teacher's endpoint"].text
        )
        assert server.requests == [] and KEY not in str(told)
