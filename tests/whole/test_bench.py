"""The bench: its own streams, the order in which peers are asked, one scorer for all, and the commands as they are run.

The bench is a tool of ours: in `make test` one peer runs in its process, and what is of no process is looked at; the
commands measure in `make torture`.
"""

import ast
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.fields import made
from bench.grid import BEHIND, FAMILIES, MOST, go_on, try_all
from bench.peers.fielded import apart
from bench.peers.ours import Ours
from bench.peers.protocol import Answers, Peer, Rows, read_rows, run, write_rows
from bench.peers.rich import MAX_CHARS, rich, step, valued, with_pairs
from bench.quality import OWN_PYTHON, PEERS, Launcher, Quality, Run, Trial
from bench.report import write_report, write_trees
from bench.streams import Stream, cut_to_length, make_stream, read_stream
from bench.trees import BESIDE, measure_tree_memory, measure_trees
from driftline.learner.quality.evaluate import evaluate
from driftline.learner.registry import make_classifier
from driftline.stream.errors import ConfigError
from driftline.stream.files.reader import Row
from driftline.stream.wire.fielded import join
from tests.data import ROOT
from tests.often import in_torture_only

# -- streams --


def test_made_streams_are_a_function_of_name_rows_and_seed() -> None:
    def digest(seed: int) -> str:
        rows = make_stream("sudden", 200, seed).rows
        return hashlib.sha256(repr((rows.texts, rows.labels)).encode()).hexdigest()[:16]

    assert digest(1) == digest(1) == "e05ff7bfeecab91e"
    assert digest(2) != digest(1)


def accuracy_after(
    name: str, learned: tuple[float, float], asked: tuple[float, float], spec: str = "linear?chars=0&bits=18"
) -> float:
    """Return how well a model that learned one part of a stream predicts another."""
    stream = make_stream(name, 6000)

    def part(bounds: tuple[float, float]) -> tuple[list[str], list[str]]:
        cut = slice(*(int(bound * 6000) for bound in bounds))
        return stream.rows.texts[cut], [stream.labels[label] for label in stream.rows.labels[cut]]

    model = make_classifier(spec)
    model.learn_many(*part(learned))
    texts, labels = part(asked)
    return sum(a == b for a, b in zip(model.predict_many(texts), labels, strict=True)) / len(texts)


def test_streams_drift_as_they_say() -> None:
    start = (0.0, 0.3)
    before = accuracy_after("sudden", start, (0.3, 0.5))
    after = accuracy_after("sudden", start, (0.5, 0.7))
    assert before > 0.6
    assert after < before - 0.15
    assert abs(accuracy_after("steady", start, (0.3, 0.5)) - accuracy_after("steady", start, (0.8, 1.0))) < 0.05
    gradual = [accuracy_after("gradual", start, part) for part in ((0.3, 0.4), (0.45, 0.55), (0.7, 1.0))]
    assert gradual[0] > gradual[1] > gradual[2]
    first = (0.0, 1 / 6)
    there, away, back = (accuracy_after("recurring", first, (n / 6, (n + 1) / 6)) for n in (0, 1, 2))
    assert there > back > away + 0.1


def test_pairs_of_words_tell_what_single_words_do_not() -> None:
    parts = (0.0, 0.8), (0.8, 1.0)
    without = accuracy_after("steady", *parts, "linear?chars=0&bits=18&pairs=0")
    assert accuracy_after("steady", *parts) > without + 0.03


def test_labels_of_streams_change_as_they_say() -> None:
    new = make_stream("new-labels", 4000).rows.labels
    assert len(set(new[:300])) == 3
    assert len(set(new)) == 12
    shares = make_stream("shares", 4000)
    first = [shares.labels[label] == "label0" for label in shares.rows.labels]
    assert sum(first[:400]) / 400 > 0.75
    assert sum(first[-400:]) / 400 < 0.2
    assert make_stream("late", 10).delay == 500
    assert set(Counter(make_stream("steady", 4000).rows.labels).values()) <= set(range(850, 1150))
    with pytest.raises(ConfigError, match="steady"):
        make_stream("unheard-of", 10)


