"""Look every locked package up in an advisory database: `make audit`.

pip-audit asks for the pins of each lock as they stand; nothing is resolved or installed. An
advisory fails the command unless accepted_advisories.toml, beside this file, names it with the
reason: whether our use reaches what it is about. So does a package of which the database says
nothing, since an answer that did not come is no good news.

Other arguments go to pip-audit: ``python clusters/audit.py --vulnerability-service pypi``.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ("requirements.lock", "requirements-cpu.lock", "requirements-test.lock")
ACCEPTED = Path(__file__).with_name("accepted_advisories.toml")
SERVICE = ("--vulnerability-service", "osv")


def read_accepted(text: str) -> dict[tuple[str, str], str]:
    """The reasons in accepted_advisories.toml by (package, advisory).

    Raises:
        ValueError: an entry without one of its three texts.
    """
    accepted = {}
    for entry in tomllib.loads(text).get("accepted", []):
        if not all(str(entry.get(name, "")).strip() for name in ("package", "id", "reason")):
            raise ValueError(f"an accepted advisory has a package, an id and a reason: {entry}")
        accepted[entry["package"], entry["id"]] = " ".join(entry["reason"].split())
    return accepted


def judge(
    report: Mapping[str, Any], accepted: Mapping[tuple[str, str], str]
) -> tuple[list[str], list[str]]:
    """(what must be mended, what is known and accepted) of pip-audit's JSON report, a line each.

    An advisory goes by its id or by any alias.
    """
    wrong, known = [], []
    for package in report["dependencies"]:
        name = package["name"]
        if "skip_reason" in package:
            wrong.append(f"{name}: nothing is known of it: {package['skip_reason']}")
        for found in package.get("vulns", []):
            ids = [found["id"], *found.get("aliases", [])]
            reason = next((accepted[name, id] for id in ids if (name, id) in accepted), None)
            line = f"{name} {package['version']}: {', '.join(ids)}"
            if reason is not None:
                known.append(f"{line}: accepted: {reason}")
            else:
                mended = ", ".join(found.get("fix_versions", [])) or "no version"
                wrong.append(f"{line}, mended in {mended}")
    return wrong, known


def audit(lock: Path, arguments: Sequence[str]) -> dict[str, Any]:
    """pip-audit's report on a lock.

    Raises:
        RuntimeError: it gave none: no answer from the database, or a package that it cannot read.
    """
    call = [sys.executable, "-m", "pip_audit", "--requirement", str(lock), "--no-deps"]
    call += ["--disable-pip", "--progress-spinner", "off", "--format", "json", "--aliases", "on"]
    done = subprocess.run([*call, *SERVICE, *arguments], capture_output=True, text=True)
    try:
        return json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise RuntimeError(f"{lock.name}: pip-audit gave no report: {last}") from None


def main() -> int:
    """Print what each lock holds. Exit status 1: something must be mended, or was not answered."""
    accepted, failed = read_accepted(ACCEPTED.read_text()), False
    for name in LOCKS:
        try:
            report = audit(ROOT / name, sys.argv[1:])
        except RuntimeError as error:
            print(error)
            failed = True
            continue
        wrong, known = judge(report, accepted)
        print(f"{name}: {len(report['dependencies'])} packages, {len(wrong)} to mend")
        print(*(f"  {line}" for line in (*wrong, *known)), sep="\n")
        failed |= bool(wrong)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
