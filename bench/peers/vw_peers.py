"""Vowpal Wabbit 9: one against all under the logistic loss, so that it gives probabilities.

2**22 weights, as many as our own models have by default. The plain peers get lower-cased words, their pairs, and
n-grams of characters inside words, at the default rate; `vw-rich` gets all that rich.py makes, or the plain groups of
it, with pairs of words and of tokens, at the rate that is asked for, or with none by `rate=coin`; `vw-hinge` the same
under the hinge loss, which gives no probabilities. It adds up a feature that comes more than once; where it is to
count once, its pairs are made here. How many labels there will be must be named at the start. From Python an example is
parsed once, then learned; the prediction is the one from before the update. The driver is the same program reading a
file by itself, in C++.

`vw-fields` gets the fields of a text, too, each in a namespace of its own: of a string the whole and its words, with
their pairs; a number as it is, or its logarithm. Namespaces may be crossed with the text's words (`-q`).
"""

from __future__ import annotations

import math
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Sequence

import pylibvw  # the compiled part of vowpalwabbit
import vowpalwabbit

from bench.peers.fielded import apart
from bench.peers.protocol import PATIENCE, Answers, Peer, Rows
from bench.peers.rich import rich, valued, with_pairs

BITS = 22
_WORD = re.compile(r"\w+")


def words(text: str) -> str:
    """Return a namespace of words."""
    return "|w " + " ".join(_WORD.findall(text.lower()))


def words_and_characters(text: str) -> str:
    """Return a namespace of words and one of character 3- to 5-grams inside word boundaries."""
    grams: list[str] = []
    for word in _WORD.findall(text.lower()):
        padded = f"_{word}_"
        for n in (3, 4, 5):
            grams += [padded[i : i + n] for i in range(len(padded) - n + 1)]
    return f"{words(text)} |c {' '.join(grams)}"


# What would end a name: a colon begins a value, a bar a namespace, a space the next feature.
_INSTEAD = ((" ", "_"), (":", "\u2236"), ("|", "\u2223"), ("\0", " "))


def all_groups(text: str, grams: str, groups: str, values: str) -> str:
    """Return a namespace for each group of rich.py, with pairs where a feature that comes twice is to count once."""
    found = zip("wtcs", rich(text, grams, groups))
    if values == "sum":
        return " ".join(f"|{group} {_names(names)}" for group, names in found)
    return " ".join(
        f"|{group} {_names(list(valued(with_pairs(names) if group in 'wt' else names, values)))}"
        for group, names in found
    )


def _names(names: Sequence[str]) -> str:
    joint = "\0".join(names)
    for what, instead in _INSTEAD:
        joint = joint.replace(what, instead)
    return joint


def options(ngram: int, bits: int = BITS) -> str:
    """Return the part of the command line that is the same whatever is predicted."""
    pairs = f"--ngram w{ngram}" if ngram > 1 else ""
    return f"--loss_function logistic -b {bits} {pairs}"


def one_against_all(n_labels: int) -> str:
    """Return the part of the command line that is for labels."""
    return f"--oaa {max(n_labels, 2)} --probabilities"


class VowpalWabbit(Peer):
    """Vowpal Wabbit from Python."""

    def __init__(self, n_labels: int, options: str, line: Callable[[str], str] = words) -> None:
        super().__init__(n_labels)
        self.line = line
        self.model = vowpalwabbit.Workspace(f"{one_against_all(n_labels)} {options} --quiet")

    def versions(self) -> dict[str, str]:
        """See Peer."""
        return {"vowpalwabbit": vowpalwabbit.__version__}

    def prepare(self, texts: Sequence[str], truths: Sequence[int]) -> Sequence[Any]:
        """Parse the examples, each with its label; see Peer."""
        return [self.model.parse(f"{truth + 1} {self.line(text)}") for text, truth in zip(texts, truths)]

    def predict(self, examples: Sequence[Any], truths: Sequence[int]) -> Any:
        """See Peer."""
        for example in examples:
            pylibvw.vw.predict(self.model, example)
        return [example.get_scalars() for example in examples]

    def learn(self, examples: Sequence[Any], truths: Sequence[int]) -> None:
        """Learn examples and give them back; see Peer."""
        for example in examples:
            pylibvw.vw.learn(self.model, example)
            self.model.finish_example(example)

    def predict_and_learn(self, examples: Sequence[Any], truths: Sequence[int]) -> Any:
        """Learn, and take the prediction from before the update; see Peer."""
        for example in examples:
            pylibvw.vw.learn(self.model, example)
        scores = [example.get_scalars() for example in examples]
        for example in examples:
            self.model.finish_example(example)
        return scores

    def answers(self, scores: Any, truths: Sequence[int]) -> Answers:
        """See Peer."""
        return self.from_scores([dict(enumerate(row)) for row in scores], truths)


