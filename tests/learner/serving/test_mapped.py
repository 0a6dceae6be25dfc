"""A file that is cut short, or deleted, under those who have mapped it ends nobody, and no answer comes of what is
missing.
"""

import gc
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from driftline.learner.serving import mapped
from driftline.learner.serving.choices import Active, Choices
from driftline.learner.serving.chooser import SnapshotChooser
from driftline.learner.serving.double_buffer import Reader
from driftline.learner.serving.kept import FixedReader
from driftline.learner.serving.mapped import CUT, END, PLACES, Mapped
from driftline.learner.serving.snapshot import Follower, Publisher, Snapshot, list_snapshots
from driftline.learner.serving.versions import Versions
from driftline.stream.errors import StateError
from tests.data import ROOT
from tests.learner.serving.test_pair import begin, state
from tests.learner.serving.test_snapshot import TEXTS, info_of, publish, scores_of, taught
from tests.place import Place, get, post, refusal, running
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only there is the signal met")
HEAD = 80 << 10  # more than what stands before the first half of a pair


class TestMapping:
    def open(self, path: Path, pages: int = 1000) -> Any:
        path.write_bytes(b"\7" * 4096 * pages)
        return mapped_at(path)

    def test_what_is_missing_is_zero_and_noted(self, tmp_path: Path) -> None:
        whole, other = self.open(tmp_path / "a"), self.open(tmp_path / "b")
        content = np.asarray(whole)
        assert (int(content.sum()), whole.cut, whole.is_whole()) == (7 * 4096 * 1000, False, True)
        os.truncate(tmp_path / "a", 10 * 4096 + 5)
        assert (whole.cut, whole.is_whole()) == (False, False), "nobody has looked there yet"
        assert int(content[: 10 * 4096].sum()) == 7 * 4096 * 10
        assert not whole.cut
        assert int(content.sum()) == 7 * (4096 * 10 + 5)
        assert (whole.cut, whole.is_whole()) == (True, False)
        os.truncate(tmp_path / "a", 4096 * 1000)
        assert not whole.is_whole(), "for good"
        assert (other.cut, other.is_whole()) == (False, True)

    def test_pages_are_missing_wherever_one_begins_to_look(self, tmp_path: Path) -> None:
        whole = self.open(tmp_path / "a")
        content = np.asarray(whole)
        os.truncate(tmp_path / "a", 0)
        assert [int(content[place]) for place in (4096 * 999, 4096 * 500 + 1, 0, 4096 * 700)] == [0] * 4
        assert whole.cut

    def test_threads_meet_it_at_once(self, tmp_path: Path) -> None:
        whole = self.open(tmp_path / "a")
        content, sums = np.asarray(whole), []
        os.truncate(tmp_path / "a", 4096)
        threads = [threading.Thread(target=lambda: sums.append(int(content.sum()))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert sums == [7 * 4096] * 8

    def test_a_place_is_free_before_its_memory_is(self, tmp_path: Path) -> None:
        gc.collect()
        before = int((mapped._table[:, END] != 0).sum())
        whole = self.open(tmp_path / "a", 1)
        os.truncate(tmp_path / "a", 0)
        content = np.asarray(whole)
        place = whole._note_at // mapped.WORDS
        assert int(content[0]) == 0
        del whole
        assert mapped._table[place, END] != 0, "the array keeps it"
        del content
        assert mapped._table[place, END] == 0
        for _ in range(2 * PLACES):  # and is given out again, with nothing noted
            assert not self.open(tmp_path / "a", 1).cut
        assert int((mapped._table[:, END] != 0).sum()) == before

    def test_more_mappings_than_places(self, tmp_path: Path) -> None:
        many = [self.open(tmp_path / "a", 1) for _ in range(PLACES + 5)]
        assert sum(each._note_at == PLACES * mapped.WORDS + CUT for each in many) >= 5
        assert {int(np.asarray(each)[7]) for each in many} == {7}
        assert not any(each.cut for each in many)

    @pytest.mark.parametrize("options", [[], ["-X", "faulthandler"]])
    def test_what_is_not_ours_ends_the_process_as_ever(self, tmp_path: Path, options: list[str]) -> None:
        """Who reads zeros that he does not know of could do worse than end."""
        program = f"""if True:
            import mmap, os
            import numpy as np
            from driftline.learner.serving.mapped import Mapped
            path = {str(tmp_path / "a")!r}
            def mapped():
                file = open(path, "w+b")
                file.truncate(8192)
                return mmap.mmap(file.fileno(), 8192)
            ours, other = Mapped(mapped()), mapped()
            os.truncate(path, 0)
            print(np.asarray(ours)[0], ours.cut, flush=True)
            print(other[0], flush=True)
        """
        done = subprocess.run(
            [sys.executable, *options, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (-signal.SIGBUS, "0 True\n"), done.stderr


def mapped_at(path: Path) -> Mapped:
    import mmap  # noqa: PLC0415

    with path.open("rb") as file:
        return Mapped(mmap.mmap(file.fileno(), 0, flags=mmap.MAP_SHARED, prot=mmap.PROT_READ))


class TestReaders:
    @pytest.mark.parametrize("size", [0, 5000, HEAD])
    def test_nothing_that_was_read_of_a_pair_counts(self, tmp_path: Path, size: int) -> None:
        begin(tmp_path / "pair", state(3), b"info")
        reader = Reader(tmp_path / "pair")
        half, sequence = reader.active()
        os.truncate(tmp_path / "pair", size)
        for array in reader.arrays(half).values():
            array.sum()
        reader.info(half)
        assert not reader.unchanged(half, sequence)
        assert not reader.unchanged(*reader.active())
        assert reader.cut

    def test_a_writer_goes_on_and_says_so(self, tmp_path: Path) -> None:
        writer = begin(tmp_path / "pair", state(0), b"")
        assert writer.is_whole()
        os.truncate(tmp_path / "pair", 100)
        writer.write(state(1), b"")
        assert not writer.is_whole()
        writer.close()

    @pytest.mark.parametrize("how", ["cut", "deleted", "replaced", "all of it deleted"])
    def test_a_learner_makes_another_file(self, tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture) -> None:
        root = tmp_path / "snapshots"
        classifier, publisher = taught(), Publisher(root, 1)
        path = publisher.publish(classifier, info_of(classifier))
        assert publisher.is_there()
        if how == "cut":
            os.truncate(path, HEAD)
        elif how == "replaced":
            path.write_bytes(b"")
            path.unlink()
            path.write_bytes(b"something else")
        else:
            path.unlink()
            if how == "all of it deleted":
                root.rmdir()
        assert not publisher.is_there()
        other = publisher.publish(classifier, info_of(classifier, "abc-21"))
        assert other != path
        assert (publisher.is_there(), list_snapshots(root)[0]) == (True, other)
        np.testing.assert_array_equal(scores_of(Snapshot(other)), classifier.predict_proba_many(TEXTS))
        assert caplog.text.count("another one is made") == 1
        assert publisher.publish(classifier, info_of(classifier, "abc-22")) == other

    def test_one_that_was_overtaken_makes_none(self, tmp_path: Path) -> None:
        def overtaken() -> None:
            raise StateError("overtaken")

        classifier, publisher = taught(), Publisher(tmp_path, 1, overtaken)
        publisher.publish(classifier, info_of(classifier)).unlink()
        with pytest.raises(StateError, match="overtaken"):
            publisher.publish(classifier, info_of(classifier))
        assert list(tmp_path.iterdir()) == []

    def test_a_model_says_what_became_of_it(self, tmp_path: Path) -> None:
        path = publish(tmp_path, taught())
        snapshot = Snapshot(path)
        row = snapshot.model.predict_proba_one(TEXTS[0])[1]
        assert max(row) > 0.5
        os.truncate(path, HEAD)
        for ask in (
            lambda: snapshot.model.predict_proba_one(TEXTS[0]),
            lambda: snapshot.model.predict_proba_many(TEXTS),
            lambda: snapshot.model.explain_one(TEXTS[0]),
            snapshot.another_model,
            snapshot.check,
        ):
            with pytest.raises(StateError, match="was cut short"):
                ask()

    def test_no_answer_comes_of_zeros_whenever_it_is_cut(self, tmp_path: Path) -> None:
        """Cut at any moment while it is asked, it gives what it gave before, or says so."""
        classifier, n_cut = taught(), 0
        expected = classifier.predict_proba_many(TEXTS)
        for number in range(30):
            path = publish(tmp_path, classifier, epoch=number + 1)
            model, begun = Snapshot(path).model, threading.Event()

            def cut(path: Path = path, begun: threading.Event = begun, size: int = HEAD + 700 * number) -> None:
                begun.wait(60)
                os.truncate(path, size)

            thread = threading.Thread(target=cut)
            thread.start()
            try:
                for _ in range(2000):
                    np.testing.assert_array_equal(model.predict_proba_many(TEXTS)[1], expected)
                    begun.set()
            except StateError as error:
                assert "cut short" in str(error)
                n_cut += 1
            thread.join(60)
        assert n_cut > 0

    def test_a_follower_takes_the_one_before(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        first = publish(tmp_path, taught(), epoch=1)
        second = publish(tmp_path, taught(), epoch=2)
        follower = Follower(tmp_path)
        found = follower.look()
        assert found is not None
        assert found.path == second
        os.truncate(second, HEAD)
        for _ in range(3):
            found = follower.look()
            assert found is not None
            assert found.path == first
        assert caplog.text.count("was cut short") == 1
        os.truncate(first, 0)
        assert follower.look() is None
        assert follower.problem is not None
        assert "was cut short" in follower.problem
        publish(tmp_path, taught(), epoch=3)
        assert follower.look() is not None
        assert follower.problem is None

    def test_a_version_of_the_past(self, tmp_path: Path) -> None:
        import hashlib  # noqa: PLC0415

        import safetensors.numpy  # noqa: PLC0415

        path = tmp_path / "model.safetensors"
        safetensors.numpy.save_file({"a": np.ones(100_000, np.float32)}, path)
        reader = FixedReader(path, hashlib.sha256(path.read_bytes()).hexdigest(), b"")
        assert int(reader.arrays(0)["a"].sum()) == 100_000
        assert reader.unchanged(0, 0)
        os.truncate(path, 4096)
        assert int(reader.arrays(0)["a"].sum()) < 100_000
        assert not reader.unchanged(0, 0)
        with pytest.raises(StateError, match="is damaged"):
            FixedReader(path, "0" * 64, b"")


def test_the_latest_is_served_where_the_chosen_one_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    latest, past = publish(tmp_path / "snapshots", taught(), epoch=2), publish(tmp_path / "past", taught())
    monkeypatch.setattr(Versions, "open", lambda *_, **__: Snapshot(past))
    Choices(tmp_path).choose(Active("abc-20", ""))
    chosen = SnapshotChooser(tmp_path)
    found = chosen.look()
    assert found is not None
    assert (found.path, chosen.pinned_to, chosen.problem) == (past, "abc-20", None)
    os.truncate(past, HEAD)
    for _ in range(3):
        found = chosen.look()
        assert found is not None
        assert (found.path, chosen.pinned_to) == (latest, None)
        assert chosen.problem is not None
        assert "abc-20, which was chosen, cannot be served" in chosen.problem
    assert caplog.text.count("which was chosen") == 1


def why(url: str) -> str:
    """Return why an API does not predict, as it says."""
    return get(f"{url}/readyz").json()["parts"]["predict"]["why"] or ""


def test_the_api_goes_on(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    place.publish(4)
    with running(place.stream) as url:
        body = {"text": "prize"}
        label = post(f"{url}/predict", body).json()["predictions"][0]["label"]
        for number in range(3):
            os.truncate(list_snapshots(place.stream.data / "snapshots")[0], HEAD if number else 0)
            wait_until(lambda: post(f"{url}/predict", body).status_code == 503, what="it is seen")
            assert "was cut short" in refusal(post(f"{url}/predict", body), 503)["message"]
            assert refusal(post(f"{url}/explain", body), 503)["code"] == "no-model"
            assert get(f"{url}/healthz").status_code == 200
            wait_until(lambda: "was cut short" in why(url), what="it is said, once the file was looked at again")
            assert post(f"{url}/messages", body).status_code == 202
            version = place.publish(8 + number)
            wait_until(lambda: post(f"{url}/predict", body).is_success, what="there is another one")
            answer = post(f"{url}/predict", body).json()
            assert (answer["model_version"], answer["predictions"][0]["label"]) == (version, label)
    assert not [record for record in caplog.records if record.exc_info]
