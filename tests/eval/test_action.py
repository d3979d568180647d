"""The action gtool-score: its steps as GitHub runs them, in a temporary place, with a stand-in for `gh`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

ACTION = Path(__file__).parents[2] / ".github/actions/gtool-score/action.yml"
# Keeps comments in comments.json; knows the three calls of the action.
GH = """#!{python}
import json, re, sys
from pathlib import Path
store = Path("comments.json")
comments = json.loads(store.read_text()) if store.exists() else []
if store.with_name("forbidden").exists():
    sys.exit("gh: Resource not accessible by integration (HTTP 403)")
words = sys.argv[1:]
place = next(word for word in words if word.startswith("repos/me/project/issues/"))
body = next((Path(word[6:]).read_text() for word in words if word.startswith("body=@")), None)
if "PATCH" in words:
    next(one for one in comments if place.endswith(f"/comments/{{one['id']}}"))["body"] = body
elif "POST" in words:
    comments.append({{"id": 100 + len(comments), "body": body}})
else:
    assert place == "repos/me/project/issues/7/comments" and "--paginate" in words
    begin = re.search(r'startswith\\("(.*)"\\)', words[words.index("--jq") + 1])[1]
    print(*(one["id"] for one in comments if one["body"].startswith(begin)), sep="\\n")
store.write_text(json.dumps(comments))
"""


class Job:
    """A job on a pull request: what is in `${{ }}`, and the environment that every step has."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir()
        self.program("gh", GH.format(python=sys.executable))
        self.program("gtool", f'#!/bin/sh\nexec {sys.executable} -W ignore -m gtool "$@"\n')
        self.said = ""

    def program(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)

    def score(self, **inputs: str) -> int:
        """Run the steps of the action until one fails; return its status."""
        action = yaml.safe_load(ACTION.read_text(encoding="utf-8"))
        defaults = {name: one.get("default") for name, one in action["inputs"].items()}
        values = {f"inputs.{name}": str(value) for name, value in (defaults | inputs).items()}
        values |= {
            "github.event.pull_request.number": "7",
            "github.event.pull_request.head.sha": "abcdef0123",
        }
        values |= {"github.token": "token"}
        for step in action["runs"]["steps"]:
            if "run" not in step:
                assert Path(values["steps.score.outputs.folder"]).is_dir()
                continue
            outputs = self.folder / "outputs"
            outputs.write_text("")
            given = {name: _fill(text, values) for name, text in step.get("env", {}).items()}
            of_github = {
                "RUNNER_TEMP": str(self.folder / "runner"),
                "GITHUB_OUTPUT": str(outputs),
                "GITHUB_ACTION_PATH": str(ACTION.parent),
                "GITHUB_SERVER_URL": "https://github.com",
                "GITHUB_REPOSITORY": "me/project",
                "GITHUB_RUN_ID": "42",
                "PATH": f"{self.bin}{os.pathsep}{os.environ['PATH']}",
                "PYTHONPATH": str(Path(__file__).parents[2]),
            }
            script = self.folder / "step.sh"
            script.write_text(step["run"])
            command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)]
            environment = os.environ | of_github | given
            done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=self.folder)
            self.said += done.stdout + done.stderr
            if done.returncode:
                return done.returncode
            for line in outputs.read_text().splitlines():
                name, _, value = line.partition("=")
                values[f"steps.{step.get('id')}.outputs.{name}"] = value
        return 0

    @property
    def comments(self) -> list[str]:
        store = self.folder / "comments.json"
        return [one["body"] for one in json.loads(store.read_text())] if store.exists() else []


def _fill(text: str, values: dict[str, str]) -> str:
    return re.sub(r"\$\{\{\s*([\w.]+)\s*\}\}", lambda found: values[found[1]], text)


@pytest.fixture
def job(tmp_path):
    rng = np.random.default_rng(0)
    for name, low in (("real photos", 0), ("worse", 200)):
        (tmp_path / name).mkdir()
        for k in range(8):
            pixels = rng.integers(low, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{k}.png")
    return Job(tmp_path)


def test_one_comment_turns_from_red_to_green(job):
    gates = "--rfd --reference './real photos' --max rfd=40 --device cpu"
    assert job.score(target="worse", arguments=gates) == 4
    (red,) = job.comments
    lines = red.splitlines()
    assert lines[:2] == ["<!-- gtool-score: gtool-score -->", "**❌ gtool-score: gates not met**"]
    assert "### gtool eval: worse against " in red
    assert re.search(r"\| rfd at most 40 \| [\d.]+ \| &lt;= 40\S* \| ❌ FAIL \|", red)
    assert lines[-1] == "[Reports](https://github.com/me/project/actions/runs/42) of abcdef0"
    reports = sorted(path.name for path in (job.folder / "runner/gtool-score").iterdir())
    assert reports == ["comment.md", "junit.xml", "log.txt", "report.html", "report.md", "result.json"]
    job.program("gtool", "#!/bin/sh\necho better > runner/gtool-score/report.md\n")
    assert job.score(target="fake", arguments=gates) == 0
    (green,) = job.comments
    assert green.splitlines()[1:4] == ["**✅ gtool-score: passed**", "", "better"]


STUB = """#!/bin/sh
printf '%s\\n' "$@" > words
echo "error: $2: no such run or file" >&2
exit ${STUB:-1}
"""


def test_what_could_not_be_scored_is_said_and_has_its_own_status(job):
    job.program("gtool", STUB)
    (job.folder / "comments.json").write_text(json.dumps([{"id": 3, "body": "<!-- gtool-score: other -->"}]))
    assert job.score(target="none $(touch danger)", arguments="--num 8\n--max 'rfd=4'") == 1
    assert len(job.comments) == 2
    assert "ended with status 1**" in job.comments[1]
    assert "error: none $(touch danger): no such run or file" in job.comments[1]
    assert not (job.folder / "danger").exists()
    assert (job.folder / "words").read_text().splitlines()[:5] == [
        "eval",
        "none $(touch danger)",
        "--num",
        "8",
        "--max",
    ]


def test_a_comment_that_may_not_be_written_fails_nothing(job):
    job.program("gtool", "#!/bin/sh\n")
    (job.folder / "forbidden").touch()
    assert job.score(target="run") == 0
    assert "::warning title=gtool score::no comment was written" in job.said
