"""Ids that change whenever the answer could: with them a finished row is never paid for twice, and a changed one is asked again."""

from __future__ import annotations

import hashlib
import json

from qcrd_ray.records import Question
from qcrd_ray.teacher import Prompt


def ask_id(question: Question, prompt: Prompt, *, teacher: dict, sampling: dict) -> str:
    """128 bits in hex over the user's id, the question, the prompt, who is asked (``teacher``) and how (``sampling``).

    The gold answer is no part of it: mending a label costs no new answer from the teacher.
    """
    asked = {
        "id": question.id,
        "question": question.question,
        "choices": list(question.choices),
        "prompt": prompt,
        "teacher": teacher,
        "sampling": sampling,
    }
    text = json.dumps(asked, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
