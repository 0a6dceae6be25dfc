"""How good are models on messages with fields, beside Vowpal Wabbit with a namespace for each?

`python -m bench.fields [--data DIR] [--peer-python PYTHON]`: e-mails with sender and subject as fields and their bodies
as texts; tweets with the airline that they are about, which stands beside them; and a made stream, in which the text
tells little, and fields decide: the country, but for large amounts. Every system reads the same rows in the same order,
on one core, and is scored before it learns (quality.py). Vowpal Wabbit is tried with each of its usual settings, and
the one with the fewest errors counts, in hindsight; ours has one setting for all streams. Beside it, ours and
theirs on the text alone.
"""

import argparse
import contextlib
import math
import random
import re
import sys
from collections.abc import Iterator
from email.header import decode_header, make_header
from email.parser import HeaderParser
from itertools import islice, product
from pathlib import Path
from typing import Final, NamedTuple

from bench.peers.protocol import Rows
from bench.quality import Launcher, Quality, measure
from bench.streams import Stream, make_stream
from driftline.stream.files.reader import Format, LabelledTexts
from driftline.stream.surrogates import whole_characters
from driftline.stream.wire.fielded import MAX_VALUE_CHARS, join, split, text_of

MODELS: Final = ("blend", "linear", "bayes", "tree")
RATES: Final = ("0.5", "0.1", "1", "2")
MADE_ROWS: Final = 20_000
WRONG_SHARE: Final = 0.03  # of the made labels
_COUNTRIES: Final = ("NL", "BE", "DE", "FR", "IT", "ES", "PL", "SE", "NO", "DK", "FI", "PT")
_LARGE: Final = 300.0  # an amount beyond it decides, whatever the country
_BODY: Final = re.compile(r"\r?\n\r?\n")


class Fielded(NamedTuple):
    """A stream with fields, and which of them are crossed with words where that is asked for."""

    stream: Stream
    fields: tuple[str, ...]
    cross: str


def emails(path: Path, n_rows: int) -> Fielded:
    """Read e-mails: sender and subject as fields, the body as text."""
    texts, labels = [], []
    with LabelledTexts(path) as file:
        for row in islice((row for row in file if row.label is not None), n_rows):
            head = HeaderParser().parsestr(row.text.partition("\n")[2] if row.text.startswith("From ") else row.text)
            fields = {name.lower(): _plain(str(head[name])) for name in ("From", "Subject") if head[name]}
            body = _BODY.split(row.text, 1)
            texts.append(join(body[1] if len(body) > 1 else row.text, fields))
            labels.append(str(row.label))
    return Fielded(_stream("e-mails", texts, labels), ("from", "subject"), "")


def _plain(header: str) -> str:
    """Return a header's text, decoded where that can be done."""
    with contextlib.suppress(LookupError, ValueError):
        header = str(make_header(decode_header(header)))
    return whole_characters(header.replace("\0", " "))[:MAX_VALUE_CHARS]


def tweets(path: Path, n_rows: int) -> Fielded:
    """Read tweets with their airline."""
    with LabelledTexts(path, form=Format(field_columns=("airline",))) as file:
        rows = list(islice((row for row in file if row.label is not None), n_rows))
    found = _stream("airline", [row.text for row in rows], [str(row.label) for row in rows])
    return Fielded(found, ("airline",), "airline")


def made(n_rows: int = MADE_ROWS, seed: int = 1) -> Fielded:
    """Make a stream in which fields decide."""
    rng = random.Random(seed)
    texts, labels = [], []
    for text in make_stream("steady", n_rows).rows.texts:
        country, amount = rng.choice(_COUNTRIES), round(math.exp(rng.gauss(4, 1.5)), 2)
        label = "large" if amount > _LARGE else ("north", "south", "west")[_COUNTRIES.index(country) % 3]
        if rng.random() < WRONG_SHARE:
            label = rng.choice(("north", "south", "west", "large"))
        texts.append(join(text, {"country": country, "amount": amount, "source": f"s{rng.randrange(200)}"}))
        labels.append(label)
    return Fielded(_stream("made", texts, labels), ("amount", "country", "source"), "")


def _stream(name: str, texts: list[str], labels: list[str]) -> Stream:
    numbers: dict[str, int] = {}
    numbered = [numbers.setdefault(label, len(numbers)) for label in labels]
    return Stream(name, Rows(texts, numbered, len(numbers)), list(numbers))


def settings_of(fielded: Fielded) -> Iterator[str]:
    """Give Vowpal Wabbit with each of its settings that fit a stream."""
    first = split(fielded.stream.rows.texts[0])[1]
    has_numbers = any(isinstance(value, float | int) for value in first.values())
    crosses = ("", fielded.cross) if fielded.cross else ("",)
    numbers = ("raw", "log") if has_numbers else ("raw",)
    for text, number, cross, rate in product(("words", "chars"), numbers, crosses, RATES):
        yield f"vw-fields?fields={'+'.join(fielded.fields)}&text={text}&numbers={number}&cross={cross}&rate={rate}"


def bare(stream: Stream) -> Stream:
    """Return a stream without its fields."""
    rows = stream.rows
    return stream._replace(
        name=f"{stream.name}, text alone", rows=Rows([*map(text_of, rows.texts)], rows.labels, rows.n_labels)
    )


def table(quality: Quality) -> str:
    """Return one line for each of ours, and for the best of the others, with the errors of each."""
    lines = []
    best = min(quality.peers, key=lambda run: quality.score(run).error, default=None)
    for run in [*quality.ours, *([best] if best else [])]:
        score = quality.score(run)
        lines.append(f"| {quality.name} | `{run.system}` | {100 * score.error:.2f} % | {score.log_loss:.4f} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a directory with airline_reason and spamassassin, .jsonl.gz")
    parser.add_argument("--peer-python", default=sys.executable)
    parser.add_argument("--rows", type=int, default=1 << 20)
    parser.add_argument("--seconds", type=float, default=300.0, help="of processor time, for each run")
    parser.add_argument("--only", choices=("e-mails", "airline", "made"))
    options = parser.parse_args(argv)
    launcher = Launcher(options.peer_python, seconds=options.seconds, patience=20.0)
    streams = [made(min(options.rows, MADE_ROWS))] if options.only in (None, "made") else []
    if options.data is not None and options.only in (None, "airline"):
        streams.append(tweets(options.data / "airline_reason.jsonl.gz", options.rows))
    if options.data is not None and options.only in (None, "e-mails"):
        streams.append(emails(options.data / "spamassassin.jsonl.gz", options.rows))
    lines = ["| stream | system | errors | log loss |", "|---|---|---|---|"]
    for each in streams:
        crossed = [f"{model}?cross={each.cross}" for model in MODELS[:2]] if each.cross else []
        found = measure(each.stream, [*MODELS, *crossed], [*settings_of(each)], launcher, 0, print)
        plain = [f"vw-fields?text={text}&rate={rate}" for text in ("words", "chars") for rate in RATES]
        alone = measure(bare(each.stream), MODELS[:1], plain, launcher, 0, print)
        lines += [table(found), table(alone)]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
