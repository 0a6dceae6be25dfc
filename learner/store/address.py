"""Where is the store of checkpoints, and what of that may be said?

A URL names it; obstore opens it. Keys come from each cloud's own variables, files and workload identities, never from
the URL, which stands in process lists and files of options. What a store answers may repeat a key or a signature: of
its errors only what is known to be harmless is told.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

from driftline.stream.errors import ConfigError, StoreDenied, StoreUnavailable

if TYPE_CHECKING:
    from obstore.store import ClientConfig, LocalStore, ObjectStore, RetryConfig

FORMS: Final = {
    "s3": "s3://bucket/prefix",
    "gs": "gs://bucket/prefix",
    "az": "az://container/prefix",
    "file": "file:///directory",
}
REQUEST_S: Final = 60  # for a piece, sent or fetched
CONNECT_S: Final = 5
RETRIES: Final = 3
RETRY_S: Final = 15  # beyond that the caller says what is wrong, and tries again itself
MOST_SAID: Final = 300  # characters of an error
# What says that boto3 is to look for credentials, as every AWS client would; obstore reads none of these files.
_AWS_FILE: Final = Path("~/.aws/credentials")
_AWS_GIVEN: Final = (
    *("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SKIP_SIGNATURE"),
    *("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
)
_SECRET: Final = re.compile(r"(?:AWS|AZURE|GOOGLE).*(?:KEY|SECRET|TOKEN|SAS|PASSWORD)")
_NO_BUCKET: Final = re.compile(r"NoSuchBucket|ContainerNotFound|bucket does not exist")
_REFUSED: Final = re.compile(r"status code: 40[13]\b")


def open_store(url: str) -> "ObjectStore":
    """Open a store; nothing is asked of it yet.

    Raises
    ------
    ConfigError : the URL cannot be meant; or obstore, or what its credentials need, is not installed.
    """
    parts = _checked(url)
    try:
        from obstore.store import LocalStore, from_url  # noqa: PLC0415  (who names no store needs none)
    except ImportError as error:
        raise ConfigError(f"checkpoints: {error}; `pip install driftline` has what talks to stores") from None
    with explained(shown(url), "opening it", ConfigError):
        if parts.scheme == "file":
            if not (root := Path(unquote(parts.path))).is_dir():  # made here, it would hide a share that is not mounted
                raise ConfigError(f"checkpoints: there is no directory {root}; make it, or mount what it lies on")
            return LocalStore(root, automatic_cleanup=True)
        # Plain HTTP is spoken only where an endpoint says so itself.
        client: ClientConfig = {"allow_http": True, "timeout": f"{REQUEST_S}s", "connect_timeout": f"{CONNECT_S}s"}
        options: dict[str, Any] = {"client_options": client, "retry_config": _retries()}
        if parts.scheme == "s3" and (credentials := _aws_files()) is not None:
            options["credential_provider"] = credentials
        return from_url(url, **options)


def shown(url: str) -> str:
    """Return of a URL what anybody may see: no user, password or query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a URL that is none"
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def local_root(store: "ObjectStore") -> Path | None:
    """Return the directory that a store is, None of one that is none."""
    prefix: LocalStore | Path | None = getattr(store, "prefix", None)
    return prefix if isinstance(prefix, Path) else None


@contextmanager
def explained(where: str, doing: str, unknown: type[Exception] = StoreUnavailable) -> Iterator[None]:
    """Turn obstore's errors into ours, which repeat nothing of a key; of another kind: `unknown`.

    Raises
    ------
    FileNotFoundError : there is no such object.
    """
    from obstore import exceptions as theirs  # noqa: PLC0415

    try:
        yield
    except FileNotFoundError as error:
        if error.errno is not None:  # a file of this machine
            raise
        if _NO_BUCKET.search(str(error)):
            raise _no_bucket(where, doing) from None
        raise FileNotFoundError(f"{where}: {doing}: it is not there") from None
    except (theirs.AlreadyExistsError, theirs.PreconditionError):
        raise
    except (theirs.BaseError, ValueError) as error:
        said, why = str(error), _why(error)
        if isinstance(error, (theirs.PermissionDeniedError, theirs.UnauthenticatedError)) or _REFUSED.search(said):
            why = f"refused ({why}); see which key is used, and what it may do"
            raise StoreDenied(f"{where}: {doing}: {why}") from None
        if _NO_BUCKET.search(said):  # a listing's errors are of no kind
            raise _no_bucket(where, doing) from None
        raise unknown(f"{where}: {doing}: {why}") from None


def _no_bucket(where: str, doing: str) -> StoreDenied:
    return StoreDenied(f"{where}: {doing}: there is no such bucket; make it, or name another")


def _checked(url: str) -> SplitResult:
    """Return a URL's parts. Raises ConfigError: of what it holds only what `shown` shows is said."""
    known = ", ".join(FORMS.values())
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ConfigError(f"checkpoints: this is no URL; there are {known}") from None
    if parts.scheme not in FORMS:
        raise ConfigError(f"checkpoints: {shown(url) if parts.scheme else 'this'} is none of {known}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ConfigError(
            f"checkpoints: {shown(url)} takes no user, password or query: who lists processes would see them. "
            "Give keys by the cloud's own variables or files"
        )
    if parts.scheme == "file" and (parts.netloc not in {"", "localhost"} or not parts.path.strip("/")):
        raise ConfigError(f"checkpoints: {shown(url)} names no directory from the root on: file:///directory")
    if parts.scheme != "file" and not parts.netloc:
        raise ConfigError(f"checkpoints: {shown(url)} names no bucket: {FORMS[parts.scheme]}")
    return parts


def _retries() -> "RetryConfig":
    from datetime import timedelta  # noqa: PLC0415

    return {"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_S)}


def _aws_files() -> Any:
    """Return what takes credentials from AWS's files and profiles; None where they come from elsewhere.

    Raises
    ------
    ConfigError : that needs boto3.
    """
    if any(os.environ.get(name) for name in _AWS_GIVEN):
        return None
    file = Path(os.environ.get("AWS_SHARED_CREDENTIALS_FILE") or _AWS_FILE).expanduser()
    if not os.environ.get("AWS_PROFILE") and not file.is_file():
        return None
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider  # noqa: PLC0415
    except ImportError:
        raise ConfigError(
            "checkpoints: credentials in AWS's files or profiles need boto3: `pip install boto3`. Or give "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        ) from None
    return Boto3CredentialProvider()


def _why(error: Exception) -> str:
    """Return of what a store or its library said what repeats nothing secret."""
    said = str(error)
    code = re.search(r"<Code>(\w{1,80})</Code>", said)
    status = re.search(r"status code: (\d{3}[\w ]{0,40})", said)
    if code or status:
        return ", ".join(found[1].strip() for found in (code, status) if found)
    if system := re.search(r'kind: \w+,\s+message: "([\w ,.-]{1,100})"', said):
        return system[1]
    return _redacted(said.partition("\n")[0])[:MOST_SAID]


def _redacted(text: str) -> str:
    """Return a text without users and queries of URLs, and without the values of what may be a key."""
    for name, value in os.environ.items():
        if _SECRET.match(name) and value:
            text = text.replace(value, "...")
    return re.sub(r"\?\S*", "?...", re.sub(r"//[^/\s@]+@", "//...@", text))
