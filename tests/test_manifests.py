"""`deploy/kubernetes`: manifests that Kubernetes' published schema accepts, with commands that smar takes."""

import argparse
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from smar.commands.parser import parser

FOLDER = Path(__file__).parents[1] / "deploy" / "kubernetes"
FILES = sorted(FOLDER.glob("*.yaml"))
VERSION = "1.37"


def documents(path: Path) -> list[dict[str, Any]]:
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


def containers() -> dict[str, dict[str, Any]]:
    """The container of each Job and Deployment, by name."""
    whole = [one for path in FILES for one in documents(path) if one["kind"] in ("Job", "Deployment")]
    return {one["metadata"]["name"]: one["spec"]["template"]["spec"]["containers"][0] for one in whole}


def commands(container: dict[str, Any], index: int) -> list[list[str]]:
    """The calls of smar of the pod of an index, as its shell makes them."""
    if "command" not in container:
        return [container["args"]]
    script = 'told() { printf "%s\\n" "$@" --- >&2; }; smar() { told "$@"; }; torchrun() { told "$@"; }\n'
    text = script + container["args"][0].replace("exec ", "")
    shell = [*container["command"][1:], text]
    environment = {"JOB_COMPLETION_INDEX": str(index), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["bash", *shell], capture_output=True, text=True, env=environment, check=True)
    calls = [call.split("\n")[:-1] for call in done.stderr.split("---\n")[:-1]]
    return [call[call.index("smar") + 1 :] if "smar" in call else call for call in calls]


def options(name: str) -> set[str]:
    (commands,) = (own for own in parser()._actions if isinstance(own, argparse._SubParsersAction))
    return {option for action in commands.choices[name]._actions for option in action.option_strings}


@pytest.mark.parametrize("name", sorted(containers()))
def test_smar_takes_the_commands(name: str) -> None:
    calls = commands(containers()[name], 0)
    assert calls
    for call in calls:
        given = {word for word in call if re.match("--[a-z]", word)}
        assert given <= options(call[0]), call


@pytest.mark.parametrize(("name", "option"), [("smar-pictures", "--pictures"), ("smar-embed", "--part")])
def test_the_pods_of_a_job_make_all_parts(name: str, option: str) -> None:
    (job,) = documents(FOLDER / f"{name.removeprefix('smar-')}.yaml")
    count = job["spec"]["completions"]
    calls = [commands(containers()[name], index)[0] for index in (0, count - 1)]
    assert [call[call.index(option) + 1] for call in calls] == [f"1/{count}", f"{count}/{count}"]


def test_what_is_mounted_is_claimed_and_what_is_selected_is_labelled() -> None:
    whole = [one for path in FILES for one in documents(path)]
    claims = {one["metadata"]["name"] for one in whole if one["kind"] == "PersistentVolumeClaim"}
    for one in whole:
        if one["kind"] not in ("Job", "Deployment"):
            continue
        pod = one["spec"]["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert {mount["name"] for mount in pod["containers"][0]["volumeMounts"]} == volumes.keys()
        assert volumes["shared"]["persistentVolumeClaim"]["claimName"] in claims
        if one["kind"] == "Deployment":
            assert one["spec"]["selector"]["matchLabels"] == one["spec"]["template"]["metadata"]["labels"]


@pytest.mark.cluster
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_kubernetes_schema_accepts_them(path: Path) -> None:
    validator = pytest.importorskip("kubernetes_validate")
    for one in documents(path):
        validator.validate(one, VERSION, strict=True)
    wrong = documents(path)[0]
    wrong["spec"]["nonsense"] = 1
    with pytest.raises(validator.ValidationError):
        validator.validate(wrong, VERSION, strict=True)
