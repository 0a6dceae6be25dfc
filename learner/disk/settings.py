"""How does the learner learn, remember and publish? (See process/settings.py for how options become flags.)"""

import math
from typing import Final, Literal

import msgspec
from pydantic import Field, field_validator

from driftline.stream.errors import ConfigError
from driftline.stream.join.quota import PATTERN, Quota, sender
from driftline.stream.limits import MOST, ClockRule, Limits
from driftline.stream.process.settings import MOST_BYTES, MOST_SECONDS, Settings, StreamSettings, hours_or_no_end
from driftline.stream.wire.names import same_name
from driftline.stream.wire.records import LABELLED, READING, Topics

DEFAULT_MODEL: Final = "blend"


class Rules(msgspec.Struct, frozen=True):
    """The options on which it depends what a record changes. The journal keeps them, so a replay goes by the same."""

    topics: Topics
    partitions: int
    limits: Limits
    max_record_bytes: int
    expire_as: str | None
    predictions: bool
    predictions_scores: int
    # What a journal of before does not have: no limit.
    max_clock_jump_ms: int | None = None
    source_quota: Quota | None = None
    publish_margin: float | None = None
    one_form: bool = False  # whether labels that look the same are one (names.py)
    reading: int = LABELLED  # how records are read (records.py)
    only_votes: bool = True  # the log's clock, as versions before went by it (ClockRule)
    quota_by_name: bool = True  # any name has a quota, as versions before had it (quota.py)
    sources: tuple[str, ...] = ()  # which there are, where an operator says so
    labels: tuple[str, ...] | None = None  # which there are, where an operator says so; None: any
    free_after_ms: int | None = None  # after so long a label that was seen few times gives its place (label_places.py)
    corrects_expired: bool = False  # whether a late label corrects what was learned as `expire_as`

    @property
    def clock(self) -> ClockRule:
        """How far a record may move the log's clock."""
        return ClockRule(self.max_clock_jump_ms, self.only_votes)


