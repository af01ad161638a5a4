"""Every command, recipe fragment, request and link in the documents works as it stands."""

from __future__ import annotations

import ast
import importlib
import json
import re
from collections.abc import Sequence
from urllib.parse import urlsplit

import markdown
import pytest
import yaml
from documented_commands import (
    MISTAKES,
    QCRD,
    RECIPE,
    ROOT,
    TARGETS,
    check,
    repository_files,
    request_of,
)

from qcrd_ray.recipe import Recipe

DOCUMENTS = sorted(
    file.relative_to(ROOT).as_posix()
    for pattern in (
        "*.md",
        "docs/**/*.md",
        "examples/**/*.md",
        "clusters/*.md",
        "jobs/recipes/*.md",
        "jobs/recipes/*/README.md",
        "qcrd_ray/method/*.md",
    )
    for file in ROOT.glob(pattern)
)
TEXTS = {name: (ROOT / name).read_text() for name in DOCUMENTS}


def blocks_of(document: str, kind: str) -> list[str]:
    """The texts of the document's blocks whose info string begins with ``kind``."""
    return [
        block.text
        for block in markdown.blocks(TEXTS[document])
        if (block.kind.split() or [""])[0] == kind
    ]


def each_block(kind: str) -> list:
    """A test's parameters: (document, text) of the blocks of all documents."""
    return [
        pytest.param(document, text, id=f"{document}:{number}")
        for document in DOCUMENTS
        for number, text in enumerate(blocks_of(document, kind))
    ]


# --- Commands ---


@pytest.mark.parametrize(("document", "shell"), each_block("bash"))
def test_commands_exist(document, shell, tmp_path):
    """Each command of the block is one that a reader can type: its program, its options and the
    repository's files that it names exist.
    """
    found = markdown.commands(shell)
    assert found, f"{document}: a bash block without a command:\n{shell}"
    for words in found:
        try:
            check(words, tmp_path)
        except MISTAKES as error:
            pytest.fail(f"{document}: {' '.join(words)}\n  {error}", pytrace=False)


@pytest.mark.parametrize(
    ("shell", "message"),
    [
        ("make nothing", "no such target"),
        ("qcrd fly", "no verb"),
        ("qcrd run recipe.yaml --sett x=1", "--sett"),
        ("qcrd run recipe.yaml --set train.round=1", "train.round"),
        ("qcrd compare jobs/recipes/demo.yaml --methods qcrd,better", "better"),
        ("cat <<'EOF' > a.yaml\nmake nothing\nEOF\nfrobnicate a.yaml", "unknown"),
        ("A=1 python jobs/none.py", "jobs/none.py"),
        ("ray job submit -- python jobs/run.py jobs/recipes/none.yaml", "none.yaml"),
        ("ray up --maybe clusters/local.yaml", "--maybe"),
        ("pip install -r nothing.txt", "nothing.txt"),
        ("echo a | less && git push", "git clone"),
    ],
)
def test_a_command_that_cannot_be_typed_is_found(shell, message, tmp_path):
    with pytest.raises(MISTAKES, match=message):
        for words in markdown.commands(shell):
            check(words, tmp_path)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_in_the_text_exist(document):
    """`make x` and `qcrd x --y` in running text name a target, a verb and options that exist."""
    mistakes = []
    for code in markdown.inline_code(TEXTS[document]):
        program, *words = code.removeprefix(".venv/bin/").split() or [""]
        if program == "make" and words:
            mistakes += [code] * (words[0] not in TARGETS)
        elif program == "qcrd" and words and re.fullmatch(r"[a-z]+", words[0]):
            verb = QCRD.commands.get(words[0])
            known = {option for each in verb.params for option in each.opts} if verb else set()
            options = {word for word in words[1:] if word.startswith("--")}
            mistakes += [code] * (verb is None or not options <= known)
    assert not mistakes, f"{document}: no such target, verb or option: {mistakes}"


