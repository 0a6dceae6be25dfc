"""Does a specification give the classifier that it names, or say what is wrong with it?"""

import dataclasses
from pathlib import Path

import pytest

from driftline.learner.blend.settings import BlendSettings
from driftline.learner.disk.checkpoint import load_newest
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.loop.recovery import check_model
from driftline.learner.models.bayes import BayesSettings
from driftline.learner.models.linear import LinearSettings
from driftline.learner.registry import REGISTRY, build, build_saved, make_classifier
from driftline.learner.text.features import HASHING, TextSettings
from driftline.stream.errors import ConfigError
from driftline.stream.process.settings import StreamSettings
from tests.golden.make import GOLDEN


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("", "linear"),
        ("nothing", "there are .*linear"),
        ("linear?colour=red", "bits.*rate"),
        ("linear?bits", "setting=value"),
        ("linear?bits=", "whole number"),
        ("linear?bits=20&bits=21", "twice"),
        ("linear?bits=2.5", "whole number"),
        ("linear?bits=99", "8 to 30"),
        ("linear?bits=8&max_labels=65", "64"),
        ("linear?rate=nan", "a number"),
        ("linear?rate=inf", "a number"),
        ("linear?rate=0", "above 0"),
        ("linear?rate=fast", "a number"),
        ("linear?decay=1", "under 1"),
        ("linear?chars_weight=0", "above 0"),
        ("linear?chars=maybe", "1 or 0"),
        ("linear?chars_min=9", "in this order"),
        ("linear?max_chars=0", "1 to"),
        ("linear?hashing=0", "1 to 3"),
        ("linear?hashing=4", "newer Driftline"),
        ("bayes?alpha=0", "0.001 to 10"),
        ("bayes?flatten=2", "0 to 1"),
        ("bayes?half_life=1", "10 to"),
        ("bayes?bits=7", "8 to 30"),
        ("blend?bits=8&max_labels=17", "16"),
        ("blend?half_life=-1", "10 to"),
        ("blend?chars_step=0", "1 to 16"),
    ],
)
def test_a_spec_that_cannot_be_meant(spec: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_classifier(spec)


@pytest.mark.parametrize("settings", [{"bits": 20.0}, {"bits": True}, {"chars": 2}, {"rate": None}])
def test_a_config_of_other_types_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        build("linear", settings)


def test_every_name_makes_a_classifier() -> None:
    for name in REGISTRY:
        assert make_classifier(name).spec == name


def test_the_defaults_are_part_of_the_format() -> None:
    """A setting that comes later stands in `models.EARLIER`, with what was before there was the setting."""
    assert dataclasses.asdict(LinearSettings()) == {
        "pairs": True,
        "chars": True,
        "chars_min": 3,
        "chars_max": 5,
        "max_chars": 8192,
        "tail_chars": 0,
        "max_features": 32768,
        "hashing": 3,
        "cross": "",
        "bits": 22,
        "rate": 0.5,
        "chars_weight": 0.4,
        "decay": 1e-4,
        "rehearse": 4096,
        "max_labels": 1000,
    }


def test_the_defaults_of_bayes_and_blend_are_part_of_the_format() -> None:
    text = dataclasses.asdict(TextSettings())
    bayes = {"bits": 22, "alpha": 0.1, "flatten": 0.7, "half_life": 5000.0, "complement": False, "max_labels": 1000}
    assert dataclasses.asdict(BayesSettings()) == {**text, **bayes}
    read = {"max_chars": 4096, "tail_chars": 2048, "chars_min": 2, "chars_max": 4, "chars_step": 2}
    blend = {**read, "bits": 22, "half_life": 5000.0, "rehearse": 4096, "max_labels": 1000}
    vectors = {"vectors": "", "vectors_sha256": "", "dimension": 0}
    vectors |= {"embed": "", "embed_sha256": "", "embed_made_by": "", "embed_rate": 100}
    assert dataclasses.asdict(BlendSettings()) == {**text, **blend, **vectors}


@pytest.mark.parametrize("spec", ["linear?bits=8&max_labels=4", "river:naive_bayes.MultinomialNB?text.bits=8"])
def test_a_model_of_before_goes_on_reading_texts_as_they_are_written(spec: str) -> None:
    config = make_classifier(spec, allow_pickle=True).config()
    setting = "text.hashing" if ":" in spec else "hashing"
    assert config.pop(setting) == HASHING
    before = build_saved(config, allow_pickle=True)
    assert before.settings.hashing == 1
    assert build_saved(before.config(), allow_pickle=True).config() == before.config()
    assert make_classifier(before.spec, allow_pickle=True).config() == before.config()


def test_a_learner_of_before_may_be_started_with_its_name(tmp_path: Path) -> None:
    """The newest rules for texts are for new models, unless they were asked for."""
    newest, stream = load_newest(GOLDEN / "format-2" / "checkpoints"), StreamSettings(data=tmp_path)
    assert newest is not None
    assert "hashing" not in newest.manifest.config
    for spec in ("linear?bits=8&max_labels=4", "linear?bits=8&max_labels=4&hashing=1"):
        check_model(newest, stream, LearnerSettings(model=spec))
    for settings in ("bits=8&max_labels=4&hashing=2", "bits=8&max_labels=4&rehearse=9", "bits=9&max_labels=4"):
        with pytest.raises(ConfigError, match="holds a model"):
            check_model(newest, stream, LearnerSettings(model=f"linear?{settings}"))