def rich_options(rate: str, values: str, loss: str) -> str:
    """Return the part of the command line for all groups; `rate` is a number, or coin: betting, which has none."""
    step = "--coin" if rate == "coin" else f"-l {float(rate):g}"
    pairs = "--ngram w2 --ngram t2" if values == "sum" else ""
    return f"--loss_function {loss} -b {BITS} {pairs} {step}"


class Hinge(VowpalWabbit):
    """Vowpal Wabbit under the hinge loss: a label, and of the probabilities only that it is the likeliest."""

    def __init__(self, n_labels: int, options: str, line: Callable[[str], str]) -> None:
        Peer.__init__(self, n_labels)
        self.line = line
        self.model = vowpalwabbit.Workspace(f"--oaa {max(n_labels, 2)} {options} --quiet")

    def predict(self, examples: Sequence[Any], truths: Sequence[int]) -> Any:
        """See Peer."""
        for example in examples:
            pylibvw.vw.predict(self.model, example)
        return [example.get_multiclass_prediction() for example in examples]

    def predict_and_learn(self, examples: Sequence[Any], truths: Sequence[int]) -> Any:
        """Learn, and take the prediction from before the update; see Peer."""
        for example in examples:
            pylibvw.vw.learn(self.model, example)
        found = [example.get_multiclass_prediction() for example in examples]
        for example in examples:
            self.model.finish_example(example)
        return found

    def answers(self, scores: Any, truths: Sequence[int]) -> Answers:
        """See Peer."""
        return self.labels_only([label - 1 for label in scores])


class TwoLabels(VowpalWabbit):
    """Vowpal Wabbit from Python, one model for two labels, and the probability of the second."""

    def __init__(self, n_labels: int, options: str) -> None:
        Peer.__init__(self, n_labels)
        self.line = words
        self.model = vowpalwabbit.Workspace(f"--link logistic {options} --quiet")

    def prepare(self, texts: Sequence[str], truths: Sequence[int]) -> Sequence[Any]:
        """Parse the examples, each with its label; see Peer."""
        return [self.model.parse(f"{2 * truth - 1} {self.line(text)}") for text, truth in zip(texts, truths)]

    def predict_and_learn(self, examples: Sequence[Any], truths: Sequence[int]) -> Any:
        """Learn, and take the prediction from before the update; see Peer."""
        for example in examples:
            pylibvw.vw.learn(self.model, example)
        scores = [example.get_simplelabel_prediction() for example in examples]
        for example in examples:
            self.model.finish_example(example)
        return scores

    def answers(self, scores: Any, truths: Sequence[int]) -> Answers:
        """See Peer."""
        return self.from_scores([{0: 1 - p, 1: p} for p in scores], truths)


class Driver(Peer):
    """Vowpal Wabbit's own driver over a file of examples. Its time includes reading that file, as it always does.

    It parses in one thread and learns in another. On the one core that every system has, its processor time is that of
    both; with `all_cores` the figure is elapsed time, with both side by side, as its users see it.
    """

    at_once = True

    def __init__(
        self, n_labels: int, options: str, binary: bool = False, write: bool = True, all_cores: bool = False
    ) -> None:
        super().__init__(n_labels)
        self.options, self.binary, self.write, self.all_cores = options, binary, write, all_cores

    def versions(self) -> dict[str, str]:
        """See Peer."""
        return {"vowpalwabbit": vowpalwabbit.__version__}

    def run_all(self, rows: Rows, delay: int, seconds: float, patience: float = PATIENCE) -> dict[str, Any]:
        """Run the driver; the time that it takes over no examples is taken off."""
        if delay:
            raise ValueError("Vowpal Wabbit's driver learns every label at once")
        targets = [2 * label - 1 if self.binary else label + 1 for label in rows.labels]
        lines = [f"{target} {words(text)}" for text, target in zip(rows.texts, targets)]
        with tempfile.TemporaryDirectory() as folder:
            examples, answers = Path(folder, "examples"), Path(folder, "answers")
            examples.write_text("")
            written = answers if self.write else None
            start = drive(self.options, examples, patience * seconds, written, self.all_cores)
            examples.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
            taken = max(drive(self.options, examples, patience * seconds, written, self.all_cores) - start, 1e-6)
            found = answers.read_text().splitlines(keepends=True) if self.write else []
        if not self.write:
            return {**self.nothing_known(len(lines))._asdict(), "seconds": taken, "times": []}
        scores = [self._scores(line) for line in found if line.endswith("\n")]
        answer = self.from_scores(scores, rows.labels[: len(scores)])
        return {**answer._asdict(), "seconds": taken, "times": [[len(scores), taken]]}

    def _scores(self, line: str) -> dict[int, float]:
        """Return what a line of the driver's answers says, `1:0.3 2:0.7`; of two labels, how probable the second is."""
        if self.binary:
            return {0: 1 - float(line), 1: float(line)}
        pairs = (pair.split(":") for pair in line.split())
        return {int(label) - 1: float(p) for label, p in pairs}


