"""Every error that Driftline raises on purpose.

    DriftlineError
    ├── ConfigError          an option cannot be meant as it stands
    ├── NotInstalled         what is asked for is not there, only the client is; an ImportError, too
    ├── LogError             the log did not do what was asked
    │   ├── LogUnavailable   it may later: try again
    │   │   └── LogDenied    not before someone mends the user, the password or the rights
    │   ├── OffsetsLost      records that were to be read are gone
    │   ├── RecordsLost      the same, counted: what to do about it is for a person to say
    │   └── TopicMismatch    a topic is not laid out as it must be
    ├── StateError           the data directory cannot be used as it stands
    │   ├── Overtaken        another learner has taken over the directory: nothing may be written any more
    │   ├── BeginAnew        what is in memory is of no use any more: go on from what is durable
    │   ├── DiskFull         there is no room: nothing was written, the same call may succeed later
    │   ├── NotFinite        a model holds numbers that are none: it must not be served
    │   └── SyncFailed       the disk did not confirm a write: the process must end
    ├── StoreError           the store of checkpoints did not do what was asked
    │   ├── StoreUnavailable it may later: try again
    │   │   └── StoreDenied  not before someone mends the key, the right or the bucket
    │   ├── StoreDamaged     a checkpoint in it is not whole, or not what it was
    │   └── StoreTaken       a later learner's checkpoints are there: nothing may be put beside them
    ├── TooManyDeadLetters   most of what comes cannot be read: a person has to look
    └── BadRecord            one record cannot be read; it becomes a Rejected

A message says what was wrong, where (topic, partition, offset, file, option) and what to do next.
"""


class DriftlineError(Exception):
    """Anything that Driftline refuses; the command line prints it without a traceback, and ends with `exit_code`."""

    exit_code = 1


class ConfigError(DriftlineError):
    """An option, variable or file entry that cannot be meant as it stands."""


class NotInstalled(DriftlineError, ImportError):
    """Only the client is installed, and more was asked for; the message says how to get it."""


class LogError(DriftlineError):
    """The log did not do what was asked."""


class LogUnavailable(LogError):
    """The log cannot be reached or written just now; the same call may succeed later."""


class LogDenied(LogUnavailable):
    """The brokers refuse this user, password or right; waiting does not mend that."""


class OffsetsLost(LogError):
    """Records from `wanted` on were to be read, but the log begins at `low` or ends at `high`."""

    def __init__(self, topic: str, partition: int, wanted: int, low: int, high: int) -> None:
        self.topic, self.partition, self.wanted, self.low, self.high = topic, partition, wanted, low, high
        if wanted < low:
            what = f"{low - wanted} records ({wanted} to {low - 1}) are gone: the log now begins at {low}"
        else:
            what = f"the log ends at {high}: the topic was truncated or made again"
        super().__init__(f"{topic}[{partition}]: the next offset to read is {wanted}, but {what}")


class RecordsLost(LogError):
    """The log no longer has what the learner goes by; the message has each range, its count, and why."""


class TopicMismatch(LogError):
    """A topic exists, but not as Driftline needs it."""


class StateError(DriftlineError):
    """The data directory is in use, damaged, or of another format."""


class Overtaken(StateError):
    """Another learner has taken over the data directory: this process must write nothing any more, and end."""

    exit_code = 3


class BeginAnew(StateError):
    """What is in memory is of no use any more: go on from what is durable."""


class DiskFull(StateError):
    """There is no room for a file. What was there before is whole; the same call may succeed later."""


class NotFinite(StateError):
    """A model has gone wrong: a number in it is infinite or none. What was published before is served on."""


class SyncFailed(StateError):
    """An fsync failed. Nobody knows what is on the disk now, and a second try would not tell: the process must end."""


class StoreError(DriftlineError):
    """The store of checkpoints did not do what was asked. No message has a key, a password or a signature."""


class StoreUnavailable(StoreError):
    """The store cannot be reached or written just now; the same call may succeed later."""


class StoreDenied(StoreUnavailable):
    """The store refuses this key or right, or there is no such bucket; waiting does not mend that."""


class StoreDamaged(StoreError):
    """A checkpoint in the store lacks a file, or has one that is not as it was put there. Others may be whole."""


class StoreTaken(StoreError):
    """The store has checkpoints of a later learner, or of another one of the same epoch. Nothing was put there."""


class TooManyDeadLetters(DriftlineError):
    """Too large a share of the records cannot be read. None of them was taken; the message says what they are."""


class BadRecord(DriftlineError):
    """A record that cannot be read. `error` is a short code, `detail` a sentence."""

    def __init__(self, error: str, detail: str) -> None:
        super().__init__(f"{error}: {detail}")
        self.error, self.detail = error, detail
