"""The page at / in a real headless Chromium: against a student on Ray Serve, and against a small
server where a test needs an answer of
its own choice.
"""

from __future__ import annotations

import json
import re
import shutil
import urllib.request

import pytest
from endpoint_tiny import with_judge
from page_browser import ANSWER, FLAGS, LOW_CONTRAST, TASK, UNNAMED, small_server

from qcrd_ray import serving
from qcrd_ray.recipe import ServingRecipe

pytestmark = [pytest.mark.browser, pytest.mark.integration]

QUESTION = "Tom has 3 apples and buys 4 more. How many apples has he now?"


@pytest.fixture(scope="module")
def browser():
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """A function that opens a URL and waits until the page knows its task. Afterwards nothing may
    have been asked of another origin, and
    no script may have failed or been stopped by the page's policy.
    """
    contexts, requests, complaints, origins = [], [], [], []

    def visit(url, *, wait="#example-list button", **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))
        page.goto(url)
        page.wait_for_selector(wait)
        origins.append(url)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert all(request.startswith(tuple(origins)) for request in requests), requests
    assert [text for text in complaints if not text.startswith("Failed to load resource")] == []


@pytest.fixture(scope="module")
def student(local_ray, exported_student, tmp_path_factory):
    """The URL of a real student that has a judge, with a slash."""
    judged = with_judge(exported_student, tmp_path_factory.mktemp("judged") / "student")
    yield serving.start(judged, ServingRecipe(port=0)) + "/"
    serving.stop()