def drive(options: str, examples: Path, seconds: float, answers: Path | None, all_cores: bool) -> float:
    """Run the driver within its limit and return how much processor time it took, or with all cores how much time.

    Raises
    ------
    subprocess.TimeoutExpired : it was not done, and there are no answers to look at.
    """
    command = [sys.executable, "-m", "vowpalwabbit", "-d", str(examples), *options.split(), "--quiet"]
    mine = os.sched_getaffinity(0)
    if all_cores:
        os.sched_setaffinity(0, range(os.cpu_count() or 1))  # what a child inherits
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    try:
        subprocess.run([*command, *(["-p", str(answers)] if answers else [])], check=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        if answers is None:
            raise
    finally:
        os.sched_setaffinity(0, mine)
    if all_cores:
        return time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _rich(n_labels: int, rate: str, grams: str = "none", groups: str = "all", values: str = "sum") -> Peer:
    made = rich_options(rate, values, "logistic")
    return VowpalWabbit(n_labels, made, lambda text: all_groups(text, grams, groups, values))


def _hinge(n_labels: int, rate: str, grams: str = "none", groups: str = "all", values: str = "sum") -> Peer:
    made = rich_options(rate, values, "hinge")
    return Hinge(n_labels, made, lambda text: all_groups(text, grams, groups, values))


_LETTERS = "ABDEFGHIJKLMNOPQRSTUVWXYZ"  # namespaces of fields, as they first come; c and w are the text's


class WithFields(VowpalWabbit):
    """Vowpal Wabbit from Python, a namespace for each field."""

    def __init__(self, n_labels: int, fields: str, rate: str, text: str, numbers: str, cross: str) -> None:
        Peer.__init__(self, n_labels)
        self.names = fields.split("+") if fields else []
        letters = _LETTERS[: len(self.names)]
        crossed = "".join(f" -q w{letter}" for letter, name in zip(letters, self.names) if name in cross.split("+"))
        pairs = "".join(f" --ngram {letter}2" for letter in letters)
        self.of_text = words_and_characters if text == "chars" else words
        self.numbers = numbers
        made = f"{options(2)}{pairs}{crossed} -l {float(rate):g}"
        self.model = vowpalwabbit.Workspace(f"{one_against_all(n_labels)} {made} --quiet")

    def line(self, whole: str) -> str:
        """Return an example without its label."""
        text, fields = apart(whole)
        parts = [self.of_text(text)]
        for letter, name in zip(_LETTERS, self.names):
            found: list[str] = []
            for value in fields.get(name, []):
                if isinstance(value, str):
                    found += ["=" + "_".join(value.split()), *_WORD.findall(value.lower())]
            numbers = [value for value in fields.get(name, []) if not isinstance(value, str)]
            if self.numbers == "log":
                numbers = [math.copysign(math.log1p(abs(value)), value) for value in numbers]
            values = "".join(f" n:{value:g}" for value in numbers)
            if found or values:
                parts.append(f"|{letter} {_names(found)}{values}")
        return " ".join(parts)


PEERS: dict[str, Callable[..., Peer]] = {
    "vw-words": lambda n: VowpalWabbit(n, options(1)),
    "vw-pairs": lambda n: VowpalWabbit(n, options(2)),
    "vw-chars": lambda n: VowpalWabbit(n, options(2), words_and_characters),
    "vw-rich": _rich,
    "vw-hinge": _hinge,
    "vw-fields": lambda n, fields="", rate="0.5", text="chars", numbers="raw", cross="": WithFields(
        n, fields, rate, text, numbers, cross
    ),
    "vw-driver": lambda n: Driver(n, f"{one_against_all(n)} {options(2)}"),
    # For speed: as many weights as `linear?bits=20` has. Two labels are one model, with `--binary` if labels are to be
    # predicted, with `--link logistic` if probabilities are. What is not written is predicted all the same.
    "vw-pairs-20": lambda n: VowpalWabbit(n, options(2, 20)),
    "vw-pairs-binary-20": lambda n: TwoLabels(n, options(2, 20)),
    "vw-driver-20": lambda n: Driver(n, f"{one_against_all(n)} {options(2, 20)}", write=False),
    "vw-driver-binary-20": lambda n: Driver(n, f"--binary {options(2, 20)}", binary=True, write=False),
    "vw-driver-binary-20-cores": lambda n: Driver(
        n, f"--binary {options(2, 20)}", binary=True, write=False, all_cores=True
    ),
    "vw-driver-binary-20-p": lambda n: Driver(n, f"--link logistic {options(2, 20)}", binary=True),
}
