"""What `gtool eval` writes: files by suffix, what GitHub and GitLab read, and what stands where on failure."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from gtool.cli import run
from gtool.errors import GateError
from gtool.eval.report.page import page
from gtool.eval.report.table import markdown, score_rows
from tests.helpers import pictures
from tests.helpers.junit_files import read_junit
from tests.helpers.tiny import save_tokenizer


@pytest.fixture
def folders(tmp_path):
    """Two small sets of the same kind."""
    for name, seed in (("fake", 1), ("real", 2)):
        (tmp_path / name).mkdir()
        for number, image in enumerate(pictures.draw(24, seed)):
            Image.fromarray(image.transpose(1, 2, 0)).save(tmp_path / name / f"{number:04d}.png")
    return ["fake", "real"]


def score(*arguments):
    return run(["eval", *map(str, arguments), "--device", "cpu"])


FID = {"protocol": "fid/clean/n20", "value": 1.0, "comparable": False}
RFD = {"protocol": "rfd-v1/n20", "value": 3.0, "floor": 2.0, "ratio": 1.5}
KID = {"protocol": "kid/clean/n20", "value": 0.5, "deviation": 0.1}


def test_tables_have_the_columns_that_something_stands_in():
    assert score_rows({"metrics": {"fid": FID}}) == [["metric", "value"], ["fid/clean/n20", "1.000"]]
    heads, *rows = score_rows({"metrics": {"kid": KID, "rfd": RFD}})
    assert heads == ["metric", "value", "sd", "real v real", "ratio"]
    assert rows == [
        ["kid/clean/n20", "0.50000", "0.10000", "", ""],
        ["rfd-v1/n20", "3.000", "", "2.000", "1.50"],
    ]


def test_a_score_of_few_images_is_marked_where_people_read_it():
    record = {"target": "photos", "metrics": {"fid": FID}}
    for text in (markdown(record), page(record, None, [])):
        assert "fid: not comparable with published numbers: too few images" in text
    fine = {"target": "photos", "metrics": {"fid": FID | {"comparable": True}}}
    assert "published numbers" not in markdown(fine)


class Page(HTMLParser):
    """Collects what a page refers to, its words, and whether its tags are closed."""

    EMPTY = ("meta", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.addresses, self.words, self.open, self.images = [], [], [], 0
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.images += tag == "img"
        self.addresses += [
            value for name, value in attrs if name in ("src", "href", "xlink:href", "data", "action")
        ]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        if tag not in self.EMPTY:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def test_one_scoring_writes_every_kind_of_file_into_new_folders(folders, capsys):
    files = [Path("out") / f"result.{suffix}" for suffix in ("json", "jsonl", "xml", "md", "html")]
    outputs = [word for file in files for word in ("-o", file)]
    assert score(*folders, "--max", "rfd=1e6", "--max", "rfd=1:warn", *outputs, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert json.loads(files[0].read_text()) == printed
    assert [json.loads(line) for line in files[1].read_text().splitlines()] == [printed]
    assert [gate["passed"] for gate in printed["gates"]] == [True, False]
    assert not list(Path("out").glob(".*"))  # nothing temporary is left

    cases = read_junit(files[2])
    assert list(cases) == ["rfd at most 1e+06", "rfd at most 1"]
    assert cases["rfd at most 1"]["failure"] is None
    assert cases["rfd at most 1"]["said"]["warning"].startswith("rfd")
    assert cases["rfd at most 1"]["said"]["protocol"] == "rfd-v1/n12/ref-real-n12"

    table = files[3].read_text()
    assert "| rfd | `rfd-v1/n12/ref-real-n12` |" in table
    assert "⚠️ warn" in table

    page = Page(files[4].read_text())
    assert page.open == []
    assert page.images == 48  # each of 24 images beside its nearest
    assert all(address.startswith(("data:image/png;base64,", "#")) for address in page.addresses)
    assert not re.search(r"url\((?!#)|@import|<script|<link", files[4].read_text())
    words = " ".join(page.words)
    for part in (
        "rfd-v1/n12/ref-real-n12",
        "real image of 24 that is nearest",
        "1 of 2 gates met",
    ):
        assert part in words


def test_a_reference_that_has_changed_is_not_compared_with_what_it_was(folders, capsys):
    assert score(*folders, "--rfd", "-o", "main.json") == 0
    gate = ["--baseline", "main.json", "--max-regress", "rfd=5%"]
    Path("real/0000.png").touch()
    assert score(*folders, *gate, "--seed", 1) in (0, 4)
    Image.new("RGB", (32, 32)).save("real/0000.png")
    capsys.readouterr()
    assert score(*folders, *gate) == 1
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.count("against a reference of content") == 2
    for seed in (1, 2):  # a part of the reference, chosen by the seed
        assert score(*folders, "--rfd", "--num", 8, "--seed", seed, "-o", f"{seed}.json") == 0
    several = ["--num", 8, "--seed", 2, "--baseline", "1.json", "--max-regress", "rfd=1000%"]
    assert score(*folders, *several) == 0


def test_lines_are_added_to_a_history_that_a_crash_cut_short(folders):
    Path("history.jsonl").write_text('{"schema": 1, "metr')
    assert score(*folders, "--rfd", "-o", "history.jsonl") == 0
    assert score(*folders, "--rfd", "-o", "history.jsonl") == 0
    lines = Path("history.jsonl").read_text().splitlines()
    assert len(lines) == 3
    assert json.loads(lines[1])["metrics"] == json.loads(lines[2])["metrics"]


def test_without_gates_every_metric_is_a_test_case(folders):
    assert score(*folders, "--rfd", "--swd", "-o", "junit.xml") == 0
    assert list(read_junit(Path("junit.xml"))) == ["rfd", "swd_32", "swd_16"]


def test_a_missed_gate_ends_with_4_after_everything_is_written(folders, capsys, monkeypatch):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "summary.md")
    monkeypatch.setenv("GITHUB_OUTPUT", "output.txt")
    Path("summary.md").write_text("before\n")
    gates = ["--max", "rfd=1", "--max", "rfd.ratio=0.001:warn"]
    assert score(*folders, *gates, "-o", "junit.xml", "--gitlab-metrics", "metrics.txt") == 4
    shown = capsys.readouterr()
    assert re.search(r"rfd at most 1 .* FAIL", shown.out)
    assert re.search(r"rfd.ratio at most 0.001 .* warn", shown.out)
    assert "::" not in shown.out
    assert re.search(r"(?m)^::error title=gtool eval::rfd [\d.]+ > 1\.000 \(by", shown.err)
    assert re.search(r"(?m)^::warning title=gtool eval::rfd.ratio", shown.err)
    assert "1 of 2 gates not met: rfd" in shown.err.splitlines()[-1]

    case = read_junit(Path("junit.xml"))["rfd at most 1"]
    assert re.search(r"rfd [\d.]+ > 1\.000 \(by [\d.]+\)", case["message"])
    assert "limit: <= 1.000" in case["failure"]
    assert Path("summary.md").read_text().startswith("before\n### gtool eval: fake against real\n")
    outputs = dict(line.split("=") for line in Path("output.txt").read_text().splitlines())
    assert outputs["passed"] == "false"
    assert float(outputs["rfd"]) > 1
    names = [line.split()[0] for line in Path("metrics.txt").read_text().splitlines()]
    assert names == ["rfd", "rfd_ratio"]


def test_outside_actions_nothing_is_annotated_and_exit_zero_only_reports(folders, capsys, monkeypatch):
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
    assert score(*folders, "--max", "rfd=1", "--exit-zero") == 0
    shown = capsys.readouterr()
    assert "FAIL" in shown.out
    assert "1 of 1 gates not met" in shown.err
    assert "::error" not in shown.err


def test_names_of_folders_are_text_in_every_file(folders, tmp_path):
    strange = "real [bold] |<b>&"
    (tmp_path / "real").rename(tmp_path / strange)
    assert score("fake", strange, "--rfd", "-o", "r.md", "-o", "r.html", "-o", "r.xml") == 0
    assert f"ref-{strange}-n12" in " ".join(Page(Path("r.html").read_text()).words)
    assert read_junit(Path("r.xml"))["rfd"]["said"]["protocol"] == f"rfd-v1/n12/ref-{strange}-n12"
    assert "\\|&lt;b>" in Path("r.md").read_text()


def test_names_that_are_no_text_spoil_no_file(folders, tmp_path, capsys, monkeypatch):
    strange = "real\n\udcff"
    (tmp_path / "real").rename(tmp_path / strange)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "s.md")
    files = ["r.md", "r.html", "r.xml", "r.json"]
    for pair in (["fake", strange], [strange, "fake"]):
        assert score(*pair, "--rfd", *(word for file in files for word in ("-o", file))) == 0
        assert r"real\n\udcff" in capsys.readouterr().out.splitlines()[0]
        assert all(r"\udcff" in Path(file).read_text() for file in [*files, "s.md"])


def test_our_bug_is_one_line_whatever_was_typed(tmp_path, capsys, monkeypatch):
    def fail(options):
        raise RuntimeError(options.target)

    monkeypatch.setattr("gtool.eval.checks.check", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert run(["eval", "folder\udcff"]) == 3
    assert len(capsys.readouterr().err.splitlines()) == 1
    (log,) = tmp_path.glob("gtool-*.log")
    assert r"gtool eval folder\udcff" in log.read_text()


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_record_says_where_it_comes_from(folders, tmp_path):
    for words in (("init", "-q"), ("add", "fake/0000.png")):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    name = ["-c", "user.name=someone", "-c", "user.email=someone@example.com"]
    subprocess.run(["git", *name, "commit", "-qm", "one"], cwd=tmp_path, check=True)
    assert score(*folders, "--rfd", "-o", "clean.json") == 0
    Image.new("RGB", (32, 32)).save(tmp_path / "fake" / "0000.png")
    assert score(*folders, "--rfd", "-o", "dirty.json") == 0
    clean, dirty = (json.loads(Path(name).read_text()) for name in ("clean.json", "dirty.json"))
    assert (clean["git"]["dirty"], dirty["git"]["dirty"]) == (False, True)
    assert re.fullmatch("[0-9a-f]{40}", clean["git"]["commit"])
    assert {"python", "torch", "numpy"} <= clean["versions"].keys()


def test_numbers_of_a_look_are_gated_and_its_sheet_is_on_the_page():
    save_tokenizer(Path("run") / "weights-000001.safetensors")
    outputs = [word for suffix in ("xml", "md", "html") for word in ("-o", f"result.{suffix}")]
    gates = ["--min", "reconstruction.psnr=99", "--max", "reconstruction.l1=255"]
    assert score("run", "--num", 8, *gates, *outputs) == 4
    cases = read_junit(Path("result.xml"))
    assert [case["failure"] is None for case in cases.values()] == [True, False]
    protocol = cases["reconstruction.psnr at least 99"]["said"]["protocol"]
    assert protocol.startswith("reconstruction-v1/scenes-held-out-n")
    assert "| psnr |" in Path("result.md").read_text()
    page = Page(Path("result.html").read_text())
    assert page.images == 1
    assert "psnr" in page.words
    assert score("run", "--num", 8, "--reconstruction", "-o", "plain.xml") == 0
    assert {"reconstruction.psnr", "reconstruction.ssim"} <= read_junit(Path("plain.xml")).keys()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_no_number_spoils_no_file(value, capsys):
    from gtool.eval.gates import parse_gates
    from gtool.eval.options import EvalOptions
    from gtool.eval.run import finish

    files = tuple(Path(f"result.{suffix}") for suffix in ("json", "jsonl", "xml", "md", "html"))
    gates = parse_gates(["fid=20"], [], [])
    options = EvalOptions(gates=gates, outputs=files, gitlab_metrics=Path("m.txt"), as_json=True)
    record = {"schema": 1, "target": "run", "metrics": {"fid": {"value": value, "protocol": "fid/p"}}}
    with pytest.raises(GateError):
        finish(record, options, None, None)
    assert json.loads(capsys.readouterr().out)["metrics"]["fid"]["value"] is None
    assert json.loads(files[0].read_text()) == json.loads(files[1].read_text())
    assert read_junit(files[2])["fid at most 20"]["failure"]
    assert Page(files[4].read_text()).open == []
    assert Path("m.txt").read_text() == ""


def test_a_file_that_cannot_be_written_keeps_none_of_the_others_from_it(folders, capsys, monkeypatch):
    from gtool.eval.report import files

    def full(record):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "markdown", full)
    monkeypatch.setattr("gtool.eval.run.write_to_github", lambda record: None)
    assert score(*folders, "--max", "rfd=1", "-o", "a.md", "-o", "b.json", "--gitlab-metrics", "m.txt") == 1
    assert "a.md: cannot be written: No space left on device" in capsys.readouterr().err.splitlines()[-1]
    assert json.loads(Path("b.json").read_text())["gates"][0]["passed"] is False
    assert Path("m.txt").read_text()


REFUSED = {
    "unknown suffix": (["-o", "result.pdf"], 2, ".html"),
    "no suffix": (["-o", "result"], 2, "suffix"),
    "a folder": (["-o", "folder.json"], 1, "is a folder"),
    "below a file": (["-o", "file.txt/result.json"], 1, "no folder"),
    "the same file twice": (["-o", "a.md", "-o", "a.md"], 2, "named twice"),
    "unknown metric": (["--max", "fdi=2"], 2, "did you mean `fid`"),
    "regression of nothing": (["--max-regress", "rfd=5%"], 2, "--baseline"),
    "the baseline itself": (["--baseline", "./old.json", "-o", "old.json"], 2, "is the baseline"),
    "missing baseline": (["--baseline", "main.json"], 1, "main.json"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_written_or_judged_is_refused_before_scoring(name, folders, capsys, monkeypatch):
    Path("folder.json").mkdir()
    Path("file.txt").write_text("")
    monkeypatch.setattr("gtool.runtime.device.make_compute", lambda *_: pytest.fail("scoring has begun"))
    arguments, status, part = REFUSED[name]
    assert run(["--quiet", "eval", *folders, "--rfd", *arguments]) == status
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert part in line
