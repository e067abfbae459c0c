"""What keeps the house tidy: short files, records instead of dictionaries, no circle of imports, however lazy."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

from sparsedial.verbs import VERBS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sparsedial"
MOST_LINES, MOST_VERB_LINES = 400, 150
MOST_KEYS, MOST_DICTIONARIES = 8, 3  # of each 1,000 lines outside records/
KEY = re.compile(r'\w\["\w+"\]')
DICTIONARY = re.compile(r"(dict|Mapping)\[str, Any\]")
SIGNED = re.compile(r":\+[.,]?\d*[efg%]\}")  # a format whose sign is a hyphen
ENDINGS = {".py", ".c", ".h", ".js", ".css", ".html", ".in"}


@cache
def sources(ending: str = ".py") -> dict[Path, str]:
    return {path: path.read_text() for path in sorted(PACKAGE.rglob(f"*{ending}"))}


def test_no_file_is_longer_than_one_reads():
    folders = (PACKAGE, ROOT / "tests", ROOT / "benchmarks")
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix in ENDINGS]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_few_values_are_looked_up_by_a_key_and_few_dictionaries_hold_anything():
    outside = [text for path, text in sources().items() if PACKAGE / "records" not in path.parents]
    thousands = sum(len(text.splitlines()) for text in outside) / 1000
    for pattern, most in ((KEY, MOST_KEYS), (DICTIONARY, MOST_DICTIONARIES)):
        assert sum(len(pattern.findall(text)) for text in outside) / thousands < most, pattern.pattern


def test_a_difference_is_written_with_its_sign_by_one_function():
    """`units.signed`, so that a sentence and a picture of the same report spell a number alike."""
    assert [path.name for path, text in sources().items() if SIGNED.search(text)] == []
    assert SIGNED.search('f"{gap.low:+.4f}"')


def imports() -> dict[str, set[str]]:
    """The modules of the package that each of them imports, at any depth of its code."""
    names = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in sources()
    }
    found: dict[str, set[str]] = {}
    for name, path in names.items():
        found[name] = set()
        for node in ast.walk(ast.parse(sources()[path])):
            if isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names} & set(names)
            elif isinstance(node, ast.ImportFrom) and node.module in names:
                inner = {f"{node.module}.{alias.name}" for alias in node.names} & set(names)
                found[name] |= inner or {node.module}
    return found


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Every way back to a module that is still being followed."""
    found: list[list[str]] = []
    done: set[str] = set()

    def follow(name: str, path: list[str]) -> None:
        if name in path:
            found.append([*path[path.index(name) :], name])
        elif name not in done:
            for other in sorted(graph[name]):
                follow(other, [*path, name])
            done.add(name)

    for name in graph:
        follow(name, [])
    return found


def test_no_modules_import_each_other_even_lazily():
    assert circles(imports()) == []


def test_a_circle_would_be_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c", "a"]]


def first_imports(tree: ast.AST) -> set[str]:
    """The modules that are imported where another one is: not those inside functions, or for types alone."""
    found: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif not isinstance(node, ast.FunctionDef) and not (
            isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        ):
            found |= first_imports(node)
    return found


def behind(graph: dict[str, set[str]], packages: set[str]) -> set[str]:
    """The modules that cannot be imported without all of these packages."""
    found = {name for name, seen in graph.items() if {each.partition(".")[0] for each in seen} & packages}
    while more := {name for name, seen in graph.items() if seen & found} - found:
        found |= more
    return found


def test_no_command_needs_a_package_of_another_extra_to_begin():
    """`make study` installs the extra `study` alone: its environment lacks what `select`, `dial` and others need."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = {extra: {re.split(r"\W", package)[0] for package in packages} for extra, packages in extras.items()}
    packages = set().union(*named.values()) - named["train"] - named["study"] - {"sparsedial", "matplotlib"}
    assert {"rensa", "lm_eval", "fastapi"} <= packages
    graph = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): first_imports(ast.parse(text))
        for path, text in sources().items()
    }
    floors = {name.split(".")[1] for name in behind(graph, packages)}
    assert floors == {"evaluation", "serving", "showing"}  # the harness and the servers: imported where they are used
    assert behind({"a": {"b"}, "b": {"rensa.x"}, "c": set()}, {"rensa"}) == {"a", "b"}


def test_no_verb_is_longer_than_a_few_screens():
    lengths = {path: len(text.splitlines()) for path, text in sources().items() if PACKAGE / "verbs" in path.parents}
    assert {path.stem for path in lengths} >= set(VERBS)
    assert {path: lines for path, lines in lengths.items() if lines > MOST_VERB_LINES} == {}
