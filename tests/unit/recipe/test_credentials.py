"""A key in the wrong place is refused by name, and no message repeats it."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from qcrd_ray.errors import UserError
from qcrd_ray.recipe import OpenAITeacher, ServeTeacher, ServingRecipe, TrackingRecipe
from qcrd_ray.recipe.credentials import holds_credentials, without_credentials
from qcrd_ray.recipe.file import load_recipe

SECRET = "hunter2hunter2"


@pytest.mark.parametrize(
    ("uri", "clean"),
    [
        ("s3://id:hunter2@bucket/run", "s3://bucket/run"),
        # a store's secret holds slashes more often than not; urlsplit ends the host there
        ("s3://ID:hun/ter2@bucket/run", "s3://bucket/run"),
        ("https://me:hunter2@host:8080/v1", "https://host:8080/v1"),
        ("abfs://box/run?account_key=hunter2", "abfs://box/run"),
        ("postgresql://me:hunter2@host/db", "postgresql://host/db"),
    ],
)
def test_credentials_of_a_uri_are_found_and_taken_out(uri, clean):
    assert holds_credentials(uri)
    assert without_credentials(uri) == clean
    assert without_credentials(f"--set run='{uri}' and more") == f"--set run='{clean}' and more"


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:5000/a@b",
        "hdfs://host:8020/run",
        "s3://bucket/who@where/run?region=eu",
        "sqlite:///mlflow.db",
        "databricks://profile",
        "http://[::1",
    ],
)
def test_other_uris_hold_none(uri):
    assert not holds_credentials(uri)
    assert without_credentials(uri) == uri.partition("?")[0]


@pytest.mark.parametrize(
    ("section", "given", "told"),
    [
        (ServeTeacher, {"env": {"HF_TOKEN": SECRET}}, "HF_TOKEN would be written"),
        (ServeTeacher, {"env": {"AWS_SECRET_ACCESS_KEY": SECRET}}, "AWS_SECRET_ACCESS_KEY"),
        (ServeTeacher, {"engine_kwargs": {"hf_token": SECRET}}, "hf_token would be written"),
        (OpenAITeacher, {"extra_body": {"api-key": SECRET}}, "extra_body.api-key"),
        (OpenAITeacher, {"api_key_env": f"hf_A{SECRET}"}, "name of a variable"),
        (OpenAITeacher, {"base_url": f"https://me:a/{SECRET}@host/v1"}, "neither a user"),
        (ServingRecipe, {"api_key_env": f"sk-{SECRET}"}, "name of a variable"),
        (TrackingRecipe, {"mlflow": f"https://me:{SECRET}@host"}, "MLFLOW_TRACKING_TOKEN"),
        (TrackingRecipe, {"mlflow": f"https://host?token={SECRET}"}, "MLFLOW_TRACKING_TOKEN"),
    ],
)
def test_a_key_in_a_recipe_is_refused_unseen(section, given, told):
    source = {ServeTeacher: "serve", OpenAITeacher: "openai"}.get(section)
    teacher = {"source": source, "model": "m"} if source else {}
    with pytest.raises(ValidationError, match=told) as refused:
        section.model_validate(teacher | given)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("section", "given"),
    [
        (
            ServeTeacher,
            {"env": {"HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "HF_TOKEN_PATH": "/a/token"}},
        ),
        (ServeTeacher, {"engine_kwargs": {"hf_token": True}}),
        (OpenAITeacher, {"extra_body": {"prompt_cache_key": "questions-1", "max_tokens": None}}),
    ],
)
def test_what_only_looks_like_a_key_is_taken(section, given):
    source = "serve" if section is ServeTeacher else "openai"
    section.model_validate({"source": source, "model": "m", **given})


def test_an_override_is_quoted_without_its_password(tmp_path):
    """Bug guarded: an error names the override that it comes from, with its value."""
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps({"name": "t", "teacher": {"source": "openai", "model": "m"}}))
    with pytest.raises(UserError, match=r"--set teacher\.base_url=https://host/v1\)") as refused:
        load_recipe(path, [f"teacher.base_url=https://me:{SECRET}@host/v1"])
    assert SECRET not in str(refused.value)
