"""The builder's arguments: texts from a command line work, and every mistake names its key."""

from __future__ import annotations

import pytest

from qcrd_ray.errors import UserError
from qcrd_ray.recipe import ServingRecipe
from qcrd_ray.serving.arguments import read_arguments, read_settings


def test_texts_are_read_as_values(exported_student):
    """`serve run module:build replicas=2` passes "2", which the strict recipe would refuse."""
    texts = {
        "student": str(exported_student),
        "replicas": "2",
        "batch_wait_s": "0.1",
        "max_replicas": "null",
        "model_name": "123",
    }
    folder, recipe = read_arguments({**texts, "replica": '{"resources": {"node": 1}}'})
    assert folder.path == exported_student
    assert recipe == ServingRecipe(
        replicas=2, batch_wait_s=0.1, model_name="123", replica={"resources": {"node": 1.0}}
    )


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ({}, "student: is missing"),
        ({"student": None}, "student: is missing"),
        ({"student": "/nowhere"}, "/nowhere: there is no such folder"),
        ({"workers": 2}, "workers: there is no such key; expected student, .*replicas"),
        ({"host": "0.0.0.0"}, r"host: .*http_options\.host"),
        ({"port": 80}, r"port: .*http_options\.port"),
        ({"replicas": "two"}, "replicas: .*integer, not 'two'"),
        ({"replicas": 0}, "replicas: .*greater than or equal to 1, not 0"),
        ({"replicas": "["}, r"replicas: '\[' is not YAML"),
        ({"replicas": 3, "max_replicas": 2}, r"max_replicas \(2\) is below replicas \(3\)"),
        ({"engine": "onnx"}, "engine: .*'auto'"),
    ],
)
def test_a_mistake_names_its_key(exported_student, args, told):
    known = {} if "student" in args or not args else {"student": str(exported_student)}
    with pytest.raises(UserError, match=told):
        read_arguments({**known, **args})


@pytest.mark.parametrize(
    "overrides", [["replica.cpus=2", "replica.gpus=1"], ["replica={cpus: 2}", "replica.gpus=1"]]
)
def test_a_dotted_override_changes_one_key_of_a_section(exported_student, overrides):
    recipe = read_settings(exported_student, {"replicas": 3, "max_replicas": None}, overrides)
    assert recipe == ServingRecipe(replicas=3, replica={"cpus": 2.0, "gpus": 1.0})


def test_a_dotted_override_of_a_plain_value_is_refused(exported_student):
    """Bug guarded: it ended in a traceback."""
    with pytest.raises(UserError, match=r"--set replicas\.x=2: replicas is 3 and has no keys"):
        read_settings(exported_student, {"replicas": 3}, ["replicas.x=2"])


def test_an_override_says_where_to_listen_as_in_a_recipe(exported_student):
    """Bug guarded: `qcrd serve --set port=8123` was told to write a Serve config."""
    given = {"host": "127.0.0.1", "port": 8000}
    recipe = read_settings(exported_student, given, ["port=8123"])
    assert (recipe.host, recipe.port) == ("127.0.0.1", 8123)
