"""Sections of options and commands in ``--help``."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from featx.cli.main import main
from featx.cli.option_groups import FEW, SECTIONS, Command, Group, Option, by_section, option, titled


def commands(group: click.Group = main, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command, with those inside a group."""
    for name, command in group.commands.items():
        yield f"{prefix}{name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")


COMMANDS = dict(commands())
EVERY_COMMAND = pytest.mark.parametrize("name", COMMANDS)


def help_of(command: click.Command, width: int = 80) -> str:
    """What ``--help`` prints on a terminal of a width."""
    result = CliRunner().invoke(command, ["--help"], prog_name="tool", terminal_width=width)
    assert result.exit_code == 0, result.output
    return result.stdout


@click.command(cls=Command, examples=("tool photos/ --device cuda", "tool " + "long/" * 30))
@click.argument("data")
@option("--seed", default=0, show_default=True, section="Advanced", help="Seed of the folds.")
@option("--device", default="auto", show_default=True, section="Compute", help="Device to run on.")
@option(
    "--workers",
    type=click.IntRange(min=1),
    show_default="one per core",
    section="Compute",
    metavar="N",
    help="Threads.",
)
@option("--share", type=click.FloatRange(0, 1, min_open=True), section="Advanced", metavar="P", help="Share of images.")
@option("--one-option/--no-such-long-option", default=True, show_default=True, section="Input", help="A long option.")
@option(
    "--epochs", type=click.IntRange(min=1), default=3, show_default=True, section="Input", metavar="N", help="Epochs."
)
def tool(**options: object) -> None:
    """Do something with DATA."""


def test_options_stand_by_section_in_one_column() -> None:
    assert help_of(tool) == (
        "Usage: tool [OPTIONS] DATA\n"
        "\n"
        "  Do something with DATA.\n"
        "\n"
        "Input options:\n"
        "  --one-option / --no-such-long-option\n"
        "                              A long option.  [default: one-option]\n"
        "  --epochs N                  Epochs.  [default: 3]\n"
        "\n"
        "Compute options:\n"
        "  --device TEXT               Device to run on.  [default: auto]\n"
        "  --workers N                 Threads.  [default: one per core]\n"
        "\n"
        "Advanced options:\n"
        "  --seed INTEGER              Seed of the folds.  [default: 0]\n"
        "  --share P                   Share of images.  [0<x<=1]\n"
        "  -h, --help                  Show this message and exit.\n"
        "\n"
        "Examples:\n"
        "  tool photos/ --device cuda\n"
        f"  tool {'long/' * 30}\n"
    )


def test_a_command_of_few_options_shows_them_in_one_section() -> None:
    @click.command(cls=Command)
    @option("--later", is_flag=True, section="Advanced", help="Come later.")
    @option("--first", is_flag=True, section="Input", help="Come first.")
    def small(**options: object) -> None:
        """Do little."""

    shown = help_of(small)
    assert "Options:\n  --first     Come first.\n  --later     Come later.\n  -h, --help  Show" in shown
    assert list(titled(small.params)) == ["Options"]
    assert len(small.params) <= FEW < len(tool.params) - 1
    assert titled([]) == {}


def test_options_are_grouped_in_the_order_of_the_sections() -> None:
    grouped = by_section([*tool.params, click.Option(["--plain"]), click.Option(["--secret"], hidden=True)])
    assert {section: [option.name for option in options] for section, options in grouped.items()} == {
        "Input": ["one_option", "epochs"],
        "Compute": ["device", "workers"],
        "Advanced": ["seed", "share", "plain"],
    }


def test_a_section_that_is_none_is_refused() -> None:
    with pytest.raises(
        ValueError, match="'Inputs' is not a section of options; expected one of Input, Backbone, Head, "
    ):
        Option(["--x"], section="Inputs")


def test_commands_stand_by_section_and_others_after_them() -> None:
    group = Group("tool", sections={"Work": ("mend", "make"), "Rest": ("gone",)}, help="Do things.")
    for name in ("make", "mend", "sing", "hum"):
        group.add_command(Command(name, help=f"Will {name}.", callback=lambda: None))
    group.add_command(Command("secret", hidden=True))
    assert help_of(group).endswith(
        "Work:\n  mend  Will mend.\n  make  Will make.\n\nOther commands:\n  hum   Will hum.\n  sing  Will sing.\n"
    )
    result = CliRunner().invoke(group, ["mak"])
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, "Error: No such command 'mak'; did you mean make?")
    result = CliRunner().invoke(group, ["--mak"])
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, "Error: No such option '--mak'.") or (
        "No such option: --mak" in result.stderr  # before click 8.4
    )


@EVERY_COMMAND
def test_every_option_has_a_section_and_a_help_of_whole_sentences(name: str) -> None:
    for param in COMMANDS[name].params:
        if isinstance(param, click.Option):
            assert isinstance(param, Option), param.name
            assert re.fullmatch(r"[A-Z].*\.", str(param.help)), param.help


@EVERY_COMMAND
def test_every_command_has_examples_of_itself(name: str) -> None:
    command = COMMANDS[name]
    assert isinstance(command, Command | Group)
    assert command.examples
    assert any(example.startswith(f"featx {name}") for example in command.examples)
    assert help_of(command).count("\n\nExamples:\n  ") == 1


@pytest.mark.parametrize("name", ["extract", "fit-head", "promote"])
def test_the_advanced_options_come_last(name: str) -> None:
    titles = re.findall(r"^([A-Z][a-z-]+) options:$", help_of(COMMANDS[name]), flags=re.MULTILINE)
    assert titles == [section for section in SECTIONS if section in titles]
    assert titles[-1] == "Advanced"


def test_the_everyday_options_of_promote_fit_one_screen() -> None:
    shown = help_of(COMMANDS["promote"])
    everyday = shown[shown.index("Fine-tuning options:") : shown.index("\n\nAdvanced options:")]
    assert len(everyday.splitlines()) <= 24


@EVERY_COMMAND
def test_no_line_of_options_is_wider_than_the_terminal(name: str) -> None:
    options = help_of(COMMANDS[name]).partition("\n\nExamples:")[0]
    assert max(map(len, options.splitlines())) <= 80