def test_cut_texts_all_have_one_length() -> None:
    assert {len(text) for text in cut_to_length(make_stream("steady", 300), 100).rows.texts} == {100}


# -- peers --


class Recorder(Peer):
    """Notes what it was asked."""

    def __init__(self, batch: int) -> None:
        super().__init__(2)
        self.batch, self.asked = batch, ""

    def predict(self, examples: Sequence[str], _truths: Sequence[int]) -> int:
        self.asked += "".join(f"?{text}" for text in examples)
        return len(examples)

    def answers(self, scores: int, _truths: Sequence[int]) -> Answers:
        return self.nothing_known(scores)

    def learn(self, examples: Sequence[str], _truths: Sequence[int]) -> None:
        self.asked += "".join(f"!{text}" for text in examples)


@pytest.mark.parametrize(
    ("batch", "delay", "asked"),
    [
        (1, 0, "?a!a?b!b?c!c?d!d?e!e"),
        (1, 2, "?a?b?c!a?d!b?e!c"),
        (2, 0, "?a?b!a!b?c?d!c!d?e!e"),
        (2, 1, "?a?b!a?c?d!b!c?e!d"),
        (2, 9, "?a?b?c?d?e"),
    ],
)
def test_rows_are_predicted_and_labels_learned_when_due(batch: int, delay: int, asked: str) -> None:
    peer = Recorder(batch)
    found = run(peer, Rows(list("abcde"), [0, 1, 0, 1, 0], 2), delay, 60)
    assert peer.asked == asked
    assert len(found["predicted"]) == len(found["p_truth"]) == 5


def test_a_peer_is_stopped_after_its_time() -> None:
    assert len(run(Recorder(2), Rows(list("abcde"), [0] * 5, 2), 0, 0.0)["predicted"]) == 2


def test_peers_read_fields_as_they_are_written() -> None:
    fields = {"amount": 12.5, "country": "NL", "tags": ["x", "y"], "n": -3}
    assert apart(join("a text", fields)) == (
        "a text",
        {"amount": [12.5], "country": ["NL"], "tags": ["x", "y"], "n": [-3.0]},
    )
    assert apart("a text") == ("a text", {})
    found = made(50).stream.rows
    assert found.texts[7] == made(60).stream.rows.texts[7]
    assert set(apart(found.texts[0])[1]) == {"amount", "country", "source"}


@pytest.mark.parametrize("delay", [0, 7, 1500])
def test_ours_answers_what_evaluate_finds(delay: int) -> None:
    stream = make_stream("new-labels", 2500)._replace(delay=delay)
    answer = Ours(12, "linear").run_all(stream.rows, delay, 60)
    quality = Quality(stream, delay, [])
    score = quality.score(done("linear", answer["predicted"], answer["p_truth"], ours=True))
    pairs = zip(stream.rows.texts, stream.rows.labels, strict=True)
    rows = [Row(None, text, stream.labels[label], 1) for text, label in pairs]
    expected = evaluate(rows, make_classifier("linear"), delay)
    assert score.rows == 2500 - delay - 1
    assert score.accuracy == expected.accuracy
    assert score.log_loss == pytest.approx(expected.log_loss, rel=1e-6)
    assert score.known_log_loss < score.log_loss  # labels never seen cost 34.5 each


def test_rows_survive_the_way_to_a_peer(tmp_path: Path) -> None:
    rows = Rows(["a\nb", "\u2028 ü 漢", '"', "\ud83d\ude00"], [0, 1, 0, 2], 3)
    write_rows(str(tmp_path / "rows"), rows)
    found = read_rows(str(tmp_path / "rows"))
    assert (found.labels, found.n_labels) == (rows.labels, 3)
    assert [text.encode("utf-16", "surrogatepass") for text in found.texts] == [
        text.encode("utf-16", "surrogatepass") for text in rows.texts
    ]


@pytest.mark.parametrize("path", sorted((ROOT / "bench" / "peers").glob("*.py")), ids=lambda path: path.name)
def test_peers_can_be_read_by_python_3_8(path: Path) -> None:
    ast.parse(path.read_text(), feature_version=(3, 8))


# -- scores --


