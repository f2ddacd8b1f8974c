"""docs/cli.md is what the program says of itself."""

import os
import subprocess
import sys

from support import cli_reference

PAGE = cli_reference.DOCS / "cli.md"


def test_the_page_is_current() -> None:
    """Every command with every option, as its own help has them."""
    text = PAGE.read_text()
    assert cli_reference.with_generated(text, cli_reference.commands()) == text


def test_every_command_and_option_says_what_it_is_for() -> None:
    """No command and no option is without help."""
    import click

    from zapd.cli.root import root

    def walk(command: click.Command, path: str) -> None:
        assert command.help, path
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, f"{path} {parameter.opts}"
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                assert inner is not None
                walk(inner, f"{path} {name}")

    walk(root, "zapd")


def test_completion_is_there() -> None:
    """The shell's completion completes commands."""
    environment = os.environ | {"_ZAPD_COMPLETE": "bash_complete", "COMP_WORDS": "zapd key a", "COMP_CWORD": "2"}
    script = "import sys; sys.argv = ['zapd']; from zapd.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert set(done.stdout.split()) == {"plain,add", "plain,approve"}
