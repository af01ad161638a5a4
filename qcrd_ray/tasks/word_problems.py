"""The built-in questions: arithmetic stories like SVAMP's, with answers and rationales.

A story hands one number from step to step: somebody holds ``x`` things, a sentence turns them into
``x op n`` (perhaps in other hands), and a question asks for the last value. Half of the stories
also carry a sentence whose number is of no use. All numbers lie in 2..60.

Two things are kept apart by construction:

- *Combinations of operations.* ``seen`` stories never apply the pairs in :data:`HELD_OUT_PAIRS` one
  after the other; every ``held_out`` story does so at least once. Each operation occurs in every
  place of ``seen`` stories: only the combination is new.
- *Questions.* A story's text before names and objects are filled in, its :func:`skeleton`, is
  hashed into one of :data:`POOLS` pools. ``pretraining`` stories (what the shipped models were made
  from) own half of the pools; the others are shared out by ``seed % 8``. So no test question, not
  even a renamed one, can stand in the shipped models' training data, and two splits whose seeds
  differ modulo 8 share nothing.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from collections.abc import Iterator
from typing import Literal

from qcrd_ray.data.records import Question

# plain: pretraining stories without a useless number, all the demo's base saw
Kind = Literal["seen", "held_out", "pretraining", "plain"]

SEED_POOLS = 8  # seeds that differ modulo this share no question
POOLS = 2 * SEED_POOLS  # the upper half belongs to pretraining
LARGEST = 60  # no number in a story, a rationale or an answer is larger
# each operation once before and once after
HELD_OUT_PAIRS = (("+", "*"), ("*", "-"), ("-", "/"), ("/", "+"))
STEP_WEIGHTS = {1: 2, 2: 3, 3: 3}  # how often a story has one, two, three steps
DISTRACTOR_SHARE = 0.5

NAMES = {
    "he": (
        "Tom",
        "Ben",
        "Omar",
        "Luis",
        "Paul",
        "Ivan",
        "Kofi",
        "Hugo",
        "Ravi",
        "Sam",
        "Noah",
        "Liam",
    ),
    "she": (
        "Sara",
        "Mia",
        "Ana",
        "Lucy",
        "Nina",
        "Emma",
        "Aisha",
        "Rosa",
        "Mei",
        "Kate",
        "Zoe",
        "Lena",
    ),
}
THINGS = (
    "apples", "pears", "plums", "eggs", "cookies", "books", "pens", "cards", "stamps", "marbles",
    "shells", "coins", "stickers", "balloons", "toys", "flowers", "buttons", "beads", "stones",
    "nuts",
)  # fmt: skip

# {a} holds the things, {b} holds them afterwards, {c} is somebody else; {x} is the value so far,
# {n} the step's number.
OPENINGS = (
    "{a} has {x} {things}.",
    "At first {a} has {x} {things}.",
    "{a} starts the day with {x} {things}.",
    "There are {x} {things} in the bag of {a}.",
)
FIRST_STEPS = {  # an opening and its first operation in one sentence
    "+": (
        "{a} finds {x} {things} on Monday and {n} {things} on Tuesday.",
        "{a} has {x} old {things} and {n} new {things}.",
    ),
    "-": (
        "{a} had {x} {things} yesterday, but {n} of the {things} are gone.",
        "{a} buys {x} {things} and gives {n} of the {things} back.",
    ),
    "*": (
        "{a} has {x} boxes with {n} {things} in each box.",
        "{a} buys {x} bags of {n} {things} each.",
    ),
    "/": (
        "{c} shares {x} {things} equally among {n} friends, and {a} is one of the friends.",
        "There are {x} {things} in {n} equal boxes, and {a} takes one of the boxes.",
    ),
}
STEPS = {
    "+": (
        "{a} buys {n} more {things}.",
        "{c} gives {n} {things} to {a}.",
        "Then {a} finds {n} more {things}.",
        "The next day {a} picks {n} more {things}.",
        "{b} has {n} more {things} than {a}.",
    ),
    "-": (
        "{a} gives {n} {things} to {c}.",
        "{a} loses {n} of the {things}.",
        "Then {a} sells {n} {things}.",
        "{c} takes {n} {things} from {a}.",
        "{b} has {n} fewer {things} than {a}.",
    ),
    "*": (
        "{b} has {n} times as many {things} as {a}.",
        "In the evening {a} has {n} times as many {things}.",
        "Then {b} collects {n} times as many {things} as {a} has.",
    ),
    "/": (
        "{a} shares the {things} equally among {n} friends, and {b} is one of the friends.",
        "{a} puts the {things} equally into {n} boxes and keeps one of the boxes.",
        "{a} has {n} times as many {things} as {b}.",
    ),
}
LAST_STEPS = {  # a sentence, the question that gives it its sense, and what the rationale says
    "+": (
        "{c} has {n} {things}.",
        "How many {things} do {a} and {c} have together?",
        "Together {a} and {c} have {equation} {things}.",
    ),
    "-": (
        "{c} has {n} {things}.",
        "How many more {things} does {a} have than {c}?",
        "{a} has {equation} more {things} than {c}.",
    ),
    "*": (
        "Each of the {things} costs {n} dollars.",
        "How many dollars do the {things} of {a} cost?",
        "The {things} cost {equation} dollars.",
    ),
    "/": (
        "A box holds {n} {things}.",
        "How many boxes does {a} need for the {things}?",
        "{a} needs {equation} boxes.",
    ),
}
LAST_STEP_SHARE = 0.3
QUESTIONS = (
    "How many {things} does {a} have now?",
    "How many {things} does {a} have in the end?",
    "What is the number of {things} that {a} has?",
)
REASONS = (
    "{a} has {equation} {things}.",
    "That is {equation} {things} for {a}.",
    "Then {a} has {equation} {things}.",
)
DISTRACTORS = (
    "{c} has {n} {things}.",
    "{c} buys {n} {others}.",
    "{a} also has {n} {others}.",
    "{a} is {n} years old.",
    "Each of the {others} costs {n} dollars.",
    "A box holds {n} {others}.",
    "The walk to the shop takes {n} minutes.",
)


def generate(
    count: int,
    *,
    seed: int,
    kind: Kind = "seen",
    steps: tuple[int, ...] = (1, 2, 3),
    distractors: float = DISTRACTOR_SHARE,
) -> list[Question]:
    """``count`` different questions.

    The same arguments give the same list everywhere, and a longer list starts with the shorter one.

    Args:
        count: how many questions.
        seed: also chooses the pool of questions; see the module.
        kind: which combinations of operations occur.
        steps: the numbers of operations that may occur.
        distractors: share of stories with a useless number. Like ``steps``, it is for pretraining
            data that lacks something.
    """
    distractors = 0.0 if kind == "plain" else distractors
    stream = _questions(
        random.Random(f"{kind} {seed}"), seed=seed, kind=kind, steps=steps, distractors=distractors
    )
    return list(itertools.islice(stream, count))


def skeleton(question: str) -> str:
    """The question's text with its people and objects replaced by gaps.

    The gaps are numbered in the order in which they occur.
    """
    people: dict[str, str] = {}
    objects: dict[str, str] = {}

    def gap(match: re.Match) -> str:
        word = match.group()
        if word in _PRONOUN:
            return people.setdefault(word, f"<person {len(people)}>")
        if word in THINGS:
            return objects.setdefault(word, f"<object {len(objects)}>")
        return "<pronoun>" if word.lower() in NAMES else word

    return re.sub(r"\w+", gap, question)


def pool(question: str) -> int:
    """Which of the :data:`POOLS` disjoint pools a question belongs to.

    Renaming people and objects does not change it.
    """
    return hashlib.sha256(skeleton(question).encode()).digest()[0] % POOLS


def pools(*, seed: int, kind: Kind) -> frozenset[int]:
    """The pools that :func:`generate` draws from.

    Two calls with disjoint pools share no question.
    """
    return (
        frozenset(range(SEED_POOLS, POOLS))
        if kind in ("pretraining", "plain")
        else frozenset({seed % SEED_POOLS})
    )


def is_held_out(ops: tuple[str, ...]) -> bool:
    """Whether a chain of operations applies a held-out pair one after the other."""
    return any(pair in HELD_OUT_PAIRS for pair in itertools.pairwise(ops))


_PRONOUN = {name: pronoun for pronoun, names in NAMES.items() for name in names}
_CHAINS = {length: tuple(itertools.product(STEPS, repeat=length)) for length in STEP_WEIGHTS}


def _questions(
    rng: random.Random, *, seed: int, kind: Kind, steps: tuple[int, ...], distractors: float
) -> Iterator[Question]:
    """An endless stream of questions without repetition."""
    own_pools = pools(seed=seed, kind=kind)
    chains = {
        length: [ops for ops in _CHAINS[length] if is_held_out(ops) == (kind == "held_out")]
        for length in steps
    }
    lengths = [length for length in steps if chains[length]]
    weights = [STEP_WEIGHTS[length] for length in lengths]
    seen: set[str] = set()
    while True:
        ops = rng.choice(chains[rng.choices(lengths, weights)[0]])
        text, rationale, answer = _story(rng, ops, distractor=rng.random() < distractors)
        if text not in seen and pool(text) in own_pools:
            yield Question(
                id=f"wp-{kind}-{seed}-{len(seen):06d}",
                question=text,
                answer=str(answer),
                rationale=rationale,
            )
            seen.add(text)


def _story(rng: random.Random, ops: tuple[str, ...], *, distractor: bool) -> tuple[str, str, int]:
    """A story that applies ``ops`` in their order: its text, its rationale and its answer."""
    values, numbers = _numbers(rng, ops)
    things, others = rng.sample(THINGS, 2)
    holder, bystander, *people = rng.sample(sorted(_PRONOUN), 2 + 2 * len(ops))
    sentences: list[str] = []
    reasons: list[str] = []
    gaps: dict[str, str | int] = {}
    useless = rng.choice(DISTRACTORS).format(
        a=holder, c=bystander, n=rng.randint(2, 40), things=things, others=others
    )
    question = rng.choice(QUESTIONS)
    # by a sentence of its own; otherwise the first sentence holds the first operation as well
    opened = rng.random() < 0.5
    if opened:
        sentences.append(rng.choice(OPENINGS).format(a=holder, x=values[0], things=things))
    for index, (op, number) in enumerate(zip(ops, numbers, strict=True)):
        sentence, reason = (
            rng.choice(STEPS[op] if opened else FIRST_STEPS[op]),
            rng.choice(REASONS if index else REASONS[:2]),
        )
        if opened and index == len(ops) - 1 and rng.random() < LAST_STEP_SHARE:
            sentence, question, reason = LAST_STEPS[op]
        gaps = {
            "b": people.pop(),
            "c": people.pop(),
            "x": values[index],
            "n": number,
            "things": things,
        }
        sentences.append(sentence.format(a=holder, **gaps))
        holder = gaps["b"] if "{b}" in sentence else holder
        reasons.append(
            reason.format(
                a=holder, equation=f"{values[index]} {op} {number} = {values[index + 1]}", **gaps
            )
        )
        opened = True
    question = question.format(a=holder, **gaps)
    if distractor:
        sentences.insert(rng.randint(1, len(sentences)), useless)
    return " ".join([*_with_pronouns(rng, sentences), question]), " ".join(reasons), values[-1]


def _numbers(rng: random.Random, ops: tuple[str, ...]) -> tuple[list[int], list[int]]:
    """The values that a story passes through, and the number of each step.

    There is one value more than there are steps. All of them are in 2..LARGEST.
    """
    while True:
        values, numbers = [rng.randint(2, 40)], []
        for op in ops:
            x = values[-1]
            n = rng.randint(2, 20) if op in "+-" else rng.randint(2, 6)
            exact = op != "/" or x % n == 0
            result = {"+": x + n, "-": x - n, "*": x * n, "/": x // n}[op]
            if not (exact and 2 <= result <= LARGEST):
                break
            values.append(result)
            numbers.append(n)
        else:
            return values, numbers


def _with_pronouns(rng: random.Random, sentences: list[str]) -> Iterator[str]:
    """Replace some names by he or she.

    It may be done where a sentence goes on about the only person of the sentence before.
    """
    before: list[str] = []
    for sentence in sentences:
        people = [word for word in re.findall(r"\w+", sentence) if word in _PRONOUN]
        if len(before) == 1 and sentence.split()[0] == before[0] and rng.random() < 0.5:
            sentence = _PRONOUN[before[0]].capitalize() + sentence.removeprefix(before[0])
        before = people
        yield sentence