class LearnerSettings(Settings):
    """Options of the learner."""

    model: str | None = Field(
        None,
        description="The classifier, with its own options: blend, linear, bayes, tree, linear?bits=22&chars=0, "
        "or one of another library, river:naive_bayes.MultinomialNB?alpha=0.5, or file:model.py:build (see "
        "--allow-pickle). "
        f"Default: the one in the data directory, else {DEFAULT_MODEL}.",
    )
    window_messages: int = Field(200_000, ge=1, le=1 << 30, description="Messages that can still be labelled, at most.")
    window_bytes: int = Field(
        256 << 20, ge=1 << 16, le=MOST_BYTES, description="Memory for messages that can still be labelled."
    )
    window_hours: float = Field(
        168.0,
        gt=0,
        description="How long a message can still be labelled, by the records' own times; inf: until others need "
        "the room.",
    )
    expire_as: str | None = Field(
        None, min_length=1, max_length=256, description="Learn a message that leaves unlabelled as this label."
    )
    batch_records: int = Field(4096, ge=1, le=1 << 16, description="Records applied at once, at most.")
    publish_interval_s: float = Field(
        0.05, ge=0.0, le=MOST_SECONDS, description="A snapshot is published at most this often."
    )
    checkpoint_interval_s: float = Field(30.0, gt=0.0, le=MOST_SECONDS, description="Time between checkpoints.")
    upload_every: int = Field(
        1, ge=1, le=1_000_000, description="One of so many checkpoints goes to --checkpoints; the last one does, too."
    )
    keep_uploads: int = Field(
        3, ge=1, le=100_000, description="Checkpoints that stay in --checkpoints; older ones are deleted there."
    )
    keep_snapshots: int = Field(
        8,
        ge=0,
        le=100_000,
        description="Models of the past that can be served again, at most, beside those that are pinned.",
    )
    keep_snapshots_bytes: int = Field(4 << 30, ge=0, le=MOST_BYTES, description="Their bytes, at most.")
    keep_bases: int = Field(
        3,
        ge=0,
        le=1000,
        description="States of the past that `driftline rebuild --from-checkpoint` may begin with, at most, while the "
        "log has all that came after them.",
    )
    predictions: bool = Field(True, description="Write each prediction to the predictions topic.")
    max_clock_jump_hours: float = Field(
        24.0,
        gt=0,
        description="A record's timestamp further than this from the log's clock, ahead or behind, does not "
        "count, unless the stream is slow enough for it, the log noted that time itself, or so many records more than "
        "others are as far ahead that it must have slept. inf: all count.",
    )
    source_quota: str | None = Field(
        None,
        pattern=PATTERN,
        description="Labels that one source may send in so much of the log's time, such as 1000/min; what is more goes "
        "to the dead-letter topic. Labels without a source count as one, and so do all sources that are new. Default: "
        "no limit.",
    )
    sources: list[str] = Field(
        [],
        description="Which sources there are, by what stands before the first / of their names: each has the quota, "
        "and all others have one together. Default: those that have sent labels in different hours.",
    )
    free_labels_hours: float = Field(
        24.0,
        gt=0,
        description="Where the model has no place for a new label, one that was learned three times at most and not "
        "for so long, by the records' own times, gives its place; inf: none does.",
    )
    publish_margin: float = Field(
        1.5,
        gt=0,
        description="Publish nothing while the loss as served of the last 200 labels is worse by this much than it was "
        "before, and than what predicting the classes' frequencies gives; in nats. inf: always publish.",
    )
    dead_letter_limit: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Where a larger share of the last 1,000 records cannot be read, take nothing more in and say so; "
        "1: send all of them to the dead-letter topic.",
    )
    predictions_scores: int = Field(10, ge=1, le=100, description="Labels in a written prediction, the best ones.")
    label_requests_per_hour: float = Field(
        60.0, ge=0.0, le=1e6, description="Messages chosen for GET /label-requests, about so many; 0: none."
    )
    accept_loss: bool = Field(
        False,
        description="Go on where the log no longer has all records since the checkpoint, from the first that is there. "
        "What was lost is counted, and kept in the checkpoint.",
    )
    take_over: bool = Field(
        False,
        description="Take the data directory from a learner that stands still: stopped, or on a machine that cannot "
        "be reached. It will write nothing any more, and end once it goes on. With --journal log: ask the one that "
        "leads to hand over.",
    )
    journal: Literal["disk", "log"] | None = Field(
        None,
        description="Where it is written down in which order records were learned: on this machine's disk, or in the "
        "log, so that several learners can stand by for one another. log needs Kafka and --checkpoints. Default: disk; "
        "said by name it also has one of several learners go on alone.",
    )
    session_s: float = Field(
        6.0,
        ge=1.0,
        le=600.0,
        description="With --journal log: after so many seconds without a word the learner that leads counts as gone.",
    )
    stall_after_s: float = Field(
        30.0,
        ge=0.1,
        description="Where records wait and none is taken for so long, say that the learner is stalled; inf: never.",
    )
    health_port: int | None = Field(
        None, ge=0, le=65535, description="Answer GET /healthz and GET /metrics of the learner itself on this port."
    )
    health_host: str = Field(
        "127.0.0.1", min_length=1, description="The address for --health-port; 0.0.0.0 is every one."
    )
    group: str = Field("driftline", min_length=1, description="Consumer group under which lag tools see the learner.")

    @field_validator("window_hours", "max_clock_jump_hours", "free_labels_hours")
    @classmethod
    def _may_last(cls, hours: float) -> float:
        return hours_or_no_end(hours)

    def rules(self, stream: StreamSettings, partitions: int) -> Rules:
        """Return the rules that follow from the options, for a log with so many partitions."""
        jump_ms, free_after_ms = _milliseconds(self.max_clock_jump_hours), _milliseconds(self.free_labels_hours)
        expire_as = self.expire_as and (same_name(self.expire_as) or None)
        if expire_as is not None and stream.scheme is not None and expire_as not in stream.scheme:
            raise ConfigError(f"expire_as: {expire_as!r} is none of the labels in {stream.labels}")
        return Rules(
            topics=stream.topics,
            partitions=partitions,
            limits=Limits(self.window_messages, self.window_bytes, _milliseconds(self.window_hours)),
            max_record_bytes=stream.max_record_bytes,
            expire_as=expire_as,
            one_form=True,
            reading=READING,
            predictions=self.predictions,
            predictions_scores=self.predictions_scores,
            max_clock_jump_ms=None if jump_ms == MOST else jump_ms,
            source_quota=Quota.parse(self.source_quota) if self.source_quota else None,
            publish_margin=None if self.publish_margin == math.inf else self.publish_margin,
            only_votes=False,
            quota_by_name=False,
            sources=tuple(sorted({sender(each) for each in self.sources})),
            labels=stream.scheme,
            free_after_ms=None if free_after_ms == MOST else free_after_ms,
            corrects_expired=True,
        )


def _milliseconds(hours: float) -> int:
    """Return a time in whole milliseconds; MOST where it has no end."""
    return MOST if hours == math.inf else int(hours * 3_600_000)
