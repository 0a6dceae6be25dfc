"""How does a command show its options? Plainly, in the sections of the settings that they belong to.

Typer's own tables cut names where a terminal is narrow; here a name that does not fit stands in a line of its own.
"""

from typing import TYPE_CHECKING, Final

from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from typer._click import Context, HelpFormatter


NARROW: Final = 78  # columns, below which what is said of an option begins under its name, not beside it


class Group(TyperGroup):
    """A group of commands; its app has no markup mode."""

    def format_commands(self, ctx: "Context", formatter: "HelpFormatter") -> None:
        """Write the commands, each with the whole first sentence of what it does."""
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, command.get_short_help_str(1000)) for name, command in commands if command])


class Command(TyperCommand):
    """A command; its app has no markup mode."""

    def format_options(self, ctx: "Context", formatter: "HelpFormatter") -> None:
        """Write the arguments and options, a section for each group of them."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                title = "Arguments" if param.param_type_name == "argument" else "Options"
                sections.setdefault(getattr(param, "rich_help_panel", None) or title, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records, col_max=30 if formatter.width >= NARROW else 4)
