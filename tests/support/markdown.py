"""A Markdown document's parts: its code blocks, the commands in them, its links and inline code."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

SEPARATORS = frozenset("&|;\n")  # a token of these characters alone ends a command
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
HEREDOC = re.compile(r"<<-?\s*'?(\w+)'?([^\n]*)\n.*?^\1$", re.DOTALL | re.MULTILINE)
COMMENT = re.compile(r"(?:^|(?<=\s))#[^\n]*", re.MULTILINE)
PLACEHOLDER = re.compile(r"<[^<>|&;\n]+>|\$\([^()]*\)")  # <folder>, $(cat key)
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")


class Block(NamedTuple):
    """A fenced block: ``kind`` is the whole info string, such as ``bash`` or ``yaml cluster``."""

    kind: str
    text: str


def blocks(text: str) -> list[Block]:
    """The fenced code blocks of a document."""
    return [Block(kind.strip(), body) for kind, body in FENCE.findall(text)]


def commands(shell: str) -> list[list[str]]:
    """The commands of a bash block, as words.

    Comments, redirections, variables set in front of a command and the bodies of heredocs are left
    out. What stands in angle brackets, or is another command's output, reads ``placeholder``.
    """
    shell = PLACEHOLDER.sub("placeholder", HEREDOC.sub(r"\2\n", shell.replace("\\\n", " ")))
    lexer = shlex.shlex(COMMENT.sub("", shell), posix=True, punctuation_chars="<>|&;\n")
    lexer.whitespace, lexer.whitespace_split, lexer.commenters = " \t\r", True, ""
    found: list[list[str]] = [[]]
    tokens = iter(lexer)
    for token in tokens:
        if set(token) <= SEPARATORS:
            found.append([])
        elif set(token) <= set("<>&"):  # a redirection
            if found[-1] and found[-1][-1].isdigit():
                found[-1].pop()
            next(tokens, None)
        elif found[-1] or not ASSIGNMENT.match(token):
            found[-1].append(token)
    return [words for words in found if words]


def prose(text: str) -> str:
    """The document without its fenced blocks."""
    return FENCE.sub("", text)


def inline_code(text: str) -> list[str]:
    """What stands between single backticks, on one line."""
    return [code.replace("\n", " ") for code in re.findall(r"`([^`]+)`", prose(text))]


def links(text: str) -> list[str]:
    """The targets of links and images, in Markdown and in HTML."""
    without_code = re.sub(r"`[^`]*`", "", prose(text))
    markdown = re.findall(r"\]\(([^()\s]+(?:\([^()]*\))?)[^()]*\)", without_code)
    return markdown + re.findall(r"(?:href|src|srcset)=\"([^\"]+)\"", without_code)


def anchors(file: Path) -> set[str]:
    """The anchors that GitHub gives to a document's headings."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", prose(file.read_text()), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        found.add(re.sub(r"[^\w\- ]", "", words.lower()).strip().replace(" ", "-"))
    return found
