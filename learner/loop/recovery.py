"""How does a learner get from a checkpoint to where it was?

a, b and c of the recovery (loop/loop.py): what the log still has of what came after the checkpoint is counted, then
applied again in the journals' order, and what may not have been sent is sent again, with the same content. Nothing here
is written to the disk. Where there is no checkpoint it begins with a model that has learned nothing.
"""

import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from driftline.learner.disk import checkpoint as checkpoints
from driftline.learner.disk import journal as journals
from driftline.learner.disk.checkpoint import FORMAT, Checkpoint, Manifest, by_partition, by_topic
from driftline.learner.disk.journal import Applied
from driftline.learner.disk.losses import Loss
from driftline.learner.disk.positions import Shortfall, Standing, Stock, compare, reached
from driftline.learner.disk.settings import DEFAULT_MODEL, LearnerSettings, Rules
from driftline.learner.foreign.model_file import DIGEST
from driftline.learner.loop import warm
from driftline.learner.machine.machine import Machine
from driftline.learner.machine.outputs import Outputs
from driftline.learner.machine.restore import clock_of, clocks_of, marks, restore
from driftline.learner.quality.alarms import log_alarms
from driftline.learner.registry import as_of_today, make_classifier, warm_up
from driftline.learner.state.outbox import Outbox
from driftline.learner.state.state import LearnerState
from driftline.stream.errors import ConfigError, LogUnavailable, StateError
from driftline.stream.log.base import Log, TopicPartition, TopicState
from driftline.stream.log.clock import Clock
from driftline.stream.log.merge import Merger
from driftline.stream.process.settings import StreamSettings

POLL_S: Final = 0.05
TRIES: Final = 5
START_S: Final = 10.0  # how long brokers may take to elect leaders
_LOG: Final = logging.getLogger(__name__)


class Recovered(NamedTuple):
    """A checkpoint's work, and what is to be applied again behind it."""

    work: LearnerState
    stock: Stock
    todo: list[Applied]  # without what the log no longer has


def check_model(newest: Checkpoint | None, stream: StreamSettings, settings: LearnerSettings) -> None:
    """Refuse to go on with another model than what was asked for. Raises ConfigError."""
    asked = settings.model
    if newest is None or not asked:
        return
    wanted, held = (
        make_classifier(asked, allow_pickle=stream.allow_pickle).config(),
        as_of_today(newest.manifest.config),
    )
    for setting in ("hashing", "text.hashing", "rehearse"):  # the newest rules are for new models
        if setting in held and f"{setting.removeprefix('text.')}=" not in asked:
            wanted[setting] = held[setting]
    if wanted.get("vectors_sha256") and wanted["vectors_sha256"] == held.get("vectors_sha256"):
        wanted["vectors"] = held["vectors"]  # the same file, wherever it was named
    if wanted.get("embed_sha256") and wanted["embed_sha256"] == held.get("embed_sha256"):
        # Likewise; whether it gives the same vectors here is said where it is opened, and more clearly.
        wanted |= {name: held[name] for name in ("embed", "embed_made_by")}
    if wanted != held:
        others = {"vectors", "vectors_sha256", "dimension", "embed", "embed_sha256", "embed_made_by", "embed_rate"}
        if wanted.keys() == held.keys() and {name for name in wanted if wanted[name] != held[name]} <= others:
            raise ConfigError(
                f"model: {stream.data} holds a model with {_vectors(held)}, and {asked!r} asks for one with "
                f"{_vectors(wanted)}. Leave --model out to go on with it as it is, build it anew with `driftline "
                "rebuild --model`, or give the new one a --data directory of its own"
            )
        if DIGEST in wanted and wanted["classifier"] == held["classifier"] and wanted[DIGEST] != held[DIGEST]:
            raise ConfigError(
                f"model: the file of {asked!r} has changed: {stream.data} holds a model by SHA-256 "
                f"{held[DIGEST][:16]}, the file is now {wanted[DIGEST][:16]}. Leave --model out to go on with the "
                "model as it was (it has its own copy of the file), build it anew by the new file with "
                "`driftline rebuild --model`, or give the new one a --data directory of its own"
            )
        raise ConfigError(
            f"model: {stream.data} holds a model {newest.manifest.model!r}, not {asked!r}; "
            "leave --model out to go on with it, or give the new one a --data directory of its own"
        )


def _vectors(config: Mapping[str, Any]) -> str:
    """Return which vectors a model goes by."""
    if sha256 := config.get("embed_sha256"):
        rate = config["embed_rate"]
        often = f"{rate} texts a second" if rate else "all texts"
        return f"the sentence model in {config['embed']} (SHA-256 {sha256[:16]}, {often})"
    if dimension := config.get("dimension"):
        return f"vectors of {dimension} numbers that come with messages"
    sha256 = config["vectors_sha256"]
    return f"the word vectors in {config['vectors']} (SHA-256 {sha256[:16]})" if sha256 else "no vectors"


