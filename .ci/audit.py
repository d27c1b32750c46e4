"""Ask a public service for known vulnerabilities of the pinned packages; part of `make lint`.

    python .ci/audit.py requirements.txt [--seconds 40] [--osv-url URL]

Fails where one is known. A service that cannot be reached is no finding: the next one is asked, and where none answers,
the audit says that it was skipped, and why. The index's own service calls every package unknown where only a mirror
answers, so an answer counts for the packages that it knows.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

IGNORED: dict[str, str] = {}
"""Vulnerabilities that do not concern smar: id -> reason."""
SERVICES = ("pypi", "osv")
UNREACHABLE = ("ConnectionError", "ServiceError", "Timeout", "network may be blocking")
"""What pip-audit's message holds when the service, not the list of packages, is at fault."""


@dataclass(frozen=True)
class Answer:
    """What a service said: packages that it knows, those that it does not, and its findings one line each."""

    known: int
    unknown: tuple[str, ...]
    found: tuple[str, ...]


def ask(requirements: str, service: Sequence[str], seconds: float) -> Answer | str:
    """The answer of one service, or why there is none; raises RuntimeError where pip-audit fails for another reason."""
    ignored = [word for name in IGNORED for word in ("--ignore-vuln", name)]
    command = [sys.executable, "-m", "pip_audit", "-r", requirements, "--no-deps", "--disable-pip", "--format", "json"]
    command += ["--progress-spinner", "off", "--timeout", "5", "--vulnerability-service", *service, *ignored]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return f"no answer within {seconds:.0f} s"
    if done.stdout.strip():
        return read(json.loads(done.stdout)["dependencies"])
    reason = done.stderr.strip().splitlines()[-1:] or [f"pip-audit ended with {done.returncode} and said nothing"]
    if not any(word in done.stderr for word in UNREACHABLE):
        raise RuntimeError(done.stderr.strip() or reason[0])
    return reason[0]


def read(packages: list[dict[str, Any]]) -> Answer:
    """The JSON of pip-audit."""
    known = [package for package in packages if "skip_reason" not in package]
    found = [
        f"{package['name']} {package['version']}: {', '.join([entry['id'], *entry['aliases']])}, "
        f"mended in {', '.join(entry['fix_versions']) or 'no version yet'}"
        for package in known
        for entry in package["vulns"]
    ]
    return Answer(len(known), tuple(p["name"] for p in packages if "skip_reason" in p), tuple(found))


def main() -> int:
    """Exit code 1 where a vulnerability is known, else 0."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("requirements")
    parser.add_argument("--seconds", type=float, default=40, help="for all services together")
    parser.add_argument("--osv-url", help="ask this OSV service alone, such as a firm's mirror")
    chosen = parser.parse_args()
    services = [["osv", "--osv-url", chosen.osv_url]] if chosen.osv_url else [[name] for name in SERVICES]
    end, why = time.monotonic() + chosen.seconds, []
    for service in services:
        answer = ask(chosen.requirements, service, max(1, end - time.monotonic()))
        if isinstance(answer, Answer) and answer.known:
            print(*(f"vulnerable: {line}" for line in answer.found), sep="\n", end="\n" if answer.found else "")
            print(f"audit by {service[0]}: {answer.known} packages, {len(answer.found)} known vulnerabilities")
            if answer.unknown:
                print(f"NOT audited, as {service[0]} does not know them: {', '.join(answer.unknown)}")
            return 1 if answer.found else 0
        why.append(f"{service[0]}: {answer if isinstance(answer, str) else 'it knows none of the packages'}")
    print("audit of known vulnerabilities SKIPPED, as no service could be asked:", *why, sep="\n  ")
    return 0


if __name__ == "__main__":
    sys.exit(main())
