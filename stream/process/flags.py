"""How does an option of a settings class become a flag?

An option stands once, as a field in its folder's settings.py: type, default, limits, help. `with_settings` makes it a
flag of a typer command; pydantic-settings reads DRIFTLINE_* variables and driftline.toml beneath it. A value that
cannot be meant is refused with where it came from.
"""

import difflib
import inspect
import logging
import tomllib
import types
from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin

import typer
from pydantic import SecretBytes, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import SettingsError

from driftline.stream.errors import ConfigError
from driftline.stream.process import log_lines, variables
from driftline.stream.process.settings import CONFIG_FILE, Settings, StreamSettings, split


class BadOptions(ConfigError):
    """Options with values that they cannot have; a line for each."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("; ".join(lines))
        self.lines = lines


_S = TypeVar("_S", bound=Settings)
NEAR: Final = 0.75  # of difflib's ratio: `dtaa` is near `data`, `hostname` is not near `host`
_LOG: Final = logging.getLogger("driftline")
_METAVARS: Final = {int: "<int>", float: "<float>", Path: "<path>"}


def with_shown(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Do what `with_settings` does, for a command that uses few fields: its help shows these; it takes all."""
    return partial(with_settings, shown=names)


def with_settings(command: Callable[..., None], shown: Collection[str] | None = None) -> Callable[..., None]:
    """Turn a command's parameters of settings classes into flags, one for each field.

    Fields of one name in several classes share a flag. Only flags that were given reach the classes, so that the order
    is: flags, DRIFTLINE_* variables, driftline.toml, defaults. The command gets the settings built.
    """
    signature = inspect.signature(command, eval_str=True)
    classes = {
        parameter.name: parameter.annotation
        for parameter in signature.parameters.values()
        if isinstance(parameter.annotation, type) and issubclass(parameter.annotation, Settings)
    }
    fields = {name: field for cls in classes.values() for name, field in cls.model_fields.items()}
    panels = {name: _panel(cls) for cls in reversed(classes.values()) for name in cls.model_fields}
    own = [parameter for parameter in signature.parameters.values() if parameter.name not in classes]
    clash = fields.keys() & {parameter.name for parameter in own}
    if clash:
        raise TypeError(f"{command.__name__}: parameters named as settings are: {', '.join(sorted(clash))}")

    def run(**values: Any) -> None:
        given = {name: value for name in fields if (value := values.pop(name)) not in (None, [])}
        given = {name: _split(name, value) if isinstance(value, list) else value for name, value in given.items()}
        check_config_file()
        unread = check_variables()
        built = {
            parameter: build_settings(cls, {name: given[name] for name in cls.model_fields if name in given})
            for parameter, cls in classes.items()
        }
        if any(isinstance(each, StreamSettings) and each.log_format == "json" for each in built.values()):
            log_lines.begin("json")
        for remark in unread:
            _LOG.warning("%s", remark)
        command(**values, **built)

    parameters = own + [
        _option(name, field, panels[name], shown is None or name in shown) for name, field in fields.items()
    ]
    keyword_only = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]
    return run


def _split(name: str, values: list[str]) -> list[str]:
    """Return the parts of a flag that may be given several times, each time with several of them."""
    try:
        return [part for value in values for part in split(value)]
    except ValueError as error:
        raise BadOptions([f"--{name.replace('_', '-')}: {error}"]) from None


def build_settings(cls: type[_S], given: Mapping[str, Any]) -> _S:
    """Build settings from the flags that were given and what lies beneath them.

    Raises
    ------
    BadOptions : with a line for each option that has a value it cannot have, and where that value came from.
    """
    try:
        return cls(**given)
    except ValidationError as error:
        raise BadOptions([_explain(cls, given, dict(one)) for one in error.errors()]) from None
    except SettingsError as error:
        raise BadOptions([str(error)]) from None


def check_config_file() -> None:
    """Refuse a driftline.toml that is not TOML, or that has an entry which no option reads.

    Raises
    ------
    ConfigError : it names the entries that are not known, and those that are.
    """
    entries = _config_file()
    if not entries:
        return
    known = _known()
    unknown = [name for name in entries if name not in known]
    if unknown:
        meant = [f"{name} (is {near[0]} meant?)" if (near := _near(name, known)) else name for name in unknown]
        raise ConfigError(
            f"{CONFIG_FILE}: unknown {'entry' if len(unknown) == 1 else 'entries'} {', '.join(meant)}; "
            f"known are: {', '.join(sorted(known))}"
        )


