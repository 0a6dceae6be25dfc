"""Save, load and go on equals going on, at random points, for every classifier; and what was saved long ago opens."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from driftline.learner.disk.checkpoint import FORMAT, list_checkpoints, load_newest
from driftline.learner.disk.journal import read_since
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.loop.loop import Learner
from driftline.learner.registry import build_saved
from driftline.stream.join.join import Join
from driftline.stream.log.open import open_log
from tests.faults.scene import Scene, make_scene
from tests.faults.tally import tally
from tests.golden.make import GOLDEN, NAME
from tests.learner.models.test_classifiers import CLASSIFIERS, FOREIGN, tried
from tests.often import times

# The same classifiers, small: their checkpoints are written and read some hundred times.
SPECS = [spec.replace("bits=18", "bits=9").replace("max_labels=600", "max_labels=6") for spec in CLASSIFIERS + FOREIGN]


@pytest.fixture(scope="module")
def scene(module_memory: Path) -> Scene:
    """Give a log to be learned."""
    return make_scene(module_memory / "resume")


def learn(scene: Scene, spec: str, data: Path, batch: int, stops: list[tuple[int, bool]]) -> dict[str, bytes]:
    """Learn to the end, stopping after so many batches, with a checkpoint or as one that was killed.

    Returns what is in the last checkpoint's files, but for those that say when and by whom it was made.
    """
    stream = scene.stream.model_copy(update={"data": data, "allow_pickle": True})
    options = LearnerSettings(model=spec, batch_records=batch, checkpoint_interval_s=3600, predictions=False)
    log = open_log(stream)
    marks = log.watermarks(stream.topics[:2])
    for steps, saves in [*stops, (0, True)]:
        learner = Learner(stream, options, log)
        try:
            learner.start()
            for _ in range(steps):
                learner.step()
            if saves:
                learner.run(lambda steps=steps: steps > 0, marks)
        finally:
            learner.close()
    log.close()
    newest = list_checkpoints(data / "checkpoints")[0]
    return {file.name: file.read_bytes() for file in newest.iterdir() if file.suffix in {".safetensors", ".msgpack"}}


@pytest.mark.parametrize("spec", tried(*SPECS))
def test_going_on_from_what_was_saved_gives_the_same_bytes(spec: str, scene: Scene, memory: Path) -> None:
    expected, resumed = learn(scene, spec, memory / "straight", 64, []), Counter[str]()

    @settings(max_examples=times(60, 1), suppress_health_check=list(HealthCheck))
    @given(
        batch=st.integers(3, 90), stops=st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=2, max_size=4)
    )
    def check(batch: int, stops: list[tuple[int, bool]]) -> None:
        data = memory / "stopped"
        shutil.rmtree(data, ignore_errors=True)
        assert learn(scene, spec, data, batch, stops) == expected
        resumed[spec] += len(stops)

    check()
    what = f"saved or killed at a random batch, loaded, gone on, {len(SPECS)} classifiers"
    tally(what, "make torture ONLY=test_resume", resumed.total())


GOLDENS = sorted(GOLDEN.glob("format-*"))


def test_the_format_that_is_written_has_its_golden_files() -> None:
    assert GOLDEN / NAME in GOLDENS, "make them: python -m tests.golden.make"


def known(windows: list[bytes]) -> dict[str, tuple[Any, ...]]:
    """Return what windows of any format say of each message."""
    found = {}
    for window in map(msgspec.msgpack.decode, windows):
        if len(window) == 3:  # format 2: text, time, bytes, came, label, ids, scores, window
            found |= {key: (e[0], e[4], e[3], e[6], e[5]) for key, e in window[1]}
        else:  # text, time, came, aside, label, weight, words, scores
            found |= {key: (e[0], e[4], e[2], e[7], [word[0] for word in e[6]]) for key, e in window[2] if not e[3]}
    return found


@pytest.mark.parametrize("golden", GOLDENS, ids=lambda path: path.name)
def test_golden_files_open(golden: Path) -> None:
    expected = json.loads((golden / "expected.json").read_text())
    found = load_newest(golden / "checkpoints")
    assert found is not None
    assert found.manifest.batch == expected["checkpoint"]
    classifier = build_saved(found.manifest.config)
    classifier.load_state(found.model, found.manifest.labels)
    scores = classifier.predict_proba_many(expected["texts"])
    np.testing.assert_allclose(scores, expected["scores"], atol=1e-6)
    join, windows = Join(), [b"".join(parts) for parts in found.windows]
    join.load_state(found.manifest.join_counts, windows)
    assert join.messages
    assert join.state() == windows or found.manifest.format < FORMAT
    again = Join()
    again.load_state(found.manifest.join_counts, join.state())
    assert again.state() == join.state()
    assert again.n_bytes == join.n_bytes
    assert known(windows) == {
        key: (entry.text, entry.label, entry.came, entry.scores, [word.id for word in entry.words])
        for key, entry in join.messages.items()
    }
    spans = [
        [[*span.partition, span.start, span.end] for span in each.spans]
        for each in read_since(golden / "journal", found.manifest.batch)
    ]
    assert spans == expected["journal"]
    assert spans
