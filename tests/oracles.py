"""Plain versions of the kernels: slow, short, and easy to believe. The fast ones must equal them."""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, pairwise

import numpy as np

from driftline.learner.models.bayes import BayesSettings
from driftline.learner.models.linear import LinearSettings
from driftline.learner.text.characters import APOSTROPHE, CHARACTER, IGNORED, SPACE, SYMBOL, WORD, classify, fold
from driftline.learner.text.features import TextSettings

MULTIPLIER, FINISHER, MASK = 0x9E3779B97F4A7C15, 0xFF51AFD7ED558CCD, 2**64 - 1
WORDS, PAIRS, CHARS = 0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0
TIMES = 0x3F84D5B5B5470917
CASED, SHAPE = 0x082EFA98EC4E6C89, 0x452821E638D01377


def assigned(character: str) -> bool:
    """Tell whether the running Python's Unicode, and Unicode 14 with it, has this character."""
    return unicodedata.category(character) != "Cn"


UNSEEN = (  # default ignorable (Unicode 14, DerivedCoreProperties), and tatweel
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180e\u180f\u200b\u200c\u200d\u200e\u200f"
    "\u202a\u202b\u202c\u202d\u202e\u2060\u2061\u2062\u2063\u2064\u2065\u2066\u2067\u2068\u2069\u206a\u206b"
    "\u206c\u206d\u206e\u206f\u3164\ufeff\uffa0\U0001bca0\U0001bca1\U0001bca2\U0001bca3"
    + "".join(map(chr, (*range(0xFE00, 0xFE10), *range(0xFFF0, 0xFFF9), *range(0x1D173, 0x1D17B))))
    + "".join(map(chr, range(0xE0000, 0xE1000)))
    + "\u0640"
)


def is_seen(character: str) -> bool:
    is_left_out = unicodedata.category(character) in ("Cf", "Me") or 0x1F3FB <= ord(character) <= 0x1F3FF
    return not is_left_out and character not in UNSEEN


def takes_no_marks(character: str) -> bool:
    scripts = ("LATIN ", "GREEK ", "CYRILLIC ", "ARABIC ", "HEBREW ")
    kind = unicodedata.category(character)
    is_space = kind in ("Cc", "Zs", "Zl", "Zp")
    return character.isascii() or is_space or (kind[0] == "L" and unicodedata.name(character, "").startswith(scripts))


def normal(text: str) -> str:
    """Return a text in the one form in which it is read."""
    seen = "".join(filter(is_seen, text)).replace("\u2800", " ")
    apart = "".join(filter(is_seen, unicodedata.normalize("NFKD", seen)))
    few = []
    for is_mark, run in groupby(unicodedata.normalize("NFD", apart), lambda c: unicodedata.combining(c) > 0):
        characters = list(run)
        few += characters[:8] if is_mark else characters
    kept, letter = [], "a"
    for character in unicodedata.normalize("NFC", "".join(few)):
        if unicodedata.combining(character) == 0:
            letter = character
        elif takes_no_marks(letter):
            continue
        kept.append(character)
    return "".join(kept)


def finish(h: int) -> int:
    return ((h ^ h >> 32) * FINISHER & MASK) >> 32


def hash_codes(codes: Sequence[int], seed: int) -> int:
    h = seed
    for code in codes:
        h = (h ^ code) * MULTIPLIER & MASK
    return finish(h)


def hash_word(word: str) -> int:
    folded = word.encode("utf-8", "surrogatepass")
    h = WORDS
    for at in range(0, len(folded), 8):
        if at:
            h ^= h >> 32
        h = (h ^ int.from_bytes(folded[at : at + 8], "little")) * MULTIPLIER & MASK
    return finish(h)


def hash_pair(first: int, second: int) -> int:
    return finish(((PAIRS ^ first) * MULTIPLIER & MASK) ^ second)


def hash_times(word: int, times: int) -> int:
    return finish(((TIMES ^ word) * MULTIPLIER & MASK) ^ times)


def counts(found: list[str], words: list[int]) -> list[int]:
    """Return what says how often the words among some tokens come; `words` are the hashes."""
    hashed = [max(word, 1) for word in words]
    times = [1 + hashed[:i].count(word) for i, word in enumerate(hashed)]
    is_word = [token[0].isalpha() or not token[0].isascii() for token in found]
    rows = zip(hashed, times, is_word, strict=False)
    return [hash_times(word, n) for word, n, counts in rows if counts and n in (2, 3, 4, 5, 6, 8, 12)]