def check_variables() -> list[str]:
    """Refuse a DRIFTLINE_* variable that no option reads and that is nearly called as one.

    Returns
    -------
    remarks : on others that no option reads. They may be somebody else's, so they keep nothing from starting.

    Raises
    ------
    ConfigError : it names them, and the options that they are nearest to.
    """
    names = _known()
    found = {name.removeprefix(variables.PREFIX).lower(): name for name in variables.options()}
    unknown = {
        name: variable
        for name, variable in found.items()
        if name not in names and not variables.is_read_elsewhere(variable)
    }
    near = {variable: meant[0] for name, variable in unknown.items() if (meant := _near(name, names | {"key"}))}
    if near:
        said = (f"{variable}: no option reads this; is {_variable(meant)} meant?" for variable, meant in near.items())
        raise ConfigError(f"{'; '.join(said)} Rename or unset it")
    return [
        f"{variable}: no option reads this variable; `--help` names those that are" for variable in unknown.values()
    ]


def _known() -> set[str]:
    found: set[str] = set()
    classes: list[type[Settings]] = [Settings]
    while classes:
        cls = classes.pop()
        found |= cls.model_fields.keys()
        classes += cls.__subclasses__()
    return found


def _near(name: str, known: Collection[str]) -> list[str]:
    """Return the known name that is nearest to another, if one is near."""
    return difflib.get_close_matches(name, sorted(known), n=1, cutoff=NEAR)


def _config_file() -> dict[str, Any]:
    try:
        return tomllib.loads(CONFIG_FILE.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ConfigError(f"{CONFIG_FILE}: cannot be read: {error.strerror}") from None
    except ValueError as error:  # not UTF-8, or not TOML
        raise ConfigError(f"{CONFIG_FILE}: {error}") from None


def _panel(cls: type[Settings]) -> str:
    return (cls.__doc__ or cls.__name__).splitlines()[0].rstrip(".")


def _option(name: str, field: FieldInfo, panel: str, shown: bool) -> inspect.Parameter:
    flag = "--" + name.replace("_", "-")
    kind = _kind(field.annotation)
    notes = [f"[env: {_variable(name)}]"]
    if field.default is not None and not field.is_required() and kind not in (SecretStr, SecretBytes):
        default = field.get_default(call_default_factory=True, validated_data={})
        if isinstance(default, bool):
            default = "on" if default else "off"
        if default not in ("", [], ()):
            notes.append(f"[default: {default}]")
    text = f"{field.description or ''} {' '.join(notes)}"
    annotation: Any
    if kind is bool:
        switch = typer.Option(
            f"{flag}/--no-{flag[2:]}", help=text, show_default=False, rich_help_panel=panel, hidden=not shown
        )
        annotation = Annotated[bool | None, switch]
    else:
        metavar = "|".join(map(str, get_args(kind))) if get_origin(kind) is Literal else _METAVARS.get(kind, "<str>")
        many = get_origin(kind) in (list, tuple, set, frozenset)
        option = typer.Option(
            flag, metavar=metavar, help=text, show_default=False, rich_help_panel=panel, hidden=not shown
        )
        annotation = Annotated[list[str] | None if many else str | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _kind(annotation: Any) -> Any:
    """Return what an optional annotation is when it is not None."""
    if get_origin(annotation) in (Union, types.UnionType):
        return next(part for part in get_args(annotation) if part is not type(None))
    return annotation


def _variable(name: str) -> str:
    return f"{variables.PREFIX}{name.upper()}"


def _explain(cls: type[Settings], given: Mapping[str, Any], error: dict[str, Any]) -> str:
    """Say where a refused value came from, what it is, and why it is refused."""
    why = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:
        return why
    name = str(error["loc"][0])
    found = variables.options()
    field = cls.model_fields.get(name)
    secret = field is not None and _kind(field.annotation) in (SecretStr, SecretBytes)
    if name in given:
        return f"--{name.replace('_', '-')}{'' if secret else f' {given[name]}'}: {why}"
    if _variable(name) in found:
        return f"{_variable(name)}{'' if secret else f'={found[_variable(name)]}'}: {why}"
    if name in (entries := _config_file()):
        return f"{CONFIG_FILE}: {name}{'' if secret else f' = {entries[name]!r}'}: {why}"
    return f"--{name.replace('_', '-')}: {why}"
