"""What opens a store, and what is never said of it: a key, a password, a signature."""

import builtins
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from driftline.cli.main import app
from driftline.learner.store import address
from driftline.learner.store.checkpoint_store import CheckpointStore
from driftline.stream.errors import ConfigError, DriftlineError, StoreDenied, StoreUnavailable
from tests.learner.store.conftest import Make
from tests.s3 import KEY, S3, SECRET, variables

PASSWORD = "hunter2hunter2"


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "this is none of s3://"),
        ("bucket/prefix", "this is none of"),
        ("ftp://host/dir", "ftp://host/dir is none of"),
        ("memory:///x", "is none of"),
        ("https://bucket.s3.amazonaws.com/x", "is none of"),
        ("s3://", "names no bucket: s3://bucket/prefix"),
        ("file://store", "names no directory from the root on"),
        ("file:///", "names no directory"),
        ("file:///no/such/place", "there is no directory /no/such/place; make it, or mount"),
        ("s3://[::bucket", "this is no URL"),
        (f"s3://me:{PASSWORD}@bucket/x", "s3://bucket/x takes no user, password or query"),
        (f"s3://bucket/x?secret_access_key={PASSWORD}", "s3://bucket/x takes no user, password or query"),
        (f"az://box/x?sig={PASSWORD}", "az://box/x takes no"),
        (f"gs://bucket/x#{PASSWORD}", "gs://bucket/x takes no"),
    ],
)
def test_a_url_that_cannot_be_meant_is_refused_and_not_shown_whole(url: str, why: str) -> None:
    with pytest.raises(ConfigError, match="checkpoints: ") as refused:
        CheckpointStore(url)
    assert why in str(refused.value)
    assert PASSWORD not in str(refused.value) + repr(refused.value.__cause__)
    assert PASSWORD not in address.shown(url)
    said = CliRunner().invoke(app, ["backup", "--list", url])
    assert isinstance(said.exception, ConfigError)


def test_azure_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_USE_EMULATOR"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="Account must be specified"):
        CheckpointStore("az://container/prefix")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "account")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")
    assert CheckpointStore("az://container/prefix").where == "az://container/prefix"


@pytest.mark.parametrize("content", ["{}", f'{{"private_key": "{PASSWORD}"}}'])
def test_a_file_of_google_s_credentials_is_not_repeated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str
) -> None:
    (tmp_path / "key.json").write_text(content)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    with pytest.raises(DriftlineError) as refused:
        CheckpointStore("gs://bucket/prefix").names()
    assert PASSWORD not in str(refused.value)


def test_a_library_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "obstore"]:
        monkeypatch.delitem(sys.modules, name)
    without(monkeypatch, "obstore")
    with pytest.raises(ConfigError, match=r"pip install driftline`"):
        CheckpointStore(f"file://{tmp_path}/store")


def without(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    """Have a library not be installed."""
    imported = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name.split(".", maxsplit=1)[0] == library:
            raise ImportError(f"No module named {library!r}")
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)


def test_credentials_of_aws_files_are_taken(
    s3: S3, make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The server takes any key; that it was asked with this one its refusal shows."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    file = tmp_path / "credentials"
    file.write_text(f"[other]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_PROFILE", "other")
    store = CheckpointStore(f"s3://{s3.bucket()}/x")
    put = store.put(make(1))
    assert store.newest() == put
    for name in [name for name in sys.modules if name.split(".")[0] in {"boto3", "botocore"}]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "obstore.auth.boto3")
    without(monkeypatch, "boto3")
    with pytest.raises(ConfigError, match="pip install boto3"):
        CheckpointStore(f"s3://{s3.bucket()}/x")


def test_a_refused_key_and_a_missing_bucket_are_said_without_the_key(
    s3: S3, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "driftline")
    path, store = make(1), CheckpointStore(f"s3://{s3.bucket()}/x")
    said: list[str] = []
    with s3.knowing_nobody():
        for ask in (store.names, store.newest, lambda: store.put(path), lambda: store.prune(1)):
            with pytest.raises(
                StoreDenied, match=r"InvalidAccessKeyId, 403 Forbidden.*see which key is used"
            ) as denied:
                ask()
            said.append(f"{denied.value} {denied.value.__cause__}")
    missing = CheckpointStore("s3://driftline-no-such-bucket/x")
    for ask in (lambda: missing.put(path), missing.names):
        with pytest.raises(StoreDenied, match="there is no such bucket") as denied:
            ask()
        said.append(str(denied.value))
    said += [each.getMessage() for each in caplog.records if each.name.startswith("driftline")]  # not the server's own
    for secret in (KEY, SECRET):
        assert not [each for each in [*said, repr(store), str(vars(store))] if secret in each]
    store.put(path)


def test_a_server_that_is_away_is_said(s3: S3, monkeypatch: pytest.MonkeyPatch, make: Make) -> None:
    server = S3()
    variables(monkeypatch, server)
    monkeypatch.setattr(address, "RETRIES", 1)
    store = CheckpointStore(f"s3://{s3.bucket()}/x")
    server.stop()
    with pytest.raises(StoreUnavailable, match=r"/x: reading checkpoints/\S*: Connection refused") as away:
        store.put(make(1))
    assert not isinstance(away.value, StoreDenied)


def test_what_is_told_of_an_error_is_without_what_may_be_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", PASSWORD)
    said = address._redacted(f"GET https://me:x@host/box?sig={PASSWORD} failed; {PASSWORD}")
    assert said == "GET https://...@host/box?... failed; ..."
