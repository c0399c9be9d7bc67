"""Commands of `sweep` in pages, manifests and compose files: found, and read by click without running them."""

import re
import shlex
from collections.abc import Iterator

import click

from sweep.cli import cli


def shell_blocks(page: str) -> str:
    """What a page tells its reader to type."""
    blocks = re.findall(r"^```bash\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    return "".join(blocks).replace("\\\n", " ")


def simple_commands(text: str) -> Iterator[list[str]]:
    """The words of each command in lines of a shell: no comments, redirections and variables before it."""
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split, lexer.commenters = True, "#"
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("();<>|&"):
                if words:
                    yield words
                words = []
            elif words or not re.match(r"\w+=", word):
                words.append(word)


def complaint(words: list[str]) -> str | None:
    """What click says of the words behind `sweep`: verbs, options, arguments and their types."""
    command: click.Command = cli
    try:
        while isinstance(command, click.Group):
            context = click.Context(command)
            _, found, words = command.resolve_command(context, words or [""])
            assert found is not None
            command = found
        command.make_context(command.name, list(words))
    except click.exceptions.Exit:  # of --help and --version
        return None
    except click.UsageError as error:
        return error.format_message()
    return None