def done(
    system: str, predicted: Sequence[int], p_truth: Sequence[float], *, ours: bool = False, n_rows: int | None = None
) -> Run:
    """Return a run with these answers that took a second."""
    return Run(
        system, ours, n_rows or len(predicted), np.array(predicted, np.int32), *[np.array(p_truth, np.float32)] * 2, 1.0
    )


TEN = Stream("ten", Rows(list("abcdefghij"), [0, 1, 0, 1, 0, 1, 0, 1, 0, 1], 2), ["x", "y"])


def test_scores_leave_out_what_nothing_could_know() -> None:
    quality = Quality(TEN, 2, [])
    score = quality.score(done("a", [1, 1, 1, *TEN.rows.labels[3:]], [0.0, 0.0, 0.0, 1e-15, *[0.5] * 6]))
    assert score.rows == 7
    assert score.accuracy == 1.0
    # Row 3's label was first seen at row 1, which was learned after row 3 was predicted.
    assert score.log_loss == pytest.approx((np.log(1e15) + 6 * np.log(2)) / 7, rel=1e-6)
    assert score.known_log_loss == pytest.approx(np.log(2), rel=1e-6)


def test_a_stopped_peer_is_compared_on_the_rows_that_it_did() -> None:
    ours = done("linear", [0, 1, 0, 1, 0, 0, 1, 0, 1, 0], [0.5] * 10, ours=True)  # wrong from row 5 on
    quality = Quality(TEN, 0, [ours, done("whole", [1] * 10, [0.4] * 10)])
    found = quality.best_peer(ours, lambda score: score.error)
    assert found is not None
    assert found[0].system == "whole"
    assert found[1] == pytest.approx(5 / 4)
    stopped = Quality(TEN, 0, [ours, done("stopped", [1] * 5, [0.4] * 5, n_rows=10)])
    assert stopped.peers[0].was_stopped
    assert stopped.best_peer(ours, lambda score: score.error) is None  # too few rows to be called the best


def test_a_report_shows_losses_and_what_was_left_out(tmp_path: Path) -> None:
    ours = done("linear", [1] * 10, [0.1] * 10, ours=True)
    peer = done("river-nb", TEN.rows.labels, [0.9] * 10)
    absent = Run("vw-pairs", False, 10, why_not="No module named 'vowpalwabbit'")
    write_report(tmp_path / "R.md", "python -m bench", [[Quality(TEN, 0, [ours, peer, absent])]], [], None)
    report = (tmp_path / "R.md").read_text()
    assert "| linear | 4.000 | 4.000 |" in report
    assert "| linear | ten | 0.4444 | river-nb | 4.000 | 2.3026 | river-nb | 21.854 |" in report
    assert "| river-nb | 10 | **1.0000** | **1.0000** | **0.1054** | **0.1054** | **0.1000** | 10 |" in report
    assert "Not measured: vw-pairs (No module named 'vowpalwabbit')" in report


def test_what_cannot_run_says_why(tmp_path: Path) -> None:
    no_python = Launcher(peer_python=str(tmp_path / "python")).run("river-nb", TEN, 0, is_ours=False)
    assert "cannot be run" in no_python.why_not
    for kind in OWN_PYTHON:
        assert OWN_PYTHON[kind] in Launcher().run(f"{kind}-tree", TEN, 0, is_ours=False).why_not
    own = Launcher(own_pythons={"capymoa": str(tmp_path / "python")})
    assert "cannot be run" in own.run("capymoa-tree", TEN, 0, is_ours=False).why_not
    assert "late" in Launcher().run("vw-driver", TEN, 3, is_ours=False).why_not


def test_a_file_without_labels_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "texts.csv"
    file.write_text("text,label\na,\n")
    with pytest.raises(ConfigError, match="no row has a label"):
        read_stream(file, 10)


