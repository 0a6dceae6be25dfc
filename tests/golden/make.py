"""Make the golden files of the format that this version writes: `python -m tests.golden.make`, once for each format.

What a released version wrote must open for ever: directories of older formats are never made again.
"""

import json
import shutil
import tempfile
from pathlib import Path

from driftline.learner.disk import checkpoint as checkpoints
from driftline.learner.disk import journal as journals
from driftline.learner.disk.settings import LearnerSettings
from driftline.learner.loop.loop import Learner
from driftline.learner.text.features import HASHING
from driftline.stream.log.base import NewRecord
from driftline.stream.log.open import open_log
from driftline.stream.process.settings import StreamSettings
from driftline.stream.wire.records import Feedback, Message, encode

GOLDEN = Path(__file__).parent
NAME = f"format-{checkpoints.FORMAT}-hashing-{HASHING}"
TEXTS = ["win a prize now", "see you at home", "Überraschung: 字漢 👍", "", "e\u0301te\u0301 sp\u200bam ﬁn"]


def main() -> None:
    """Write the directory of this format."""
    with tempfile.TemporaryDirectory() as name:
        learn_into(GOLDEN / NAME, StreamSettings(data=Path(name)))


def learn_into(golden: Path, stream: StreamSettings) -> None:
    """Learn a few labels; keep a checkpoint, a journal behind it, and what the model says."""
    log = open_log(stream)
    log.create_topics(stream.topics)
    for number in range(24):
        message = Message(f"m{number}", f"{TEXTS[number % 3]} {number}")
        feedback_id, weight = f"f{number}" if number % 2 else None, 1.0 + number % 3
        label = Feedback(message.id, ("spam", "ham", "geschäft")[number % 3], feedback_id, weight=weight)
        log.append("messages", [NewRecord(message.id.encode(), encode(message), 10 * number)])
        if number % 4:
            log.append("feedback", [NewRecord(message.id.encode(), encode(label), 10 * number + 5)])
        else:
            other = Message(message.id, f"another text {number}")
            log.append("messages", [NewRecord(message.id.encode(), encode(other), 10 * number + 5)])
    learner = Learner(stream, LearnerSettings(model="linear?bits=8&max_labels=4", batch_records=10), log)
    learner.start()
    learner.step()
    learner.step()
    learner.run(lambda: True)
    classifier = learner._work.machine.classifier
    expected = {"texts": TEXTS, "scores": classifier.predict_proba_many(TEXTS).tolist()}
    batch = checkpoints.list_checkpoints(stream.data / "checkpoints")[0].name
    learner.step()
    learner.step()
    learner.close()
    log.close()
    applied = journals.read_since(stream.data / "journal", int(batch))
    expected |= {
        "checkpoint": int(batch),
        "journal": [[[*span.partition, span.start, span.end] for span in each.spans] for each in applied],
    }
    shutil.rmtree(golden, ignore_errors=True)
    shutil.copytree(stream.data / "checkpoints" / batch, golden / "checkpoints" / batch)
    shutil.copytree(
        stream.data / "journal", golden / "journal", ignore=lambda _, names: [n for n in names if batch not in n]
    )
    (golden / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
