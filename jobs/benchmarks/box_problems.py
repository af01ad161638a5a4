"""Made-up questions about boxes, and a teacher's samples for them, as many as wanted.

python jobs/benchmarks/box_problems.py PORT: an OpenAI-compatible endpoint that gives such samples.
"""

from __future__ import annotations

import random
import re
import sys

from aiohttp import web

SAMPLES = 5
RIGHT = 0.75  # share of the samples
_THINGS = ("apples", "pencils", "stamps", "marbles", "coins", "shells", "cards", "beads")
_FILLER = "We go on step by step and check each number with care before we write it down. "
_NUMBERS = re.compile(
    r"Number (\d+): a box holds (\d+) (\w+), another one (\d+)\. There are (\d+) children"
)


def question(number: int, draw: random.Random) -> tuple[str, str]:
    """A question and its answer."""
    a, b, c = draw.randrange(2, 99), draw.randrange(2, 99), draw.randrange(2, 9)
    thing = draw.choice(_THINGS)
    text = (
        f"Number {number}: a box holds {a} {thing}, another one {b}. There are {c} children who"
        f" each bring a box of the first kind and one of the second. How many {thing} are there?"
    )
    return text, str(c * (a + b))


def samples(question: str) -> list[str]:
    """What the teacher says to :func:`question`, always the same: texts of 500 characters.

    A text that is none, as what tries whether the endpoint answers, gets a short answer.
    """
    if (match := _NUMBERS.search(question)) is None:
        return ["1"]
    number, thing = match[1], match[3]
    a, b, c = int(match[2]), int(match[4]), int(match[5])
    draw, texts = random.Random(number), []
    for _ in range(SAMPLES):
        total = (a + b) * c if draw.random() < RIGHT else a + b * c
        texts.append(
            f"{_FILLER * 4}One child brings {a} + {b} = {a + b} {thing}. All {c} of them bring"
            f" {total} {thing} together. So the answer is {total}."
        )
    return texts


async def _answer(request: web.Request) -> web.Response:
    body = await request.json()
    said = samples(body["messages"][-1]["content"])
    choices = [
        {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        for i, text in enumerate(said)
    ]
    usage = {"prompt_tokens": 80, "completion_tokens": 120 * len(said)}
    return web.json_response({"choices": choices, "usage": usage})


if __name__ == "__main__":
    application = web.Application()
    application.router.add_post("/v1/chat/completions", _answer)
    web.run_app(application, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
