"""How are the API's keys kept? `driftline keys`: add, list, remove."""

from typing import Annotated, Literal

import typer
from rich.markup import escape

from driftline.api.settings import ApiSettings
from driftline.cli.help import Command, Group
from driftline.cli.terminal import terminal
from driftline.stream.errors import ConfigError
from driftline.stream.process.flags import with_shown
from driftline.stream.process.harmless import harmless
from driftline.stream.process.settings import StreamSettings

app = typer.Typer(
    cls=Group, help="API keys: add, list, remove. A running API heeds them within a second.", rich_markup_mode=None
)


@app.command("add", cls=Command)
@with_shown("data", "keys_file")
def add(
    name: Annotated[str, typer.Argument(help="Whose key it is; shows in log lines.")],
    stream: StreamSettings,
    api: ApiSettings,
    role: Annotated[
        Literal["predict", "label", "admin"],
        typer.Option(help="predict asks; label also posts messages and labels; admin also changes what is served."),
    ],
) -> None:
    """Make a key and print it, once: only its SHA-256 is kept."""
    from driftline.api.access import keys

    path = keys.path_of(stream, api)
    secret, key = keys.new_key(name, keys.Role[role.upper()])
    with keys.changing(path) as known:
        if any(each.name == name for each in known):
            raise ConfigError(f"{path} has a key {name!r} already; remove it first, or take another name")
        known.append(key)
    print(secret)
    terminal(stderr=True).print(f"Kept in {escape(str(path))}: {escape(str(key))}")


@app.command("list", cls=Command)
@with_shown("data", "keys_file")
def list_all(stream: StreamSettings, api: ApiSettings) -> None:
    """Print the keys as they are kept: SHA-256, role, name."""
    from driftline.api.access import keys

    for key in keys.read(keys.path_of(stream, api)):
        print(harmless(str(key)))


@app.command("remove", cls=Command)
@with_shown("data", "keys_file")
def remove(
    name: Annotated[str, typer.Argument(help="As it was given to add.")], stream: StreamSettings, api: ApiSettings
) -> None:
    """Let a key no longer count."""
    from driftline.api.access import keys

    path = keys.path_of(stream, api)
    with keys.changing(path) as known:
        left = [key for key in known if key.name != name]
        if len(left) == len(known):
            raise ConfigError(f"{path} has no key {name!r}; it has {', '.join(key.name for key in known) or 'none'}")
        known[:] = left
    said = f"The key {name!r} no longer counts."
    if not left and not api.api_keys:
        said += " None is left: an API that runs goes on asking for one. Add one, or start it anew."
    terminal(stderr=True).print(escape(said))