def test_every_verb_is_in_the_readme():
    assert not [verb for verb in QCRD.commands if f"qcrd {verb}" not in TEXTS["README.md"]]


# --- Requests to the endpoint ---


@pytest.fixture(scope="module")
def endpoint(exported_student):
    from endpoint_tiny import client, load

    return client(load(exported_student))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_requests_are_answered(document, endpoint):
    """What a document sends to the endpoint is what the endpoint takes."""
    for shell in blocks_of(document, "bash"):
        for words in markdown.commands(shell):
            if words[0] == "curl":
                answer = send(words[1:], endpoint)
                assert answer is None or answer.status_code == 200, (
                    f"{document}: {' '.join(words)}\n  {answer.status_code}: {answer.text}"
                )


def send(words: Sequence[str], endpoint):
    """The endpoint's answer to a curl command; None for a request to Ray itself."""
    method, url, headers, body = request_of(words)
    address = urlsplit(url)
    if address.port == 8265 or address.path == "/-/healthz":  # the dashboard; Ray Serve's own route
        return None
    path = f"{address.path or '/'}{'?' * bool(address.query)}{address.query}"
    headers = {"Content-Type": "application/json"} | headers
    return endpoint.request(method, path, headers=headers, content=body)


# --- Blocks that are not commands ---


@pytest.mark.parametrize(("document", "text"), each_block("yaml"))
def test_recipe_fragments_use_keys_that_exist(document, text):
    """A `yaml` block is a part of a recipe. One of another kind says so: ```yaml cluster."""
    other = {b.text for b in markdown.blocks(TEXTS[document]) if b.kind.split()[1:]}
    for fragment in yaml.safe_load_all(text):
        if text not in other:
            sections = dict(fragment)
            sections["data"] = RECIPE["data"] | sections.get("data", {})
            sections["task"] = RECIPE["task"] | sections.get("task", {})
            try:
                Recipe.model_validate(RECIPE | sections)
            except ValueError as error:
                pytest.fail(f"{document}: no part of a recipe:\n{text}\n{error}", pytrace=False)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_json_can_be_read(document):
    for text in blocks_of(document, "json"):
        json.loads(text)
    for text in blocks_of(document, "jsonl"):
        for line in text.splitlines():
            json.loads(line)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_python_compiles_and_imports_what_exists(document):
    for text in blocks_of(document, "python"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("qcrd_ray"):
                module = importlib.import_module(node.module or "")
                missing = [each.name for each in node.names if not hasattr(module, each.name)]
                assert not missing, f"{document}: {node.module} has no {missing}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_kinds_of_blocks_are_known(document):
    """A block that no test looks at would grow old unseen."""
    known = {"bash", "yaml", "json", "jsonl", "python", "text", "csv", "bibtex", "mermaid"}
    kinds = {(block.kind.split() or [""])[0] for block in markdown.blocks(TEXTS[document])}
    assert kinds <= known, f"{document}: unknown kind of block: {kinds - known}"


# --- Links ---


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    """Relative links, their anchors and images. Links to other sites are not followed."""
    here, missing = ROOT / document, []
    for link in markdown.links(TEXTS[document]):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        file = (here.parent / path).resolve() if path else here
        known = markdown.anchors(file) if anchor and file.suffix == ".md" and file.exists() else ()
        if not file.exists() or (anchor and anchor not in known):
            missing.append(link)
    assert not missing, f"{document}: these links lead nowhere: {missing}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_that_the_text_names_exist(document):
    named = [code for code in markdown.inline_code(TEXTS[document]) if " " not in code]
    files = [
        code for code in named if re.fullmatch(r"[\w./-]+\.(?:py|yaml|md|json|css|lock)", code)
    ]
    missing = [path for path in repository_files(files) if not (ROOT / path).exists()]
    assert not missing, f"{document}: no such files: {missing}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_no_placeholder_is_left(document):
    """Bug guarded: a README that promises a table and shows none."""
    assert not re.findall(r"<!--.*?-->", TEXTS[document])
