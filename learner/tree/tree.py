"""How does a decision tree learn from one text at a time?

A Hoeffding tree on the presence of words, over models that all leaves share: a leaf starts from the shared naive Bayes
and linear models, learns where its own texts depart from them, and predicts with whichever has been best there. So it
is good from its first text, where a tree whose leaves start from nothing is not. Memory is what `memory_mb` says, from
the start and for good: where leaves do not fit, the least promising are closed. Read layout.py (the memory),
growth.py (splits), leaf.py (predictions) and kernel.py (the way of a text) in this order.
One thread at a time may use an object; its kernel holds no GIL.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from driftline.learner.explain.explain import Step
from driftline.learner.explain.parts import Hashed, Part
from driftline.learner.explain.rows import LANES, MOST_CLEARED, slots_of
from driftline.learner.explain.sketch import Sketch, new_sketch, sketch_of, sketch_state
from driftline.learner.explain.traced import Feature
from driftline.learner.models.classifier import Call, Compiled, Scores, State, options_set, spec_of
from driftline.learner.models.rehearsal import (
    NAMES,
    Rehearsal,
    Rows,
    check_rehearse,
    forget,
    new_rehearsal,
    rehearsal_of,
    rehearsal_state,
)
from driftline.learner.text.features import TextSettings, buffer_bytes, imprint, kernel_inputs, text_buffers
from driftline.learner.text.hashes import HALF
from driftline.learner.tree.kernel import score_and_learn
from driftline.learner.tree.layout import (
    ADAPTIVE,
    COUNTER,
    LINK,
    N_ROWS,
    N_VALUES,
    PREDICTOR,
    VALUE,
    Memory,
    Options,
    Work,
)
from driftline.learner.tree.part import path, tree_part
from driftline.stream.errors import ConfigError, StateError

LEAVES: Final = {
    "adaptive": ADAPTIVE,
    "majority": PREDICTOR.MAJORITY,
    "bayes": PREDICTOR.LEAF_BAYES,
    "linear": PREDICTOR.LEAF_LINEAR,
    "mix": PREDICTOR.LEAF_MIX,
}
CRITERIA: Final = ("gain", "gini")
BLOCK_SIZE: Final = 2048  # (word, label) pairs that an open leaf has room for
NODES_PER_BLOCK: Final = 4  # closed leaves and inner nodes are nodes too
MIB: Final = 1 << 20


@dataclass(frozen=True, kw_only=True)
class TreeSettings(TextSettings):
    """Options of `tree`. The defaults were chosen over six streams at once, none of them tuned for alone."""

    chars_max: int = 4
    max_chars: int = 2048
    tail_chars: int = 1024  # the ends of a long text tell as much as its first 8,192 characters
    bits: int = 22  # the shared linear model has 2**bits slots of 8 bytes, naive Bayes half as many of 4
    memory_mb: float = 64.0  # MiB, of everything; what the shared models leave is the tree's
    rate: float = 0.5  # of the shared linear model
    leaf_rate: float = 0.1  # of a leaf's corrections to it
    mix_rate: float = 0.01  # of the weights with which a leaf mixes its predictors
    chars_weight: float = 0.4
    decay: float = 1e-4
    forgetting: float = 5e-5  # of naive Bayes: by how much less each earlier example counts
    leaf: str = "adaptive"
    criterion: str = "gain"
    grace_period: float = 200.0  # examples at a leaf between two attempts to split it
    delta: float = 1e-7  # significance: the chance that a split is on the wrong word
    tau: float = 0.2  # tie threshold
    max_depth: int = 20
    rehearse: int = 4096  # texts that are kept, for when labels come in runs
    drift: bool = True  # let a branch whose errors rise be challenged by an alternate
    max_labels: int = 1000

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        super().__post_init__()
        limit = 1 << min(max(self.bits - 2, 0), 62)
        for ok, name, allowed in (
            (8 <= self.bits <= 30, "bits", "8 to 30"),
            (1 <= self.max_labels <= limit, "max_labels", f"with bits={self.bits} 1 to {limit}"),
            (0 < self.rate <= 10, "rate", "above 0 and at most 10"),
            (0 <= self.leaf_rate <= 10, "leaf_rate", "0 to 10"),
            (0 <= self.mix_rate <= 1, "mix_rate", "0 to 1"),
            (0 < self.chars_weight <= 10, "chars_weight", "above 0 and at most 10"),
            (0 <= self.decay < 1, "decay", "0 or more and under 1"),
            (0 <= self.forgetting <= 0.001, "forgetting", "0 to 0.001"),
            (self.leaf in LEAVES, "leaf", f"one of {', '.join(LEAVES)}"),
            (self.criterion in CRITERIA, "criterion", f"one of {', '.join(CRITERIA)}"),
            (self.grace_period >= 1, "grace_period", "1 or more"),
            (0 < self.delta < 1, "delta", "between 0 and 1"),
            (self.tau >= 0, "tau", "0 or more"),
            (0 <= self.max_depth <= 1000, "max_depth", "0 to 1000"),
            (0 < self.memory_mb <= 1 << 20, "memory_mb", f"above 0 and at most {1 << 20}"),
        ):
            if not ok:
                raise ConfigError(f"{name}={getattr(self, name)}: it must be {allowed}")
        check_rehearse(self.rehearse)
        if self.n_blocks < 2:
            least = (self._fixed_bytes() + 2 * self._block_bytes()) / MIB
            raise ConfigError(
                f"memory_mb={self.memory_mb}: with bits={self.bits} and max_labels={self.max_labels} "
                f"it must be {least:.1f} at least"
            )

    @property
    def n_blocks(self) -> int:
        """How many leaves can be open."""
        return int((self.memory_mb * MIB - self._fixed_bytes()) // self._block_bytes())

    def _block_bytes(self) -> int:
        node = 4 * len(LINK) + 4 + 8 * N_VALUES
        return BLOCK_SIZE * (8 + 12) + self.max_labels * 8 + 4 + NODES_PER_BLOCK * node

    def _fixed_bytes(self) -> int:
        shared = (1 << self.bits) * 9 + (1 << (self.bits - 1)) * 4 + self.max_labels * 17 + len(COUNTER) * 8 + 8
        work = self.max_labels * (4 * N_ROWS + 8) + (self.max_features + 1) * 16 + BLOCK_SIZE * 2 * 28
        work += 3 * 4 * (self.max_features + 1 + LANES)
        rehearsal = sum(array.nbytes for array in new_rehearsal(self.rehearse, self.bits, self.max_labels))
        return shared + work + rehearsal + buffer_bytes(self)


def new_memory(settings: TreeSettings) -> Memory:
    """Return a tree of one open leaf, and shared models that know nothing."""
    n_labels, n_blocks = settings.max_labels, settings.n_blocks
    n_nodes = NODES_PER_BLOCK * n_blocks
    memory = Memory(
        slots=np.zeros((1 << settings.bits, 2), np.float32),
        frequencies=np.zeros(1 << (settings.bits - 1), np.float32),
        totals=np.zeros((n_labels, 2), np.float64),
        known=np.zeros(n_labels, np.uint8),
        counters=np.zeros(len(COUNTER), np.int64),
        unit=np.ones(1, np.float64),
        links=np.zeros((n_nodes, len(LINK)), np.int32),
        features=np.zeros(n_nodes, np.uint32),
        values=np.zeros((n_nodes, N_VALUES), np.float64),
        keys=np.zeros((n_blocks, BLOCK_SIZE), np.uint64),
        entries=np.zeros((n_blocks, BLOCK_SIZE, 3), np.float32),
        leaf_totals=np.zeros((n_blocks, n_labels, 2), np.float32),
        owners=np.zeros(n_blocks, np.int32),
    )
    memory.links[0, LINK.BLOCK] = memory.links[0, LINK.USED] = memory.owners[0] = 1
    memory.values[0, VALUE.LOSSES : VALUE.LOSSES + len(PREDICTOR)] = 1
    # Of the shared mixture: shares of labels, naive Bayes, linear.
    memory.values[0, VALUE.MIX : VALUE.MIX + 3] = 0.0, 0.4, 0.8
    return memory


def new_work(settings: TreeSettings) -> Work:
    """Return what the kernel works with."""
    return Work(
        rows=np.zeros((N_ROWS, settings.max_labels), np.float32),
        features=np.zeros((2, settings.max_features), np.uint32),
        bases=np.zeros(settings.max_features + 1, np.uint32),
        planes=np.zeros((3, settings.max_features + 1 + LANES), np.float32),
        tokens=np.zeros(settings.max_features, np.uint32),
        products=np.zeros(settings.max_labels, np.float64),
        found=np.zeros(2 * BLOCK_SIZE, np.uint32),
        sums=np.zeros((2 * BLOCK_SIZE, 3), np.float64),
    )


class Tree(Compiled):
    """A Hoeffding tree on hashed words, its leaves over shared naive Bayes and linear models."""

    tables = frozenset({"slots", "frequencies", "keys", "entries", "leaf_totals", "sketch"})
    steps = NAMES
    gives_places = True

    settings: TreeSettings
    _sketch: Sketch
    _rehearsal: Rehearsal

    def __init__(self, settings: TreeSettings | None = None) -> None:
        self.settings = settings = settings or TreeSettings()
        self.spec = spec_of("tree", options_set(settings))
        self._set_labels([], settings.max_labels)
        self._memory = new_memory(settings)
        self._work = new_work(settings)
        self._sketch = new_sketch((1 << settings.bits) - 2 * settings.max_labels)
        self._rehearsal = new_rehearsal(settings.rehearse, settings.bits, settings.max_labels)
        self._buffers = text_buffers(settings)
        self._options = Options(
            rate=np.float32(settings.rate),
            leaf_rate=np.float32(settings.leaf_rate),
            mix_rate=np.float32(settings.mix_rate),
            chars_value=np.float32(settings.chars_weight),
            kept=np.float32(1 - settings.decay),
            growth=1.0 + settings.forgetting,
            leaf=LEAVES[settings.leaf],
            gini=CRITERIA.index(settings.criterion),
            grace_period=float(settings.grace_period),
            delta=float(settings.delta),
            tau=float(settings.tau),
            max_depth=settings.max_depth,
            drift=int(settings.drift),
        )

    @property
    def n_refused(self) -> int:
        """How many texts were not learned: their weight was no weight, or a score not finite (damaged slots)."""
        return int(self._memory.counters[COUNTER.REFUSED])

    @property
    def n_bytes(self) -> int:
        """How much memory the model and its work space take."""
        arrays: list[NDArray[Any]] = [*self._memory, *self._sketch, *self._rehearsal, *self._work]
        return sum(array.nbytes for array in arrays) + buffer_bytes(self.settings)

    def call_rows(self, texts: Sequence[str], rows: Rows, scores: Scores) -> Call:
        """Return the kernel and its arguments; see `Compiled`."""
        return score_and_learn, (
            *kernel_inputs(texts, rows.targets, rows.weights, self.settings, self._buffers),
            (rows.slots, rows.steps, self._rehearsal),
            self._options,
            self._memory,
            self._work,
            self._sketch,
            scores,
        )

    def config(self) -> dict[str, Any]:
        """Return every setting: what stands in a checkpoint must not change with the defaults of a later version."""
        return {"classifier": "tree", **asdict(self.settings)}

    def state(self) -> State:
        """Return the model's own arrays."""
        return {**self._memory._asdict(), **sketch_state(self._sketch), **rehearsal_state(self._rehearsal)}

    def load_state(self, state: State, labels: Sequence[str]) -> None:
        """Take over arrays, copying only those that are not laid out as the kernel needs them."""
        taken = self._checked(state, labels)
        memory = Memory(**{name: taken[name] for name in Memory._fields})
        check_links(memory)
        self._memory, self._sketch = memory, sketch_of(taken)
        self._rehearsal = rehearsal_of(taken, self._rehearsal)
        self._set_labels(labels, self.max_labels)

    def imprint(self, text: str) -> NDArray[np.uint32]:
        """Return what `clear` has to know of a text; see `Classifier`."""
        return imprint(text, self.settings, MOST_CLEARED)

    def clear(self, column: int, imprints: Sequence[NDArray[np.uint32]]) -> None:
        """Make a label unknown; see `Classifier`. Its keys stay in the leaves, counted 0: others take their place."""
        memory = self._memory
        for each in imprints:
            memory.slots[column + slots_of(each[1:], len(memory.slots), self.max_labels)] = 0
            tokens = each[1 : 1 + int(each[0])].astype(np.uint64)
            places = column + (tokens * np.uint64(len(memory.frequencies) - self.max_labels) >> HALF).astype(np.int64)
            memory.counters[COUNTER.N_SLOTS_USED] -= np.count_nonzero(memory.frequencies[np.unique(places)])
            memory.frequencies[places] = 0
        memory.entries[(memory.keys & np.uint64(0xFFFF_FFFF)) == column + 1] = 0
        memory.leaf_totals[:, column] = 0
        memory.totals[column] = 0
        memory.known[column] = 0
        forget(self._rehearsal, column)

    def part(self, hashed: Hashed) -> Part:
        """Return the scores of labels by the predictor that the text's leaf uses."""
        return tree_part(self._memory, self._options, self.max_labels, hashed)

    def path(self, features: Sequence[Feature]) -> list[Step]:
        """Return the questions on the text's way to its leaf."""
        return path(self._memory, features)

    def _reach(self, feature: Feature) -> int:
        """Return as `Classifier` says; naive Bayes, on words and pairs, has half of the places."""
        return len(self.labels) * (2 if feature.kind != "chars" else 1)