def tokens(text: str) -> list[tuple[int, str]]:
    """Return a text's tokens, folded, each with its class."""
    found: list[tuple[int, str]] = []
    run, goes_on = 0, False
    for position, original in enumerate(text):
        character = fold(original)
        kind = classify(character)
        if kind == IGNORED:
            continue
        if kind == APOSTROPHE:
            after = text[position + 1 : position + 2]
            inside = goes_on and found[-1][0] == WORD and after != "" and classify(fold(after)) == WORD
            kind = WORD if inside else SYMBOL
        if goes_on and kind == found[-1][0] == WORD:
            found[-1] = (WORD, found[-1][1] + character)
        elif goes_on and kind == found[-1][0] == SYMBOL and character == found[-1][1][0]:
            run += 1
            if run <= 3:
                found[-1] = (SYMBOL, found[-1][1] + character)
        elif kind != SPACE:
            found.append((kind, character))
            run = 1
        else:
            found.append((SPACE, ""))
        goes_on = kind != SPACE
    return found


def read(text: str, settings: TextSettings) -> str:
    """Return what is read of a text."""
    text = normal(text) if settings.hashing > 1 else text
    most, tail = settings.max_chars, settings.tail_chars
    return text[: most - tail - 1] + " " + text[len(text) - tail :] if tail and len(text) > most else text[:most]


def features(text: str, settings: TextSettings) -> list[int]:
    """Return a text's features in order, each once."""
    found = tokens(read(text, settings))
    words = [hash_word(token) for kind, token in found if kind != SPACE]
    pairs = [hash_pair(*pair) for pair in pairwise(words)] if settings.pairs else []
    if settings.pairs:  # pairs are of the words there was room for
        words = words[: settings.max_features]
        pairs = pairs[: max(0, len(words) - 1)]
    of_words = [token for kind, token in found if kind != SPACE]
    times = counts(of_words, words[: settings.max_features]) if settings.hashing > 2 else []
    stretches: list[str] = []
    last = SPACE
    for kind, token in found:
        if kind == CHARACTER == last:
            stretches[-1] += token
        elif kind != SPACE:
            stretches.append(token)
        last = kind
    grams = []
    for stretch in stretches if settings.chars else []:
        codes = [0, *map(ord, stretch), 0]
        for i in range(len(codes) - 1):
            for n in range(settings.chars_min, settings.chars_max + 1):
                if i + n <= len(codes):
                    grams.append(hash_codes(codes[i : i + n], CHARS))
    kept = (words + pairs + grams)[: settings.max_features]
    plain = min(len(words) + len(pairs), len(kept))
    return list(dict.fromkeys(max(feature, 1) for feature in kept[:plain] + times + kept[plain:]))


def hash_shape(number: int, value: int) -> int:
    return max(finish(((SHAPE ^ number) * MULTIPLIER & MASK) ^ value), 1)


def shape(text: str) -> tuple[list[int], list[int]]:
    """Return the features of words with capitals, and of amounts, of what is read of a text."""
    kinds = [(classify(fold(c)), c) for c in text + "\n"]
    words = ["".join(c for _, c in run) for kind, run in groupby(kinds, lambda pair: pair[0]) if kind == WORD]
    capitals = [[fold(c) != c for c in word] for word in words]
    cased = [word for word, upper in zip(words, capitals, strict=True) if any(upper)][:256]
    share = 8 * sum(upper[0] for upper in capitals) // max(len(words), 1)
    size = max(len(text), 1)
    n_signs = sum(kind not in (WORD, SPACE, IGNORED) for kind, _ in kinds)
    amounts = [
        step(size),
        step(len(words)),
        step(text.count("\n") + 1),
        step(sum(kind == WORD and c in "0123456789" for kind, c in kinds)),
        step(n_signs),
        step(sum(ord(c) > 127 for c in text)),
        step(sum(all(upper) and len(upper) > 1 for upper in capitals)),
        share,
        share + 16 * min(len(words), 15),
        16 * sum(map(sum, capitals)) // size,
        32 * n_signs // size,
        step(max(sum(kind == SPACE for kind, _ in kinds) - len(words), 0)),
    ]
    found = [max(hash_codes([ord(c) for c in word], CASED), 1) for word in cased]
    return list(dict.fromkeys(found)), [hash_shape(number, 1 + amount) for number, amount in enumerate(amounts)]


def step(amount: int) -> int:
    return math.floor(2 * math.log2(1 + amount))


def softmax(scores: dict[int, float]) -> dict[int, float]:
    top = max(scores.values(), default=0.0)
    total = sum(math.exp(score - top) for score in scores.values())
    return {k: math.exp(score - top) / total for k, score in scores.items()}


