"""The page as a whole: nothing foreign becomes markup, and what is not there is said."""

import json
import re
from html.parser import HTMLParser

import pytest
from report_tiny import (
    EVIL,
    JUDGE,
    add_evaluation,
    add_judges,
    add_rows,
    add_training,
    begin,
    whole_run,
)

from qcrd_ray.data.records import ScoredAs, ScoredRationale
from qcrd_ray.errors import UserError
from qcrd_ray.method.examples import Source
from qcrd_ray.report import write_report
from qcrd_ray.report.learning import learning_section
from qcrd_ray.report.page import render
from qcrd_ray.report.rounds import Training
from qcrd_ray.report.scores import score_figures
from qcrd_ray.report.summary import discriminator_lines, vote_lines
from qcrd_ray.runs.folder import RunFolder
from qcrd_ray.runs.provenance import describe_call

SPREAD = {"fresh_score_spread": 0.2}


class Elements(HTMLParser):
    """Names of elements, their attributes, the ids, and whether every element is closed in its
    place.
    """

    def __init__(self, text):
        super().__init__()
        self.names, self.attributes, self.ids, self.open = set(), set(), [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.attributes.update(name for name, _ in attrs)
        self.ids += [value for name, value in attrs if name == "id"]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.names.add(tag)
        self.attributes.update(name for name, _ in attrs)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return render(whole_run(tmp_path_factory.mktemp("report") / "run"))


def test_no_text_of_a_user_or_a_model_becomes_markup(whole):
    """Bug guarded: a rationale or a question with `<script>` in it, run in the browser of whoever
    opens the report.
    """
    found = Elements(whole)
    assert not found.names & {"script", "img", "iframe", "link", "object"}
    assert not any(name.startswith("on") for name in found.attributes)
    assert whole.count("&lt;script&gt;") > 20, "the texts are there, as text"
    assert EVIL not in whole


def test_the_page_is_well_formed_and_its_links_have_targets(whole):
    found = Elements(whole)
    assert found.open == [] and len(found.ids) == len(set(found.ids))
    assert {"asked", "rows", "learning", "accuracy", "examples", "effort", "recipe"} <= set(
        found.ids
    )


def test_the_page_asks_for_nothing_outside_it(whole):
    assert (
        "http://" not in whole.replace("http://www.w3.org/2000/svg", "")
        and "url(" not in whole
        and "@import" not in whole
    )
    assert "default-src &#x27;none&#x27;" in whole


def test_the_page_says_the_numbers(whole):
    for text in (
        "70.0 %",
        "7 of 10",
        ">22<",
        "6 rejected",
        "3 not yet",
        "27.3 %",
        "the best on the validation questions",
        "round 2 of 3",
    ):
        assert text in whole, text


def probed(root, **fresh):
    """The page and the summary's lines of a finished run whose discriminator was probed."""
    folder = begin(root / "run")
    add_training(folder)
    result = folder.training("qcrd") / "result.json"
    result.write_text(json.dumps(json.loads(result.read_text()) | {"discriminator": fresh}))
    return render(folder), discriminator_lines(folder)


def test_a_collapsed_discriminator_is_said_in_the_report_and_the_summary(tmp_path):
    """Bug guarded: in-sample AUCs alone, beside a judge that ranks fresh samples like a coin."""
    fresh = {"auc_fresh_within_question": 0.51, "fresh_questions": 63, "fresh_score_spread": 0.003}
    page, (line,) = probed(tmp_path / "a", **fresh)
    assert line.startswith("  The discriminator has collapsed: on 63 held-out questions")
    assert "0.51" in line and "0.003" in line and line.strip() in page
    page, (line,) = probed(tmp_path / "b", **fresh | {"auc_fresh_within_question": 0.81} | SPREAD)
    assert "collapsed" not in line and "0.81" in line and line.strip() in page
    page, lines = probed(tmp_path / "c")
    assert lines == [] and "collapsed" not in page


def part(page, id):
    """The text of a section of the page, without its elements."""
    (found,) = re.findall(rf'<section aria-labelledby="{id}">(.*?)</section>', page, re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", found))


def test_votes_stand_beside_greedy_with_their_cost_and_the_ceiling_is_called_one(whole):
    """Bug guarded: an oracle's row that reads like a result."""
    said = part(whole, "accuracy")
    assert "test rationale 70.0 39.7 - 89.2 7/10 0 20 0.5" in said
    assert "test judged vote of 4 80.0 49.0 - 94.3 8/10 0 80 8.0" in said
    assert "any of 4 (ceiling)" in said and "is a ceiling and no result" in said
    assert "any of 4 <" not in whole, "never without its mark"
    header = re.sub(r"<[^>]*>", " ", whole.split("</header>")[0].split("<header")[1])
    assert "student, by judged vote of 4" in header and "any of" not in header
    assert "80 tokens a question" in header


def test_the_judge_s_section_says_what_it_reads_and_what_it_is_worth(whole):
    said = part(whole, "judge")
    assert "an AUC of 0.87 (chance: 0.5), over 6 questions with both" in said
    assert "its own, cross-fitted judge 0.860" in said and "test judge 0.870" in said
    assert "test calculator 0.500 6 0.300 0.050 60.0" in said
    assert "300 validation questions of 4 samples each" in said
    assert "90 to 100 % 8 95.0 100.0" in said, "the numbers of the chart"
    assert "does not judge" not in said


def test_a_judge_that_does_not_judge_is_said_in_plain_words(tmp_path):
    folder = whole_run(tmp_path / "run")
    file = folder.evaluation / "results.json"
    results = json.loads(file.read_text())
    worthless = results["judges"]["student"]["test"]["judge"] | {"auc_within_question": 0.51}
    results["judges"]["student"]["test"]["judge"] = worthless
    file.write_text(json.dumps(results))
    said = part(render(folder), "judge")
    assert "The judge does not judge on test" in said and "an AUC of 0.51" in said


def test_a_run_without_a_judge_has_no_section_and_one_under_way_says_so(tmp_path):
    assert "judge" not in Elements(render(begin(tmp_path / "a"))).ids
    assert "No judge has been trained yet" in part(render(begin(tmp_path / "b", **JUDGE)), "judge")
    folder = begin(tmp_path / "c", **JUDGE)
    add_training(folder)
    add_judges(folder)
    said = part(render(folder), "judge")
    assert "its own, cross-fitted judge 0.860" in said and "believed" not in said


def test_the_summary_puts_the_judged_vote_beside_greedy(tmp_path):
    folder = whole_run(tmp_path / "run")
    results = json.loads((folder.evaluation / "results.json").read_text())
    vote, judge = vote_lines(results)
    assert vote == (
        "  test: the judged vote of 4 is right on 80.0 % at 80 tokens and 8.0 ms a question; the"
        " greedy rationale on 70.0 % at 20 tokens and 0.5 ms a question"
    )
    assert "an AUC of 0.87" in judge
    assert vote_lines({**results, "rows": results["rows"][:2]}) == []


def test_in_sample_aucs_are_called_so(whole):
    """And the held-out ones stand in a figure of their own, where there are any."""
    assert "Right from wrong in-sample (AUC)" in whole
    assert "held-out questions (AUC)" not in whole
    rows = [
        {"round": 0, "step": 3, "discriminator": {"auc_teacher": 0.9}},
        {"round": 1, "step": 6, "discriminator": {"auc_fresh_within_question": 0.61}},
    ]
    training = Training(objective="qcrd", rounds=rows, result=None, scores={})
    held_out, in_sample = (str(each) for each in score_figures(training)[2:])
    assert "held-out questions (AUC)" in held_out and "0.61" in held_out
    assert "in-sample (AUC)" in in_sample and "0.61" not in in_sample


def test_an_empty_run_says_what_is_missing(tmp_path):
    page = render(begin(tmp_path / "run"))
    for said in (
        "has not been asked yet",
        "No training has finished a round",
        "Nothing has been measured",
        "no time by stage",
    ):
        assert said in page, said
    assert "<svg" not in page, "nothing is drawn where there is nothing"


def test_a_run_that_only_generated(tmp_path):
    folder = begin(tmp_path / "run")
    add_rows(folder)
    page = render(folder)
    assert "questions read" in page and "3 rows of train have not been finished yet" in page
    assert "No training has finished a round" in page


def test_a_training_under_way_and_a_run_without_a_baseline_or_scores(tmp_path):
    folder = begin(tmp_path / "run", **{"evaluate.baselines": []})
    add_rows(folder)
    add_training(folder, finished=False, scores=False)
    add_evaluation(folder, baseline=False)
    page = render(folder)
    assert "Not finished yet: qcrd" in page and "kept no single scores" in page
    assert "There is no baseline here" in page and "nothing to compare it with" in page
    assert "Loss by round" in page


def test_a_baseline_as_the_run_s_own_objective(tmp_path):
    folder = begin(tmp_path / "run", **{"objective.name": "finetune"})
    add_training(folder, "finetune")
    page = render(folder)
    assert (
        "Loss by round" in page and "active" not in page.split("Learning")[2].split("Accuracy")[0]
    )


def test_secrets_of_the_recipe_are_not_shown(tmp_path):
    """Bug guarded: a page made to be handed round, with the replicas' environment or a store's
    credentials in its recipe.
    """
    serve = {"source": "serve", "model": "demo", "env": {"ACCOUNT": "hf_secret"}}
    run = "s3://me:hunter2@bucket/run?secret_key=k3y"
    folder = begin(tmp_path / "run", teacher=serve, run=run)
    folder.versions.write_text(
        json.dumps([{**describe_call(0), "command": ["qcrd", "--set", f"run={run}"]}])
    )
    page = render(folder)
    assert "hf_secret" not in page and "ACCOUNT" in page
    assert "hunter2" not in page and "k3y" not in page and "s3://bucket/run" in page


def test_a_folder_that_is_none_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no recipe\.yaml"):
        write_report(RunFolder(tmp_path))


def test_every_source_of_negatives_is_shown_and_none_that_gave_none():
    """A report that shows the student's negatives alone would hide where a variant's gain comes
    from.
    """
    student = {f"negative_from_{source}": 0.25 for source in Source} | {
        "positive_gain": 1.5,
        "negative_gain": -2.0,
        "pair": 0.5,
    }
    given = {
        "from_teacher": 1_200,
        "from_student": 0,
        "from_corrupted": 30,
        "from_evolved": 30,
        "student_positives": 0,
    }
    rows = [
        {"round": number, "step": number, "student": student, "negatives": given}
        for number in range(2)
    ]
    scores = {
        1: [
            ScoredRationale(question_id="q", question="?", scored_as=kind, text="t", score=0.5)
            for kind in ScoredAs
            if kind != ScoredAs.EVOLVED
        ]
    }
    page = str(
        learning_section(
            [Training(objective="dpo", rounds=rows, result=None, scores=scores)], "dpo"
        )
    )
    assert "there were to choose from: 1,200 teacher, 30 corrupted, 30 evolved." in page
    assert "Log-likelihood gained since the start" in page and "pair term" in page
    assert "corrupted positives" in page and "evolved positives" not in page