@in_torture_only
def test_trees_are_measured_on_the_same_rows(tmp_path: Path) -> None:
    (found,) = measure_trees(Launcher(seconds=20), [make_stream("steady", 60)], 100, 1)
    *rivers, moa = found.beside
    assert [(its.peer, its.rows, its.why_not) for its in rivers] == [
        ("river-tree", 100, ""),
        ("river-tree-pairs", 100, ""),
    ]
    assert all(its.times(ours) > 0 for its in rivers for ours in BESIDE[its.peer])
    assert OWN_PYTHON["capymoa"] in moa.why_not
    memory = measure_tree_memory(2500)
    assert memory.texts == 2500
    assert memory.taken <= memory.limit
    write_trees(tmp_path / "T.md", "python -m bench --trees 100", [found], memory)
    report = (tmp_path / "T.md").read_text()
    assert f"| steady | {found.mean_length:,.0f} | 100 | {rivers[0].rate('river-tree'):,.0f} |" in report
    assert f"Not measured: {moa.peer} ({moa.why_not})." in report


def test_a_peer_without_probabilities_has_no_log_loss(tmp_path: Path) -> None:
    labels_only = Peer(2).labels_only(TEN.rows.labels)
    ours = done("linear", [1] * 10, [0.1] * 10, ours=True)
    quality = Quality(TEN, 0, [ours, done("vw-hinge", labels_only.predicted, labels_only.p_truth)])
    score = quality.score(quality.peers[0])
    assert score.accuracy == 1.0
    assert np.isnan([score.log_loss, score.known_log_loss, score.calibration_error]).all()
    found = quality.best_peer(ours, lambda score: score.error)
    assert found is not None
    assert found[0].system == "vw-hinge"
    assert quality.best_peer(ours, lambda score: score.known_log_loss) is None
    write_report(tmp_path / "R.md", "python -m bench", [[quality]], [], None)
    assert "| vw-hinge | 10 | **1.0000** | **1.0000** |  |  |  | 10 |" in (tmp_path / "R.md").read_text()


# -- what peers are given, and how they are set --


def test_what_a_text_shows() -> None:
    found = rich("WIN £5, call  Bob!", "across")
    assert found.words == ["win", "5", "call", "bob"]
    assert found.tokens == ["WIN", "£", "5", ",", "call", "Bob", "!"]
    assert {"£5,", ", cal", " WIN", "Bob! "} <= set(found.grams)  # across words and signs, one space for two
    assert {"form=XXX", "form=Xxx", "form=9", "first0=WIN", "last0=!", "tokens=6", "upper-words=2"} <= set(found.shape)
    inside = rich("WIN £5", "inside").grams
    assert inside == [" wi", "win", "in ", " win", "win ", " win ", " £5", "£5 ", " £5 "]
    assert rich("WIN", "none").grams == []
    assert len(rich("a" * 100_000, "across").tokens[0]) == MAX_CHARS
    with pytest.raises(ValueError, match="none, inside or across"):
        rich("a", "all")
    assert [step(n) for n in range(8)] == [0, 2, 3, 4, 4, 5, 5, 6]


def test_features_are_counted_as_asked() -> None:
    assert with_pairs(["a", "b", "a"]) == ["a", "b", "a", "a b", "b a"]
    assert with_pairs([]) == []
    assert valued("aba", "sum") == {"a": 2, "b": 1}
    assert valued("aba", "once") == {"a": 1, "b": 1}
    with pytest.raises(ValueError, match="sum or once"):
        valued("aba", "twice")
    plain = rich("WIN £5", "across", "plain")
    assert (plain.words, plain.tokens, plain.shape) == (["win", "5"], [], [])
    assert " WIN" in plain.grams
    with pytest.raises(ValueError, match="all or plain"):
        rich("a", "none", "some")


def trials(family: str, errors: Sequence[float], losses: Sequence[float]) -> list[Trial]:
    """Return what the first settings of a family got."""
    return [Trial(family, *of) for of in zip(FAMILIES[family], [10] * len(errors), errors, losses, strict=False)]