def rehearse(log: Log, stream: StreamSettings, settings: LearnerSettings) -> None:
    """Do all of a start that changes nothing in the data directory, beside the learner that is at work there.

    Raises what would end the start: the log does not answer, or has lost records; no checkpoint or journal can be read;
    the model cannot be built, or is another one; the options do not fit.
    """
    warm.warm_up()
    for attempt in range(TRIES):
        try:
            _rehearse(log, stream, settings)
        except (StateError, OSError):
            if attempt == TRIES - 1:
                raise
            time.sleep(POLL_S)  # what was being read may just have been replaced by a newer one
        else:
            return


def _rehearse(log: Log, stream: StreamSettings, settings: LearnerSettings) -> None:
    log.create_topics(stream.topics)
    newest = checkpoints.load_newest(stream.data / "checkpoints")
    check_model(newest, stream, settings)
    if newest is None:
        begin(log, stream, settings).close()
        return
    check_topics(newest, stream)
    applied = journals.read_since(stream.data / "journal", newest.manifest.batch)
    restored(newest, applied, log, stream, settings).work.close()


def check_journal(newest: Checkpoint, stream: StreamSettings, settings: LearnerSettings) -> None:
    """Refuse to have one of several learners go on alone, where nobody said so. Raises ConfigError."""
    if newest.manifest.journal is not None and settings.journal is None:
        raise ConfigError(
            f"journal: {stream.data} holds the state of one of several learners, who keep their journal in the log; "
            "start it with --journal log and --checkpoints, or with --journal disk, to go on alone, for good"
        )


def check_spec(asked: str, stream: StreamSettings) -> None:
    """Refuse a model that nobody has. Raises ConfigError."""
    try:
        make_classifier(asked, allow_pickle=stream.allow_pickle)
    except ConfigError as error:
        raise ConfigError(f"model: {error}") from None


def check_topics(newest: Checkpoint, stream: StreamSettings) -> None:
    """Refuse to go on from other topics than were learned from. Raises ConfigError."""
    learned_from, now = newest.manifest.rules.topics, stream.topics
    if learned_from != now:
        raise ConfigError(
            f"prefix: {stream.data} was learned from {learned_from.messages} and {learned_from.feedback}, "
            f"not from {now.messages} and {now.feedback}; set the prefix back, or use another --data directory"
        )


def begin(log: Log, stream: StreamSettings, settings: LearnerSettings) -> LearnerState:
    """Return work with a model that has learned nothing, at the first records that there are."""
    classifier = make_classifier(settings.model or DEFAULT_MODEL, allow_pickle=stream.allow_pickle)
    warm_up(classifier.config()["classifier"])
    machine = Machine(rules(settings, stream, log), classifier, new_lineage())
    known = describe(log, stream.topics[:2])
    positions = {partition: mark.low for partition, mark in marks(known).items()}
    work = _work(log, machine, known, positions, {}, Clock(), delivered=0)
    work.begun = by_topic(positions)
    return work


def restored(
    newest: Checkpoint, applied: list[Applied], log: Log, stream: StreamSettings, settings: LearnerSettings
) -> Recovered:
    """Return a checkpoint's work, which may keep parts of it.

    Parameters
    ----------
    applied : what the journals say that was applied since

    Raises
    ------
    RecordsLost : the log no longer has all of that, or of what comes next, and that was not accepted.
    ConfigError : the model is of another library, and that was not allowed.
    LogUnavailable : its topics cannot be looked at.
    """
    manifest = newest.manifest
    known = describe(log, stream.topics[:2])
    stock = take_stock(manifest, applied, known, accept_loss=settings.accept_loss)
    todo = [stock.clip(each) for each in applied]
    machine = restore(newest, allow_pickle=stream.allow_pickle)
    if todo != applied or (todo and manifest.format != FORMAT):
        # Versions that were published stand for models that this replay does not give again: others need other names.
        # An older version joined by other rules.
        todo = [each._replace(lineage="") for each in todo]
        machine.renew(new_lineage())
    # All before a checkpoint is delivered once that is on the disk; its journal began before that.
    delivered = max([manifest.batch, *(each.delivered for each in todo)])
    work = _work(log, machine, known, stock.positions, clocks_of(manifest), clock_of(manifest), delivered)
    work.batch, work.losses, work.rebuilt = manifest.batch, manifest.losses, manifest.rebuilt
    work.begun, work.erased = manifest.begun, manifest.erased
    return Recovered(work, stock, todo)


def _work(
    log: Log,
    machine: Machine,
    known: Mapping[str, TopicState],
    positions: Mapping[TopicPartition, int],
    clocks: Mapping[TopicPartition, Clock],
    clock: Clock,
    delivered: int,
) -> LearnerState:
    readers = [
        log.reader({partition: at for partition, at in positions.items() if partition.topic == topic})
        for topic in reversed(machine.rules.topics[:2])  # labels first: their messages are there when those are read
    ]
    # Half of the time for which messages and labels wait for one another: a broker that is away makes none too late.
    ahead_ms = machine.rules.limits.age_ms / 2
    merger = Merger(readers, positions, clocks, machine.rules.clock, clock, ahead_ms=ahead_ms)
    return LearnerState(machine=machine, readers=readers, merger=merger, outbox=Outbox(log, delivered), known=known)


