"""What do the learner's metrics say?

Made of a status at the moment of the scrape, for the API's /metrics and the learner's own. Every metric has a bounded
number of series.
"""

import time
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from driftline.learner.quality.alarms import Alarms
from driftline.learner.quality.figures import Counts
from driftline.learner.quality.progress import DELAY_EDGES_MS
from driftline.learner.report.follow_report import FollowReport
from driftline.learner.report.status import Status
from driftline.learner.store.upload_report import UploadReport
from driftline.stream.limits import ORPHANED_BY, JoinCounts


def of_learner(status: Status) -> Iterator[Metric]:
    """Give the metrics of a status."""
    counts, join, progress = status.counts, status.join, status.progress
    totals = {
        "messages_seen": (counts.messages_seen, "Messages taken in."),
        "labels_seen": (counts.labels_seen, "Labels taken in."),
        "labels_learned": (counts.labels_learned, "Labels learned, corrections included."),
        "refused_labels": (counts.refused, "Labels that the model could not learn: its own error, or no number."),
        "duplicate_messages": (join.duplicates, "Messages whose id was there, with the same text."),
        "repeated_labels": (join.repeated, "Labels that were known."),
        "other_texts": (join.other_texts, "Messages and labels that brought another text than their id had."),
        "reused_feedback_ids": (join.reused_ids, "Feedback ids that came again with something else to say."),
        "ambiguous_labels": (join.ambiguous, "Labels without a text, refused: several texts came with their id."),
        "corrected": (join.corrected, "Labels that replaced another one."),
        "retracted": (join.retracted, "Labels taken back."),
        "expired": (join.expired, "Messages that left without a label."),
        "label_places_given": (counts.places_given, "Labels that gave their place to a new one."),
        "clock_jumps": (counts.clock_jumps, "Timestamps too far from the log's clock to count."),
        "unwritten_predictions": (counts.unwritten, "Predictions too large for the log even without scores."),
        "unused_vectors": (counts.vectors_unused, "Messages with a vector that the model does not take."),
        "made_vectors": (
            counts.vectors_made,
            "Texts of messages and of labels to which the sentence model gave a vector.",
        ),
        "spared_vectors": (counts.vectors_spared, "Texts beyond embed_rate, which got no vector."),
        "quarantines": (status.gate.times, "How often the publish gate was shut."),
        "stalls": (status.stalls, "How often the learner was stalled, since its process began."),
    }
    for name, (value, text) in totals.items():
        yield CounterMetricFamily(f"driftline_{name}", text, value)
    yield _alarms(status.drift)
    yield _rejected(counts)
    yield _orphaned(join)
    yield _over_quota(status.over_quota)
    yield gauge("pending", "Messages that wait for a label.", status.pending)
    yield gauge("waiting", "Labels that wait for a message.", status.waiting)
    yield gauge("label_places", "Labels that the model can have.", status.places)
    yield gauge("label_places_taken", "Labels that it has.", len(status.labels))
    yield gauge("label_places_left", "New labels that it would learn now.", status.places_left)
    yield gauge("window_bytes", "Memory of the join window.", status.window_bytes)
    yield gauge("learner_alive", "Whether a learner is at work.", status.alive)
    yield gauge("learner_starting", "Whether it starts, and learns nothing yet.", status.state == "starting")
    if status.start is not None and status.start.share is not None:
        yield gauge("learner_start_share", "How much of that is done, 0 to 1.", status.start.share)
    yield gauge("learner_stalled", "Whether records wait and none is taken.", status.state == "stalled")
    yield gauge("learner_paused", "Whether it takes nothing in, and says why.", status.state == "paused")
    yield gauge("model_quarantined", "Whether an older model than the newest is served.", status.gate.state == "shut")
    yield gauge("learner_epoch", "The learner's fencing number.", status.epoch)
    yield gauge("learner_status_age_seconds", "Time since the learner last spoke.", status.age_s)
    yield gauge("checkpoint_seconds", "Time that the last checkpoint took.", status.checkpoint_seconds)
    pause = status.checkpoint_pause_seconds
    yield gauge("checkpoint_pause_seconds", "Time that the learner stood still for the last checkpoint.", pause)
    if status.uploads is not None:
        yield from _uploads(status.uploads)
    if status.following is not None:
        yield from _following(status.following)
    yield gauge("snapshot_seconds", "Time that the last snapshot took.", status.snapshot_seconds)
    yield _delays(progress.get("by_delay") or [])
    recent = progress.get("recent") or {}
    known = "Progressive log loss of labels that were learned before their message came"
    scores = {
        "accuracy": (progress.get("accuracy"), "Progressive accuracy as served, over all labels."),
        "log_loss": (progress.get("log_loss"), "Progressive log loss as served, over all labels."),
        "known_log_loss": (progress.get("known_log_loss"), f"{known}, over all."),
        "calibration_error": (progress.get("calibration_error"), "Expected calibration error as served, 0 to 1."),
        "macro_f1": (progress.get("macro_f1"), "Progressive macro F1 as served, over all labels."),
        "recent_accuracy": (recent.get("accuracy"), "Progressive accuracy as served, over the last labels."),
        "recent_log_loss": (recent.get("log_loss"), "Progressive log loss as served, over the last labels."),
        "recent_known_log_loss": (recent.get("known_log_loss"), f"{known}, over the last."),
    }
    for name, (score, text) in scores.items():
        if score is not None:
            yield gauge(name, text, score)