def test_the_best_settings_by_error_and_by_log_loss_go_on() -> None:
    nan, names = float("nan"), FAMILIES["vw-rich"]
    # The second is clearly behind by both, the third by error only, the last was too slow.
    found = trials("vw-rich", [0.10, 0.12, 0.12, nan], [0.5, 0.5, 0.4, nan])
    assert go_on("vw-rich", found) == [names[0], names[2]]
    near = [0.1 * BEHIND**0.5] * 9
    assert go_on("vw-rich", trials("vw-rich", [*near, 0.1], [1.0] * 10)) == [*names[:MOST], names[9]]
    # Without probabilities only the error counts; what is of another family does not.
    found += trials("vw-hinge", [0.01, 0.02], [nan, nan])
    assert go_on("vw-hinge", found) == [FAMILIES["vw-hinge"][0]]
    assert go_on("vw-rich", found) == [names[0], names[2]]
    assert go_on("vw-rich", trials("vw-rich", [nan], [nan])) == [names[0]]


def test_a_report_shows_which_settings_went_on(tmp_path: Path) -> None:
    first, second, third = FAMILIES["vw-rich"][:3]
    found = trials("vw-rich", [0.1, 0.2, float("nan")], [0.5, 0.7, float("nan")])
    ours = done("linear", [1] * 10, [0.1] * 10, ours=True)
    write_report(tmp_path / "R.md", "python -m bench", [[Quality(TEN, 0, [ours], found)]], [], None)
    report = (tmp_path / "R.md").read_text()
    for line in (f"| {first} | **0.1000** (0.5000) |", f"| {second} | 0.2000 (0.7000) |", f"| {third} | 10 rows |"):
        assert line in report
    assert "its best on the very stream" in report


CAPYMOA = ROOT / ".venv-bench-capymoa" / "bin" / "python"


@in_torture_only
@pytest.mark.parametrize(
    ("family", "needs"),
    [
        ("river-rich-nb", "river"),
        ("river-rich-logreg", "river"),
        ("river-rich-pa", "river"),
        ("sklearn-rich-nb", "sklearn"),
        ("sklearn-rich-sgd", "sklearn"),
        ("vw-hinge", "vowpalwabbit"),
        ("vw-rich", "vowpalwabbit"),
        ("capymoa-tree", str(CAPYMOA)),
    ],
)
def test_every_family_is_set_as_its_peer_understands(monkeypatch: pytest.MonkeyPatch, family: str, needs: str) -> None:
    """A short run of each: a setting that a peer does not know would end it."""
    if not (CAPYMOA.exists() if needs == str(CAPYMOA) else importlib.util.find_spec(needs)):
        pytest.skip(f"needs {needs}")
    last = FAMILIES[family][-1]
    monkeypatch.setitem(FAMILIES, family, (last,))
    launcher = Launcher(seconds=80, own_pythons={"capymoa": str(CAPYMOA)})
    (trial,) = try_all(TEN, [family], launcher, 2)
    assert trial.rows == 10
    assert 0 < trial.error <= 1
    assert np.isnan(trial.log_loss) == (family in {"river-rich-pa", "vw-hinge"})
    assert go_on(family, [trial]) == [last]


def test_every_family_is_a_peer() -> None:
    assert set(FAMILIES) <= set(PEERS)


def test_answers_are_kept_and_belong_to_what_was_asked(tmp_path: Path) -> None:
    launcher = Launcher(seconds=20, kept=tmp_path / "answers")
    first = launcher.run("river-nb", TEN, 0, is_ours=False)
    (kept,) = (tmp_path / "answers").iterdir()
    found = json.loads(kept.read_text())
    found["predicted"] = [1] * 10
    kept.write_text(json.dumps(found))
    assert launcher.run("river-nb", TEN, 0, is_ours=False).predicted.tolist() == [1] * 10
    assert launcher.run("river-nb", TEN, 1, is_ours=False).predicted.tolist() != [1] * 10
    assert launcher.run("river-nb", TEN, 0, is_ours=False).was_kept
    again = replace(launcher, seconds=21.0).run("river-nb", TEN, 0, is_ours=False)
    assert again.predicted.tolist() == first.predicted.tolist()
    assert len(list((tmp_path / "answers").iterdir())) == 3
    gone = replace(launcher, peer_python=str(tmp_path / "python"))
    assert gone.run("river-logreg", TEN, 0, is_ours=False).why_not
    assert len(list((tmp_path / "answers").iterdir())) == 3  # what did not answer is tried again


# -- the command --