class OracleLinear:
    """The linear classifier with dictionaries, in 64-bit floats."""

    def __init__(self, settings: LinearSettings) -> None:
        self.settings = settings
        self.known: set[int] = set()
        self.weights: dict[int, float] = {}
        self.sums: dict[int, float] = {}

    def values(self, text: str) -> list[tuple[int, float]]:
        """Return the first slot of each feature, and its value."""
        slots, labels = 2**self.settings.bits, self.settings.max_labels
        plain = set(features(text, replace(self.settings, chars=False)))
        found = [(slots - labels, 1.0)]
        for feature in features(text, self.settings):
            base = feature * (slots - 2 * labels) >> 32
            found.append((base, 1.0 if feature in plain else self.settings.chars_weight))
        norm = math.sqrt(sum(value**2 for _, value in found))
        return [(base, value / norm) for base, value in found]

    def probabilities(self, values: list[tuple[int, float]]) -> dict[int, float]:
        return softmax({k: sum(self.weights.get(base + k, 0.0) * x for base, x in values) for k in sorted(self.known)})

    def score_and_learn(self, text: str, target: int, weight: float) -> dict[int, float]:
        values = self.values(text)
        before = self.probabilities(values)
        if target < 0:
            return before
        self.known.add(target)
        for _ in range(65):
            part = min(weight, 1.0)
            probabilities = self.probabilities(values)
            if len(self.known) == 1:  # told from nothing, whose score is 0
                score = sum(self.weights.get(base + target, 0.0) * x for base, x in values)
                probabilities = {target: 1 / (1 + math.exp(-score))}
                if probabilities[target] > 0.9:
                    break
            gradients = {k: p - (k == target) for k, p in probabilities.items()}  # in order of labels
            gradients = {k: g for k, g in gradients.items() if abs(g) >= np.float32(3e-3)}
            if part <= 0 or not gradients:
                break
            # Of two labels both, else each by itself: all steps are from what stood there before.
            labels = sorted(self.known | {target})
            for some in [labels] if max(labels) == 1 else [[k] for k in labels]:
                weights, sums = {}, {}
                for base, x in values:
                    for k in some:
                        g = gradients.get(k)
                        if g is None:
                            continue
                        past = self.sums.get(base + k, 0.0) * (1 - self.settings.decay)
                        step = self.settings.rate * part * g * x / math.sqrt(past + (g * x) ** 2 + 1e-5)
                        weights[base + k] = self.weights.get(base + k, 0.0) - step
                        sums[base + k] = past + part * (g * x) ** 2
                self.weights |= weights
                self.sums |= sums
            weight -= part
        return before


class OracleBayes:
    """Naive Bayes with dictionaries, forgetting by ageing every count at every label."""

    def __init__(self, settings: BayesSettings) -> None:
        self.settings = settings
        self.counts: dict[int, float] = {}
        self.documents: dict[int, float] = {}
        self.lengths: dict[int, float] = {}
        self.distinct = 0

    def bases(self, text: str) -> list[int]:
        span = 2**self.settings.bits - 2 * self.settings.max_labels
        return [feature * span >> 32 for feature in features(text, self.settings)]

    def probabilities(self, text: str) -> dict[int, float]:
        labels, alpha = sorted(self.documents), self.settings.alpha
        everything = sum(self.lengths.values())
        seen = [base for base in self.bases(text) if any(self.counts.get(base + k, 0) for k in range(max(labels) + 1))]
        scores = {}
        for k in labels:
            score = math.log(self.documents[k] + 0.5)
            for base in seen:
                own, total = self.counts.get(base + k, 0.0), self.lengths[k]
                if self.settings.complement:
                    others = sum(self.counts.get(base + j, 0.0) for j in range(max(labels) + 1)) - own
                    rest = everything - total + alpha * max(self.distinct, 1)
                    score -= math.log((others + alpha) / rest)
                else:
                    score += math.log((own + alpha) / (total + alpha * max(self.distinct, 1)))
            scores[k] = score / max(len(seen), 1) ** self.settings.flatten
        return softmax(scores)

    def score_and_learn(self, text: str, target: int, weight: float) -> dict[int, float]:
        before = self.probabilities(text) if self.documents else {}
        if target < 0:
            return before
        bases = self.bases(text)
        labels = range(max(self.documents, default=-1) + 1)
        self.distinct += sum(not any(self.counts.get(base + k, 0) for k in labels) for base in bases)
        for base in bases:
            self.counts[base + target] = self.counts.get(base + target, 0.0) + weight
        self.documents[target] = self.documents.get(target, 0.0) + weight
        self.lengths[target] = self.lengths.get(target, 0.0) + weight * len(bases)
        if self.settings.half_life:
            for kept in (self.counts, self.documents, self.lengths):
                for key in kept:
                    kept[key] *= 0.5 ** (1 / self.settings.half_life)
        return before