def _uploads(uploads: UploadReport) -> Iterator[Metric]:
    yield CounterMetricFamily("driftline_uploads", "Checkpoints put into the store.", uploads.uploads)
    yield CounterMetricFamily("driftline_upload_failures", "Tries to do that which failed.", uploads.failures)
    yield gauge("uploads_failing", "Whether the last try failed.", bool(uploads.why))
    if uploads.batch is not None and uploads.at is not None:
        yield gauge("uploaded_checkpoint", "Batch of the last checkpoint that is in the store.", uploads.batch)
        yield gauge("upload_age_seconds", "Time since then.", max(0.0, time.time() - uploads.at))
        yield gauge("upload_seconds", "Time that it took.", uploads.seconds)


def _following(report: FollowReport) -> Iterator[Metric]:
    behind_s = report.now_behind_s
    if behind_s is not None and report.behind_entries is not None:
        yield gauge("follower_behind_seconds", "So far the model here is behind the learner's, at most.", behind_s)
        yield gauge("follower_behind_entries", "Entries of the journal that are not in it.", report.behind_entries)
    by_lessons = report.by == "lessons"
    yield gauge("follower_by_lessons", "Whether it learns what the learner does; else it takes its models.", by_lessons)
    if report.base is not None:
        yield gauge("follower_base", "Batch of the checkpoint that it began with last.", report.base)
    yield CounterMetricFamily("driftline_follower_bases", "Checkpoints that it began with.", report.bases)
    yield CounterMetricFamily("driftline_follower_digests", "Models compared with the learner's.", report.digests)
    yield CounterMetricFamily("driftline_follower_digests_differed", "Those that were another one.", report.differed)
    yield CounterMetricFamily("driftline_follower_skips", "Times that it could not keep up.", report.skips)


def _rejected(counts: Counts) -> CounterMetricFamily:
    family = CounterMetricFamily(
        "driftline_rejected", "Records that went to the dead-letter topic, by what was wrong.", labels=("reason",)
    )
    for reason, number in counts.rejected_by.items():
        family.add_metric((reason,), number)
    return family


def _orphaned(join: JoinCounts) -> CounterMetricFamily:
    family = CounterMetricFamily(
        "driftline_orphaned",
        "Labels that left without their message, by the limit that they met while they waited for it.",
        labels=("reason",),
    )
    untold = join.orphaned - sum(join.orphaned_by.values())  # before reasons were counted
    for reason, number in {**dict.fromkeys(ORPHANED_BY, 0), **join.orphaned_by, "unknown": untold}.items():
        family.add_metric((reason,), number)
    return family


def _alarms(alarms: Alarms) -> CounterMetricFamily:
    """Return the alarms by label; drift is watched for a bounded number of them."""
    family = CounterMetricFamily(
        "driftline_drift_alarms",
        "Changes of the log loss as served, for predictions of a true label; for all predictions where it is empty.",
        labels=("label", "change"),
    )
    for label, changes in {"": alarms.overall, **alarms.by_label}.items():
        family.add_metric((label, "worse"), changes.worse)
        family.add_metric((label, "better"), changes.better)
    return family


def _delays(by_delay: list[dict[str, Any]]) -> HistogramMetricFamily:
    """Return the delays of labels behind their messages, as they were scored; their sum is not known."""
    edges = [*(str(edge / 1000) for edge in DELAY_EDGES_MS), "+Inf"]
    numbers = accumulate(each["labels"] for each in by_delay)
    family = HistogramMetricFamily("driftline_label_delay_seconds", "Time from a message to its label, as scored.")
    if len(by_delay) == len(edges):
        family.add_metric([], list(zip(edges, numbers, strict=True)), sum_value=None)
    return family


def _over_quota(refused: Mapping[str, int]) -> CounterMetricFamily:
    """Return the refused labels by source; a bounded number are named."""
    family = CounterMetricFamily(
        "driftline_over_quota_labels", "Labels refused because their source sent too many.", labels=("source",)
    )
    for source, labels in refused.items():
        family.add_metric((source,), labels)
    return family


def gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    """Return a gauge of one sample."""
    return GaugeMetricFamily(f"driftline_{name}", text, float(value))