@in_torture_only
def test_the_command_measures_and_reports(tmp_path: Path) -> None:
    delays = {"0": "own.png", "5": "own-5-late.png"}
    file = tmp_path / "own.tsv"
    stream = make_stream("steady", 300)
    labelled = zip(stream.rows.texts, stream.rows.labels, strict=True)
    file.write_text("text\tlabel\n" + "".join(f"{text}\t{stream.labels[label]}\n" for text, label in labelled))
    arguments = ["--quick", "--models", "linear", "--peers", "river-nb,sklearn-sgd-100"]
    arguments += [part for delay in delays for part in ("--delay", delay)]
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-m", "bench", str(file), *arguments, "--out", str(tmp_path / "out")],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=280,
    )
    assert ended.returncode == 0, ended.stderr
    report = (tmp_path / "out" / "REPORT.md").read_text()
    assert "## own: 300 rows, 4 labels, labels 5 rows late" in report
    assert report.count("| 300 |") == 3 * len(delays)
    assert "## Quality: ours beside the best peer, labels 5 rows late" in report
    assert "python -m bench own.tsv --quick" in report
    assert str(tmp_path) not in report
    for system in ("linear?bits=20&chars=0", "sklearn-sgd-1", "river-logreg"):
        assert f"| {system} |" in report
    for picture in (*delays.values(), "speed.png"):
        assert f"]({picture})" in report
        assert (tmp_path / "out" / picture).read_bytes().startswith(b"\x89PNG")


def test_the_command_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "bench", "--peers", "unheard-of", "--out", str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=240,
    )
    assert ended.returncode == 2
    assert "there is no peer 'unheard-of'; there are river-nb," in ended.stderr


@in_torture_only
@pytest.mark.parametrize("log", ["sqlite", "kafka"])
def test_freshness_is_measured(request: pytest.FixtureRequest, tmp_path: Path, log: str) -> None:
    """Idle, at a rate, at full speed: labels show, predictions are answered."""
    command = [sys.executable, "-m", "bench.freshness", "linear?bits=12", "--labels", "10", "--rate", "200"]
    ended = subprocess.run(
        [*command, "--kafka", request.getfixturevalue("kafka")] if log == "kafka" else command,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=280,
    )
    assert ended.returncode == 0, ended.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in ended.stdout.splitlines()[2:]]
    assert [row[1] for row in rows] == ["idle", "200/s", "full speed"]
    for row in rows:
        shown, answered = ([float(figure) for figure in cell.split(" / ")] for cell in row[2:4])
        assert 0 < shown[0] <= shown[1] < 30_000
        assert 0 < answered[0] <= answered[1] < 30_000
    learned = [float(row[4].replace(",", "")) for row in rows]
    assert learned[0] < learned[1] < learned[2]


@in_torture_only
def test_honest_clients_are_measured_while_others_attack(tmp_path: Path) -> None:
    """A few seconds, with two attacks that cost nothing: every honest label is learned, every row is there."""
    names = ("malformed", "guessed_keys")
    command = [sys.executable, "-m", "bench.attack", "--minutes", "0.15", "--model", "linear?bits=12", "--pace", "0.3"]
    ended = subprocess.run(
        [*command, *(part for name in names for part in ("--attack", name))],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=280,
    )
    assert ended.returncode in {0, 1}, ended.stderr  # a machine that stands still is none of its matters
    rows = {cells[0]: cells[1:] for line in ended.stdout.splitlines() if len(cells := _cells(line)) > 1}
    assert {"predict", "message", "label", "own label", "page", "without attackers", "with"} < rows.keys()
    sent, learned = re.findall(r"honest labels: ([\d,]+) sent, ([\d,]+) learned", ended.stdout)[0]
    assert sent == learned != "0"
    for process in ("API", "learner"):
        assert all(float(cell) > 0 for cell in rows[process])
    assert {"guessed keys", "malformed"} < rows.keys()


def test_an_attack_that_nobody_knows_is_refused() -> None:
    command = [sys.executable, "-m", "bench.attack", "--attack", "prayers"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, encoding="utf-8", check=False, timeout=120)
    assert ended.returncode == 2
    assert "prayers" in ended.stderr


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")[1:-1]]
