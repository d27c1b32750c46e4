"""The audit of known vulnerabilities, asked of a small OSV service of our own."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

AUDIT = Path(__file__).parents[1] / ".ci" / "audit.py"
FLAW = {
    "id": "PYSEC-0000-1",
    "aliases": ["CVE-0000-1"],
    "summary": "templates escape",
    "affected": [
        {
            "package": {"name": "jinja2", "ecosystem": "PyPI"},
            "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "3.2"}]}],
        }
    ],
}


class Osv(BaseHTTPRequestHandler):
    """Knows one flaw, of jinja2 3.1.6."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        wrong = asked["package"]["name"] == "jinja2" and asked["version"] == "3.1.6"
        body = json.dumps({"vulns": [FLAW]} if wrong else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def osv() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Osv) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()


def audit(folder: Path, packages: str, url: str) -> subprocess.CompletedProcess[str]:
    (folder / "requirements.txt").write_text(packages)
    command = [sys.executable, AUDIT, folder / "requirements.txt", "--osv-url", url]
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=600)


def test_a_known_vulnerability_fails(tmp_path: Path, osv: str) -> None:
    done = audit(tmp_path, "jinja2==3.1.6\nnumpy==2.4.6\n", osv)
    assert done.returncode == 1, done.stderr
    assert "vulnerable: jinja2 3.1.6: PYSEC-0000-1, CVE-0000-1, mended in 3.2" in done.stdout
    assert "2 packages, 1 known vulnerabilities" in done.stdout


def test_none_known_passes(tmp_path: Path, osv: str) -> None:
    done = audit(tmp_path, "numpy==2.4.6\n", osv)
    assert done.returncode == 0, done.stderr
    assert "1 packages, 0 known vulnerabilities" in done.stdout


def test_no_network_is_said_and_passes(tmp_path: Path) -> None:
    done = audit(tmp_path, "jinja2==3.1.6\n", "http://127.0.0.1:9/v1/query")  # the discard port: nobody listens
    assert done.returncode == 0, done.stderr
    assert "SKIPPED" in done.stdout
    assert "osv: " in done.stdout
    assert "127.0.0.1" in done.stdout


def test_a_broken_list_of_packages_is_no_missing_network(tmp_path: Path, osv: str) -> None:
    done = audit(tmp_path, "jinja2>=3\n", osv)
    assert done.returncode == 1
    assert "SKIPPED" not in done.stdout
    assert "jinja2" in done.stderr
