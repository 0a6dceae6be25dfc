"""Does every option that is a number refuse what it cannot mean, and bear what it takes?"""

import dataclasses
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import httpx
import msgspec
import pytest

from driftline.api.settings import ApiSettings
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.loop.loop import Learner
from driftline.learner.registry import REGISTRY, make_classifier
from driftline.stream.errors import ConfigError
from driftline.stream.log.base import NewRecord
from driftline.stream.log.kafka.options import topic_config
from driftline.stream.log.open import open_log
from driftline.stream.process.flags import BadOptions, build_settings
from driftline.stream.process.settings import Settings, StreamSettings
from tests.place import Place, post, running

CLASSES: list[type[Settings]] = [StreamSettings, LearnerSettings, ApiSettings]
ODD = ["inf", "-inf", "nan", "-1", "-0.0", "0", "1e308", "1e-308", "9" * 30, "9" * 5000, "1e400", "x", "1 2"]
ENDLESS = {
    "retention_hours",
    "window_hours",
    "max_clock_jump_hours",
    "publish_margin",
    "stall_after_s",
    "rate_limit",
    "free_labels_hours",
}
SERVER = {"port", "admin_port", "health_port", "workers"}


def is_number(annotation: Any) -> bool:
    return bool({int, float} & {annotation, *get_args(annotation)})


NUMBERS = [(cls, name) for cls in CLASSES for name, field in cls.model_fields.items() if is_number(field.annotation)]


def taken(cls: type[Settings], name: str) -> list[Any]:
    """Return which of the odd values an option takes. The others it refuses, as an option with what it cannot be."""
    found = []
    for value in ODD:
        try:
            found.append(getattr(build_settings(cls, {name: value}), name))
        except BadOptions as error:
            assert error.lines[0].startswith(f"--{name.replace('_', '-')} "), error.lines
    return found


@pytest.mark.parametrize(("cls", "name"), NUMBERS, ids=lambda value: getattr(value, "__name__", value))
def test_an_odd_number_is_refused_or_means_something(cls: type[Settings], name: str) -> None:
    found = taken(cls, name)
    assert all(value >= 0 for value in found), "nan, or below zero"
    assert (float("inf") in found) == (name in ENDLESS)
    if "hours" in name or isinstance(found and found[0], int):
        assert all(value < 1 << 62 for value in found if value != float("inf"))


@pytest.mark.parametrize("most", [True, False])
def test_a_learner_bears_all_that_its_options_take(most: bool, tmp_path: Path) -> None:
    """The largest that each takes, all at once, and the smallest: it learns a label, and its rules are kept."""
    odd = {cls: {name: taken(cls, name) for of, name in NUMBERS if of is cls} for cls in CLASSES[:2]}
    limits = {cls: {n: (max if most else min)(v) for n, v in odd[cls].items() if v} for cls in odd}
    for name in SERVER | {"partitions", "replication", "max_record_bytes"}:
        for of_class in limits.values():
            of_class.pop(name, None)
    if not most:
        limits[LearnerSettings]["publish_margin"] = 1.5
        limits[StreamSettings].pop("retention_hours")  # all records would be too old
    stream = StreamSettings(data=tmp_path, **limits[StreamSettings])
    settings = LearnerSettings(model="linear?bits=12&chars=0", **limits[LearnerSettings])
    assert {"retention.ms", "retention.bytes"} <= topic_config(stream).keys()
    msgspec.json.decode(msgspec.json.encode(settings.rules(stream, 1)), type=type(settings.rules(stream, 1)))
    record = b'{"message_id":"m%d","label":"a","text":"b"}'
    with closing(open_log(stream)) as log, closing(Learner(stream, settings, log)) as learner:
        learner.start()
        log.submit(stream.topics.feedback, [NewRecord(b"m%d" % n, record % n) for n in range(3)]).result(60)
        while learner.status("running").counts.labels_seen < 3:
            learner.step()
        assert learner.status("running").counts.labels_learned == 3
        learner.run(lambda: True)
    with closing(open_log(stream)) as log, closing(Learner(stream, settings, log)) as learner:
        learner.start()  # from the journal and the checkpoint that have these rules
        assert learner.status("running").counts.labels_learned == 3


@pytest.mark.parametrize("most", [True, False])
def test_an_api_bears_all_that_its_options_take(most: bool, place: Place) -> None:
    place.publish()
    limits = {name: taken(cls, name) for cls, name in NUMBERS if cls is ApiSettings and name not in SERVER}
    with running(place.stream, **{name: (max if most else min)(odd) for name, odd in limits.items() if odd}) as url:
        try:
            answer = post(f"{url}/predict", {"text": "a prize"})
        except httpx.HTTPError:
            assert not most  # a client that has no time at all is closed
        else:
            assert answer.status_code in ({200} if most else {200, 422, 429, 503})


@pytest.mark.parametrize("name", REGISTRY)
def test_an_odd_number_of_a_model_is_refused_or_means_something(name: str) -> None:
    for field in dataclasses.fields(REGISTRY[name].settings):
        if type(field.default) in (int, float):
            for value in ODD:
                try:
                    settings = make_classifier(f"{name}?bits=8&{field.name}={value}").settings
                except ConfigError:
                    continue
                assert getattr(settings, field.name) >= 0
