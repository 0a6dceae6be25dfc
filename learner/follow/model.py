"""What does a follower have of the learner that leads?

Its model, what that is called, and up to where in the topics it has learned: neither the messages nor the join. It
begins with a checkpoint, and learns what the journal's entries say was learned. Equal versions are equal models, here
and there.
"""

from collections.abc import Iterator

from driftline.learner.cluster.entries import Batch, Claim, teach
from driftline.learner.disk.checkpoint import Manifest, by_partition, by_topic, lay_out, sha256
from driftline.learner.machine.prediction_lines import Versions
from driftline.learner.models.classifier import State
from driftline.learner.quality.figures import Offsets
from driftline.learner.registry import build_saved, warm_up
from driftline.learner.serving.publishing import Newest
from driftline.stream.errors import BeginAnew, DriftlineError


class FollowedModel:
    """A model, and up to where it is. One thread.

    Parameters
    ----------
    manifest, state : of a checkpoint of a journal in the log; they are kept

    Raises
    ------
    ConfigError : the model is of another library, and that was not allowed.
    StateError : they do not fit together.
    """

    def __init__(self, manifest: Manifest, state: State, *, allow_pickle: bool = False) -> None:
        assert manifest.journal is not None, "it belongs to a journal"
        warm_up(manifest.config["classifier"])
        self.classifier = build_saved(manifest.config, allow_pickle=allow_pickle)
        self.classifier.load_state(state, manifest.labels)
        self.manifest, self.topics = manifest, manifest.rules.topics
        self.batch, self.epoch = manifest.batch, manifest.epoch
        self._positions = by_partition(manifest.positions)
        self.counts = manifest.counts
        self._versions = Versions(manifest.lineage, manifest.journal.lineage, self.counts.updates)

    @property
    def version(self) -> str:
        """Which model this is."""
        return self._versions.at(self.counts.updates)

    @property
    def positions(self) -> Offsets:
        """The next offset of each partition."""
        return by_topic(self._positions)

    @property
    def feedback_offsets(self) -> dict[str, int]:
        """The next offset of each partition of the labels."""
        return self.positions.get(self.topics.feedback, {})

    def newest(self, why_not: str) -> Newest:
        """Return the model as readers may see it."""
        return Newest(self.classifier, self.version, self.counts.updates, self.counts.labels_learned, why_not)

    def renew(self, claim: Claim) -> None:
        """Give the models of all that is learned from now on another lineage; this one keeps its name."""
        self.epoch = claim.epoch
        if claim.lineage != self._versions.after:
            self._versions = Versions(self.version.rpartition("-")[0], claim.lineage, self.counts.updates)

    def learn(self, entry: Batch) -> None:
        """Learn what was learned in a batch.

        Raises
        ------
        BeginAnew : it does not follow from what is here, which is of no use any more.
        """
        learned = sum(len(lesson.targets) // 4 for lesson in entry.lessons)
        if self.counts.updates + learned != entry.updates:
            raise BeginAnew(
                f"batch {entry.batch} is about a model that has learned {entry.updates:,} labels; here it would be "
                f"{self.counts.updates + learned:,}"
            )
        try:
            for _ in self._teach(entry):
                pass
        except DriftlineError as error:
            raise BeginAnew(f"batch {entry.batch} cannot be learned by the model here: {error}") from error
        self.batch = entry.batch
        self.counts.updates, self.counts.labels_learned = entry.updates, entry.labels_learned
        self._positions.update((span.partition, span.end) for span in entry.spans_of(self.topics))

    def _teach(self, entry: Batch) -> Iterator[int]:
        return teach(self.classifier, entry.lessons)

    def digest(self) -> str:
        """Return the SHA-256 of the model's file, as a checkpoint has it. Costs a read of all its memory."""
        return sha256(lay_out(self.classifier.state()))