def describe(log: Log, topics: Sequence[str]) -> Mapping[str, TopicState]:
    """Return topics as they are, once all are there and have a leader. Raises LogUnavailable."""
    deadline = time.monotonic() + START_S
    while True:
        try:
            found = log.describe(topics)
            if len(found) == len(topics):
                break
            raise LogUnavailable(f"{' or '.join(topics)} was deleted just now; start again")
        except LogUnavailable:
            if time.monotonic() > deadline:
                raise
        time.sleep(POLL_S)
    if None in (state.identity for state in found.values()):
        _LOG.warning("the log gives its topics no ids: that one was made again shows only where it is shorter")
    return found


def check_unchanged(log: Log, known: Mapping[str, TopicState]) -> None:
    """Refuse what was replayed from a topic that was made again meanwhile. Raises LogUnavailable."""
    now = describe(log, list(known))
    if any(state.identity != known[topic].identity for topic, state in now.items()):
        raise LogUnavailable("a topic was made again during the recovery; start again")


def take_stock(
    manifest: Manifest, todo: Sequence[Applied], log: Mapping[str, TopicState], *, accept_loss: bool
) -> Stock:
    """Compare a checkpoint, and the journal after it, with the log.

    Raises
    ------
    RecordsLost : something is gone, and that was not accepted.
    """
    held = by_partition(manifest.positions)
    standing = Standing(held, reached(held, todo), by_partition(manifest.ends), manifest.identities)
    stock = compare(standing, log)
    if not accept_loss:
        stock.refuse()
    return stock


def replay(
    recovered: Recovered, *, accept_loss: bool, on_batch: Callable[[], None], on_wait: Callable[[], None]
) -> None:
    """Apply batches again, and send what may not be delivered. What is missing is added to the stock's losses.

    Parameters
    ----------
    on_batch : called once each batch was applied
    on_wait : called while the log gives nothing, or takes no more in

    Raises
    ------
    RecordsLost : that was not accepted. Nothing that comes of it was sent; all of it is counted first.
    """
    work, stock, todo = recovered
    outbox, delivered = work.outbox, work.outbox.delivered
    replaying = Replay(work, accept_loss=accept_loss)
    for applied in todo:
        outputs = replaying.apply(applied, on_wait)
        if outputs is None:
            continue
        if applied.batch > delivered:
            while outbox.full:
                outbox.wait(POLL_S)
                on_wait()
            outbox.send(applied.batch, outputs)
            log_alarms(work.machine.raised if outputs else [])
        on_batch()
    stock.losses.extend(replaying.losses)
    if not accept_loss:
        stock.refuse()


class Replay:
    """Applies batches of a journal again, one after another. One thread.

    Parameters
    ----------
    accept_loss : whether to go on where the log has fewer of their records than it had
    """

    def __init__(self, work: LearnerState, *, accept_loss: bool) -> None:
        self._work, self._accept_loss = work, accept_loss
        self._short = Shortfall()
        self._known = True  # whether the models are those that were published

    @property
    def losses(self) -> list[Loss]:
        """What the log had fewer of."""
        return self._short.losses()

    def apply(self, applied: Applied, on_wait: Callable[[], None]) -> Outputs | None:
        """Apply a batch and return what is to be sent; None where it was left out: records are lost, not accepted.

        `on_wait` is called while the log gives nothing.
        """
        work, machine = self._work, self._work.machine
        if applied.rules != machine.rules:
            work.obey(applied.rules)
        batch = work.merger.take_spans(applied.spans, lambda _: on_wait())
        if self._short.add(applied.spans, batch.spans):
            self._known = False
            machine.renew(new_lineage())  # as where spans are left out
        elif self._known and applied.lineage:
            machine.renew(applied.lineage)
        if self.losses and not self._accept_loss:
            return None
        outputs = machine.apply(batch) if len(batch) else {}
        work.batch = applied.batch
        return outputs


def rules(
    settings: LearnerSettings, stream: StreamSettings, log: Log, before: Rules | None = None, stands_in: bool = False
) -> Rules:
    """Return the rules to go by; who only stands in goes by those of before, but for what follows from the version."""
    of_today = settings.rules(stream, log.partition_count(stream.topics.messages))
    if before is None or not stands_in:
        return of_today
    names = "partitions", "one_form", "reading", "only_votes", "quota_by_name", "corrects_expired"
    return msgspec.structs.replace(before, **{name: getattr(of_today, name) for name in names})


def new_lineage() -> str:
    """Return a name for models that none had before."""
    return uuid.uuid4().hex[:8]