def ask_directly(url, question):
    body = {"question": question, "rationale": True, "quality": True, "samples": 4}
    request = urllib.request.Request(
        f"{url}v1/predict", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def test_a_typed_question_is_answered(visit, student):
    """What the page shows is what the endpoint says; the words of the rationale are all there,
    whatever it was cut into.
    """
    page = visit(student)
    page.fill("#question", QUESTION)
    page.press("#question", "Enter")
    page.wait_for_selector(".result")
    answer = ask_directly(student, QUESTION)
    assert (answer["label"] or answer["text"] or "wrote nothing") in page.inner_text(".answer")
    shown = " ".join(page.locator(".steps li").all_inner_texts())
    assert re.sub(r"\s", "", shown) == re.sub(r"\s", "", answer["rationale"])
    quality = page.locator("section", has_text="Quality of the reasoning")
    assert quality.locator("meter").get_attribute("value") == str(answer["quality"])
    assert quality.locator("output").inner_text() == f"{answer['quality']:.2f}"
    assert page.inner_text("#vote h2") == "Judged vote of 4 samples"
    assert (answer["vote"] or "No sample holds an answer") in page.inner_text("#vote .answer")
    weights = sorted((each["weight"] for each in answer["samples"]), reverse=True)
    assert page.locator("#samples output").all_inner_texts() == [
        f"{100 * weight:.0f} %" for weight in weights
    ]
    assert re.fullmatch(r"Answered in (\d+ ms|\d+\.\d s)", page.inner_text(".took"))
    assert (
        page.get_attribute("#result", "aria-live") == "polite"
        and page.get_attribute("#result", "aria-busy") == "false"
    )


def test_an_example_is_one_click_away(visit, student):
    page = visit(student)
    example = page.inner_text("#example-list button >> nth=0")
    page.click("#example-list button >> nth=0")
    page.wait_for_selector(".result")
    assert page.input_value("#question") == example == page.inner_text(".asked")


def test_keyboard_alone(visit, student):
    page = visit(student)
    page.keyboard.press("Tab")
    page.keyboard.type("Tom has 3 apples.")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("How many?")
    assert page.input_value("#question") == "Tom has 3 apples.\nHow many?"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(".result")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "ask"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # on the summary: opens the JSON
    assert "POST /v1/predict" in page.inner_text("details pre")


def test_what_the_server_refuses_is_shown_as_it_says_it(visit, student):
    page = visit(student)
    page.fill("#question", "x" * 30_000)
    page.press("#question", "Enter")
    page.wait_for_selector(".error")
    assert "30,000 characters; at most 20,000 are taken (422)" in page.inner_text("#error")
    page.fill("#question", "  ")
    page.press("#question", "Enter")
    page.locator(".error", has_text="no question yet").wait_for()


VOTE = {
    "vote": "a pond",
    "vote_kind": "judged",
    "vote_rationale": "It swims.",
    "confidence": 0.834,
    "votes": {"a den": 2, "a pond": 1},
    "shares": {"a den": 0.3, "a pond": 0.6},
    "samples": [
        {"text": "It digs.", "answer": "a den", "weight": 0.2, "score": 0.4, "tokens": 5},
        {"text": "It swims.", "answer": "a pond", "weight": 0.6, "score": 0.8, "tokens": 6},
        {"text": "", "answer": None, "weight": 0.1, "score": 0.2, "tokens": 1},
        {"text": "It digs!", "answer": "a den", "weight": 0.1, "score": 0.2, "tokens": 5},
    ],
}


def test_a_judged_vote_stands_beside_the_greedy_answer(visit):
    """The answer of few heavy samples wins over that of many light ones, and one sees why."""
    task = {**TASK, "judge": {"samples": 4}}
    with small_server(answer={**ANSWER, **VOTE}, task=task) as (url, asked, _):
        page = visit(url, viewport={"width": 320, "height": 640})
        page.click("#example-list button >> nth=0")
        page.wait_for_selector(".result")
        assert asked[0]["samples"] == 4
        assert page.locator(".answer").all_inner_texts() == ["a den", "a pond"]
        assert "83 %" in page.inner_text("#vote") and "Calibrated" in page.inner_text("#vote")
        rows = [text.split("\n") for text in page.locator("#samples li").all_inner_texts()]
        assert [row[0] for row in rows] == ["a pond", "a den", "no answer", "a den"]
        assert [row[-1] for row in rows] == [
            "It swims.",
            "It digs.",
            "The student wrote nothing.",
            "It digs!",
        ]
        assert page.locator("#samples .won").count() == 1
        assert "17 tokens" in page.inner_text("#samples")
        assert page.evaluate(LOW_CONTRAST) == [] and page.evaluate(UNNAMED) == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 320


def test_a_vote_without_a_winner(visit):
    nothing = {"vote": None, "confidence": None, "vote_rationale": None}
    tie = {**ANSWER, **VOTE, **nothing, "vote_kind": "plain"}
    task = {**TASK, "judge": {"samples": 4}}
    for votes, told in (({"a": 2, "b": 2}, "A tie"), ({}, "No sample holds an answer")):
        with small_server(answer={**tie, "votes": votes}, task=task) as (url, _, _):
            page = visit(url)
            page.click("#example-list button >> nth=0")
            page.wait_for_selector(".result")
            assert page.inner_text("#vote .answer") == told
            assert page.locator("#samples .won").count() == 0


def test_markup_in_a_question_and_in_an_answer_is_text(visit):
    hostile = "<img src=x onerror='window.hit=1'><script>window.hit=1</script>"
    answer = {
        **ANSWER,
        "label": None,
        "text": hostile,
        "rationale": f"{hostile} It costs $3.50 * 2 = $7.00. So 7.",
        "rationale_answer": hostile,
    }
    with small_server(answer=answer) as (url, _, _):
        page = visit(url)
        page.fill("#question", hostile)
        page.press("#question", "Enter")
        page.wait_for_selector(".result")
        assert (
            hostile in page.inner_text(".answer")
            and hostile in page.inner_text(".verdict")
            and page.inner_text(".asked").startswith(hostile)
        )
        assert page.locator("#result img, #result script").count() == 0
        assert page.evaluate("window.hit") is None
        assert page.locator(".steps li").all_inner_texts() == [
            f"{hostile} It costs $3.50 * 2 = $7.00.",
            "So 7.",
        ]
        assert page.inner_text(".sum") == "$3.50 * 2 = $7.00"


def test_a_server_that_is_gone(visit):
    """The error is announced, the question stays, an old answer does not; and the page goes on
    where the server comes back.
    """
    with small_server() as (url, _, close):
        page = visit(url)
        page.click("#example-list button >> nth=0")
        page.wait_for_selector(".result")
        close()
        page.press("#question", "Enter")
        page.wait_for_selector("#error[role=alert] .error")
        assert "The server does not answer" in page.inner_text(
            "#error"
        ) and "qcrd serve" in page.inner_text("#error")
        assert page.locator(".result").count() == 0
        assert page.input_value("#question") == "Where does a fox live?"
        assert (
            page.inner_text("#ask") == "Ask"
            and page.get_attribute("#ask", "aria-disabled") == "false"
        )


@pytest.mark.parametrize(
    ("status", "answer", "shown"),
    [
        (
            503,
            {"error": {"message": "too many wait", "details": []}},
            ["too many wait (503)", "Try again in 3 s."],
        ),
        (502, "<h1>Bad gateway</h1>", ["could not answer", "<h1>Bad gateway</h1> (502)"]),
        (200, "no JSON", ["the answer is no JSON"]),
    ],
)
def test_errors_of_a_server_and_of_what_lies_before_it(visit, status, answer, shown):
    with small_server(status=status, answer=answer, headers={"Retry-After": "3"}) as (url, _, _):
        page = visit(url)
        page.click("#example-list button >> nth=0")
        page.wait_for_selector(".error")
        assert all(text in page.inner_text("#error") for text in shown), page.inner_text("#error")


def test_a_key_is_asked_for_when_the_server_wants_one(visit):
    """It is kept in memory alone: no storage, no cookie, no URL."""
    with small_server(key="open-sesame") as (url, asked, _):
        page = visit(url, wait=".error")
        assert "this endpoint needs its key (401)" in page.inner_text("#error")
        assert page.evaluate("document.activeElement.id") == "key"
        page.keyboard.type("open-sesame")
        page.keyboard.press("Enter")
        page.wait_for_selector("#example-list button")
        assert page.is_hidden("#key") and page.inner_text("#error") == "" and not asked
        page.click("#example-list button >> nth=0")
        page.wait_for_selector(".result")
        assert page.evaluate(
            "[localStorage.length, sessionStorage.length, document.cookie, location.href]"
        ) == [0, 0, "", url]
    with small_server() as (url, _, _):
        assert visit(url).is_hidden("#key")


def test_choices_can_be_edited(visit):
    with small_server() as (url, asked, _):
        page = visit(url)
        page.click("#example-list button >> nth=1")
        page.wait_for_selector(".result")
        page.fill("#choice-1", "vinegar")
        page.click("#more")
        page.keyboard.type("lemons")
        page.keyboard.press("Enter")
        page.locator(".asked", has_text="lemons").wait_for()
        assert [body["choices"] for body in asked] == [
            ["honey", "salt"],
            ["honey", "vinegar", "lemons"],
        ]
        assert asked[1] == {
            "question": "What is sweet?",
            "choices": ["honey", "vinegar", "lemons"],
            "rationale": True,
            "quality": True,
        }


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_by_everybody(visit, scheme):
    """Contrast, names, headings, 320 pixels without scrolling sideways, and no motion for those who
    want none.
    """
    with small_server() as (url, _, close):
        page = visit(
            url,
            color_scheme=scheme,
            reduced_motion="reduce",
            viewport={"width": 320, "height": 640},
        )
        page.click("#example-list button >> nth=0")
        page.wait_for_selector(".result")
        check_reading(page)
        close()
        page.press("#question", "Enter")
        page.wait_for_selector(".error")
        check_reading(page)


def check_reading(page):
    assert page.evaluate(LOW_CONTRAST) == []
    assert page.evaluate(UNNAMED) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    assert page.evaluate("document.getAnimations().length") == 0


def test_the_checks_catch_what_they_look_for(visit):
    """A check that finds nothing anywhere would pass on every page."""
    with small_server() as (url, _, _):
        page = visit(url)
        page.evaluate(
            "document.querySelector('h1').style.color ="
            " getComputedStyle(document.body).backgroundColor"
        )
        assert [found[0] for found in page.evaluate(LOW_CONTRAST)] == ["H1"]
        page.evaluate("document.querySelector('label[for=question]').remove()")
        assert page.evaluate(UNNAMED) == ["question"]