def favoured(logs: dict[int, list[float]], experts: slice) -> int:
    """Return the label that experts are for, added up in 32 bits: two that differ by less are equally good there."""
    totals = {label: float(np.cumsum([0, *row[experts]], dtype=np.float32)[-1]) for label, row in logs.items()}
    return max(logs, key=lambda label: (totals[label], -label))


class OracleMixer:
    """The mixer, with matrices, in 64-bit floats."""

    def __init__(self, n_experts: int, n_first: int) -> None:
        self.n_experts, self.n_first = n_experts, n_first
        self.weights: dict[tuple[str, int], np.ndarray] = {}
        self.covariances: dict[tuple[str, int], np.ndarray] = {}
        self.factors: dict[int, float] = {}
        self.surprise = self.variance = 0.0

    def sets(self, logs: dict[int, list[float]], n_words: int) -> list[tuple[str, int]]:
        length = min(n_words.bit_length(), 11)
        first, second = favoured(logs, slice(self.n_first)), favoured(logs, slice(self.n_first, None))
        chosen = [("shared", 0), ("length", length), (f"{first == second}", first)]
        for which in chosen:
            is_shared = which[0] == "shared"
            self.weights.setdefault(which, np.full(self.n_experts, 2.0 / self.n_experts if is_shared else 0.0))
            self.covariances.setdefault(which, np.eye(self.n_experts) * (0.03 if is_shared else 0.005))
        return chosen

    def mix(self, logs: dict[int, list[float]], n_words: int) -> dict[int, float]:
        weights = sum(self.weights[which] for which in self.sets(logs, n_words))
        return softmax({label: self.factors.get(label, 0.0) + float(weights @ row) for label, row in logs.items()})

    def learn(self, logs: dict[int, list[float]], n_words: int, target: int, part: float) -> None:
        p = self.mix(logs, n_words)
        for label in logs:
            self.factors[label] = self.factors.get(label, 0.0) - part * 0.001 * (p[label] - (label == target))
        expected = sum(each * (1 - each) for each in p.values())
        self.surprise = 0.97 * self.surprise + part * (1 - p[target] - expected)
        self.variance = 0.97 * self.variance + part * sum(each * (1 - each - expected) ** 2 for each in p.values())
        if self.surprise > 4 * (self.variance + 0.25) ** 0.5:
            self.surprise = self.variance = 0.0
            for which in self.covariances:
                self.covariances[which] = np.eye(self.n_experts) * (0.03 if which[0] == "shared" else 0.005)
        if p[target] > 1 - 1e-4:
            return
        chosen = self.sets(logs, n_words)
        others = sum((p[k] * np.array(row) for k, row in logs.items() if k != target), np.zeros(self.n_experts))
        x = np.clip(logs[target] - others / (1 - p[target]), -6, 6)
        precision = part * max(p[target], 0.3) * (1 - p[target])
        gain = 1 / (1 + precision * x @ sum(self.covariances[which] for which in chosen) @ x)
        for which in chosen:
            covariance = self.covariances[which]
            moves = covariance @ x
            self.weights[which] = self.weights[which] + part * (1 - p[target]) * gain * moves
            wide = np.trace(covariance) >= self.n_experts * (0.03 if which[0] == "shared" else 0.005)
            covariance = covariance * (1 if wide else 1 + part * 1e-3) - precision * gain * np.outer(moves, moves)
            self.covariances[which] = covariance


def siphash(data: bytes, secret: bytes, rounds: int = 1, last_rounds: int = 3) -> int:
    """Return SipHash of some bytes, as the paper has it."""

    def turned(word: int, n: int) -> int:
        return (word << n | word >> (64 - n)) & MASK

    def turn(n_times: int) -> None:
        for _ in range(n_times):
            v[0], v[2] = (v[0] + v[1]) & MASK, (v[2] + v[3]) & MASK
            v[1], v[3] = turned(v[1], 13) ^ v[0], turned(v[3], 16) ^ v[2]
            v[0], v[2] = (turned(v[0], 32) + v[3]) & MASK, (v[2] + v[1]) & MASK
            v[1], v[3] = turned(v[1], 17) ^ v[2], turned(v[3], 21) ^ v[0]
            v[2] = turned(v[2], 32)

    constants = 0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573
    words = [int.from_bytes(secret[at : at + 8], "little") for at in (0, 8)]
    v = [constant ^ word for constant, word in zip(constants, words * 2, strict=True)]
    padded = data + bytes(7 - len(data) % 8) + bytes([len(data) % 256])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        v[3] ^= word
        turn(rounds)
        v[0] ^= word
    v[2] ^= 0xFF
    turn(last_rounds)
    return v[0] ^ v[1] ^ v[2] ^ v[3]
