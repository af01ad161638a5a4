"""What tells whether something that was made can be used again: names of recipes and of questions
that change whenever it could differ.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

from qcrd_ray.comparison.methods import Method
from qcrd_ray.data.records import Question
from qcrd_ray.recipe.file import flatten, within
from qcrd_ray.run.folder import OPERATIONAL
from qcrd_ray.training.trainer import PREPARED_BY


def method_key(method: Method) -> str:
    """Eight letters for all of its settings that a method's numbers can depend on, besides the
    number of the seed.
    """
    return _key(
        _kept(method, lambda key: not within(key, OPERATIONAL))
        | ({"shift": method.shift} if method.shift else {})
    )


def data_key(method: Method) -> str:
    """Eight letters for what its prepared training set depends on besides the rationales."""
    return _key(_kept(method, lambda key: within(key, PREPARED_BY)))


def questions_key(questions: Sequence[Question]) -> str:
    """Eight letters for what is asked of a student, and for what is right."""
    return _key(
        [
            (question.id, question.question, question.choices, question.answer)
            for question in questions
        ]
    )


def methods_key(methods: Sequence[Method]) -> str:
    """Eight letters for methods under the names that a table gives them."""
    return _key([(method.name, method_key(method)) for method in methods])


def _kept(method: Method, keeps: Callable[[str], bool]) -> dict[str, Any]:
    told = flatten(method.recipe.model_dump(mode="json", by_alias=True))
    # its data stands in a part of the recipe on which no other method depends
    own = ["compare.control"] if method.control else []
    return {key: value for key, value in told.items() if keeps(key) or within(key, own)}


def _key(told: Any) -> str:
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]