def check_links(memory: Memory) -> None:
    """Refuse links that lead nowhere or in a circle: the kernel follows them unchecked. Raises StateError."""
    links, owners = memory.links, memory.owners
    n_nodes, n_blocks = len(links), len(owners)
    columns = [LINK.PARENT, LINK.PRESENT, LINK.ABSENT, LINK.ALTERNATE]
    ok = bool((links >= 0).all() and (links[:, columns] < n_nodes).all() and (links[:, LINK.BLOCK] <= n_blocks).all())
    ok = ok and bool((owners >= 0).all() and (owners <= n_nodes).all())
    if ok:
        inner = np.flatnonzero(links[:, LINK.PRESENT] | links[:, LINK.ABSENT])
        for column in (LINK.PRESENT, LINK.ABSENT):  # children are one deeper, so that there is no way round
            child = links[inner, column]
            ok = ok and bool((child > 0).all() and (links[child, LINK.PARENT] == inner).all())
            ok = ok and bool((links[child, LINK.DEPTH] == links[inner, LINK.DEPTH] + 1).all())
        owned = np.flatnonzero(owners)
        ok = ok and bool((links[owners[owned] - 1, LINK.BLOCK] == owned + 1).all())
        ok = ok and len(owned) == np.count_nonzero(links[:, LINK.BLOCK])
    if not ok:
        raise StateError("tree: arrays 'links' and 'owners' do not fit each other; the state is damaged")
