"""README.md, CHANGELOG.md and docker/README.md against reality: links, the map of files, commands, Python, help texts.

The map is the fenced block under the heading `## Map`: one entry a line, a path, two or more spaces, a description.
An entry indented by two more spaces than an earlier one lies in it; folders end in `/`. It names everything at the top
level (names that begin with a dot may be left out) and every room and module of `sweep/`.
"""

import ast
import importlib
import pkgutil
import re
import shlex
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from commands import complaint, simple_commands

import sweep
from sweep.cli import cli

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = ("README.md", "CHANGELOG.md", "docker/README.md")
VERBS = ("doctor", "spaces", "show", "plan", "launch", "status", "stop", "judge", "report", "rerun", "ui",
         "recover", "submit", "attach", "cluster", "serve", "extend", "logs", "sync", "verify", "export",
         "simulate")  # fmt: skip


class Block(NamedTuple):
    language: str
    heading: str
    text: str


def blocks() -> list[Block]:
    """The fenced blocks of the README, each with the heading that it stands under."""
    found, heading, language, lines = [], "", None, []
    for line in README.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            if language is None:
                language, lines = line[3:].strip(), []
            else:
                found.append(Block(language, heading, "\n".join(lines)))
                language = None
        elif language is not None:
            lines.append(line)
        elif line.startswith("#"):
            heading = line.lstrip("#").strip()
    return found


# ---- links -----------------------------------------------------------------------------------------------------
def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ +(.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str):
    page = ROOT / name
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    broken = []
    for target in targets:
        path, _, anchor = target.partition("#")
        if re.match(r"(https?|mailto):", target):
            continue
        file = page.parent / path if path else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


# ---- the map ---------------------------------------------------------------------------------------------------
MAP_LINE = re.compile(r"(?P<indent> *)(?P<path>\S+)(?: {2,}(?P<description>\S.*))?")


def map_entries() -> dict[str, str]:
    """Path from the root -> description, of every line of the map."""
    (text,) = (block.text for block in blocks() if block.heading == "Map")
    entries, parents = {}, {}
    for line in filter(None, text.splitlines()):
        match = MAP_LINE.fullmatch(line.rstrip())
        assert match, f"not 'path  description': {line!r}"
        depth, odd = divmod(len(match["indent"]), 2)
        assert not odd, f"indent by two spaces a level: {line!r}"
        assert depth == 0 or depth - 1 in parents, f"no folder above: {line!r}"
        path = parents[depth - 1] + match["path"] if depth else match["path"]
        parents = {level: parent for level, parent in parents.items() if level < depth} | {depth: path}
        entries[path] = match["description"] or ""
    return entries


def ignored(name: str) -> bool:
    patterns = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    return name.startswith(".") or any(fnmatch(name, pattern.strip("/")) for pattern in patterns if pattern)


def listed(folder: str) -> set[str]:
    """What the map should name in a folder: paths from the root, folders with a slash."""
    entries = (path for path in (ROOT / folder).iterdir() if not ignored(path.name) and path.name[:2] != "__")
    return {f"{path.relative_to(ROOT).as_posix()}{'/' if path.is_dir() else ''}" for path in entries}


def test_map_names_what_exists_and_all_of_it():
    entries = map_entries()
    missing = [path for path in entries if not (ROOT / path).exists() or (ROOT / path).is_dir() != path.endswith("/")]
    assert missing == [], "the map names what is not there (or a folder without its slash)"
    assert (listed(".") | listed("sweep")) - set(entries) == set(), "the map leaves these out"
    assert [path for path, description in entries.items() if not description] == [], "without a description"


# ---- commands --------------------------------------------------------------------------------------------------
def shell_lines() -> Iterator[str]:
    """Every command of the README's shell blocks; of `console` blocks the lines that begin with `$ `."""
    for block in blocks():
        text = block.text.replace("\\\n", " ")
        if block.language in ("bash", "sh", "shell"):
            yield from text.splitlines()
        elif block.language == "console":
            yield from (line[2:] for line in text.splitlines() if line.startswith("$ "))


def commands_of(program: str) -> list[list[str]]:
    commands = simple_commands("\n".join(shell_lines()))
    return [words[1:] for words in commands if Path(words[0]).name == program]


def test_commands_are_understood():
    commands = commands_of("sweep")
    assert commands, "the README shows no sweep command"
    complaints = {shlex.join(words): complaint(words) for words in commands}
    assert {words: said for words, said in complaints.items() if said} == {}


def test_complaint_sees_what_is_wrong():
    assert complaint(["plan", "quickstart", "--no-such-option"])
    assert complaint(["no-such-verb"])
    assert complaint(["plan", "quickstart", "another"])
    assert complaint(["plan"])
    assert complaint(["cluster", "no-such-verb"])
    assert complaint(["cluster", "join"])
    assert complaint(["plan", "quickstart", "--json"]) is None


def test_make_targets_exist():
    phony = re.search(r"^\.PHONY:(.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert phony
    targets = {word for words in commands_of("make") for word in words if "=" not in word and not word.startswith("-")}
    assert targets, "the README shows no make command"
    assert targets - set(phony[1].split()) == set()


def test_python_of_the_readme_names_what_sweep_has():
    trees = [ast.parse(block.text) for block in blocks() if block.language == "python"]
    assert trees, "the README shows no Python"
    used = {
        node.attr
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "sweep"
    }
    assert [name for name in sorted(used) if not hasattr(sweep, name)] == []


def test_no_room_hides_a_verb():
    """Importing the room `sweep.rerun` puts a module where the verb `sweep.rerun` is looked up."""
    for room in pkgutil.iter_modules(sweep.__path__, "sweep."):
        if not room.name.endswith("__main__"):
            importlib.import_module(room.name)
    assert [name for name in sweep.__all__ if not callable(getattr(sweep, name))] == []


# ---- help texts ------------------------------------------------------------------------------------------------
def test_the_verbs_are_those_of_the_contract():
    assert set(VERBS) <= set(cli.commands)


@pytest.mark.parametrize("verb", VERBS)
def test_help_explains_the_verb_and_each_option(verb: str):
    command = cli.commands[verb]
    assert command.help
    options = [option for option in command.params if isinstance(option, click.Option)]
    assert [option.name for option in options if not option.help] == [], "options without a help text"


def test_readme_names_every_verb():
    text = README.read_text(encoding="utf-8")
    assert [verb for verb in VERBS if f"sweep {verb}" not in text] == []
