"""The rules of layout, read from the source: who imports whom, who may touch the world, what is nowhere to be found."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

WORLD = {"asyncio", "socket", "time", "threading", "aiohttp"}
"""What only a module marked [IO] may import; nor may the others call `open`."""

COMPOSITION = {"app", "__main__", "serve", "commands"}
"""The composition root and the command line: they may import everything."""

HTTP_AND_BODIES = {"api", "problems"}
"""The host's API stands on two libraries: aiohttp, and msgspec for its bodies."""

MAY_IMPORT = {
    "signalling": [
        "signalling",
        "media.sfu",
        "media.parameters",
        "media.events",
        "recording.recorder",
        "recording.reader",
    ],
    "recording": ["recording", "media.sink", "media.rtp", "media.parameters"],
    "media": ["media"],
    "base": [],
}
"""What each part of `server` may import of it, besides the base modules (those directly in `server/`)."""

NEVER = {"media": {"aiohttp"}, "recording": {"aiohttp"}}


@cache
def tracked(*patterns: str) -> list[Path]:
    """Files of the project, those not committed yet included."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


SERVER = tracked("server/*.py")
PYTHON = tracked("*.py")
SCRIPTS = tracked("web/*.js")
COMPILED = tracked("*.pyx", "*.pxd")


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def walk(node: ast.AST) -> Iterator[ast.AST]:
    """As `ast.walk`, without what only runs when the file is the program."""
    if isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'":
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from walk(child)


def imports(path: Path) -> set[str]:
    """Every module that a file imports, in full; `from a import b` counts as `a.b` where that is a module."""
    found = set()
    for node in walk(tree(path)):
        match node:
            case ast.Import(names=names):
                found |= {alias.name for alias in names}
            case ast.ImportFrom(module=module, names=names, level=level):
                assert level == 0, f"{name_of(path)}: relative imports hide who imports whom"
                assert module
                for alias in names:
                    inner = ROOT.joinpath(*module.split("."), alias.name)
                    is_module = (
                        inner.with_suffix(".py").exists() or inner.with_suffix(".pyx").exists() or inner.is_dir()
                    )
                    found.add(f"{module}.{alias.name}" if is_module else module)
    return found


def part_of(module: str) -> tuple[str, str]:
    """`server.media.rtp.packet` is ("media", "media.rtp.packet"); a module directly in `server/` is of the base."""
    inner = module.removeprefix("server").removeprefix(".")
    head = inner.split(".")[0]
    return (head if head in MAY_IMPORT else "base"), inner


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def parametrize(paths: list[Path]):
    return pytest.mark.parametrize("path", paths, ids=name_of)


@parametrize(SERVER)
def test_only_marked_modules_touch_the_world(path):
    docstring = ast.get_docstring(tree(path)) or ""
    if "[IO]" in docstring.split("\n\n")[0]:
        return
    touched = {name for name in imports(path) if name.split(".")[0] in WORLD}
    assert not touched, "mark the module [IO] in the first lines of its docstring, or keep it pure"
    opens = [
        node.lineno
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "open"
    ]
    assert not opens, f"calls open() on line {opens}"


@parametrize(SERVER)
def test_imports_go_one_way(path):
    part, inner = part_of(module_of(path))
    names = imports(path)
    assert not {name for name in names if name.split(".")[0] in {"tests", "benchmarks", "loadtest"}}
    if inner in COMPOSITION:
        return
    assert not {name for name in names if name.split(".")[0] in NEVER.get(part, set())}
    for name in names:
        if name.split(".")[0] != "server":
            continue
        other, target = part_of(name)
        if other == "base":
            assert target not in COMPOSITION, f"{target} is the composition root: nobody imports it"
        else:
            allowed = any(target == prefix or target.startswith(prefix + ".") for prefix in MAY_IMPORT[part])
            assert allowed, f"{part} does not import {target}"


def test_imports_have_no_cycle():
    graph = {module_of(path): imports(path) for path in SERVER}
    done: set[str] = set()

    def visit(module: str, above: list[str]) -> None:
        assert module not in above, " -> ".join([*above[above.index(module) :], module])
        if module in graph and module not in done:
            for other in sorted(graph[module]):
                visit(other, [*above, module])
            done.add(module)

    for module in sorted(graph):
        visit(module, [])


@parametrize(SERVER)
def test_a_base_module_stands_on_one_library(path):
    part, inner = part_of(module_of(path))
    if part != "base" or inner in COMPOSITION | HTTP_AND_BODIES:
        return
    known = sys.stdlib_module_names | {"server", "structlog"}
    libraries = {name.split(".")[0] for name in imports(path)} - known
    assert len(libraries) <= 1


def head_of(path: Path) -> str:
    """What a module says of itself: its docstring, or the comment that it begins with."""
    text = path.read_text()
    match path.suffix:
        case ".py":
            return ast.get_docstring(tree(path)) or ""
        case ".pyx":
            return text.split('"""')[1] if text.startswith('"""') else ""
        case ".pxd":
            return text[: re.search(r"^(?!#)", text, re.MULTILINE).start()]
        case _:
            return text[: text.index("*/")]


@parametrize(PYTHON + SCRIPTS + COMPILED)
def test_size(path):
    """Above 500 lines a module says why it is one thing (a table of tests need not); above 800 it is split."""
    lines = path.read_text().count("\n")
    assert lines <= 800
    if lines > 500 and not path.is_relative_to(ROOT / "tests"):
        assert re.search("one thing", head_of(path), re.IGNORECASE), "say in the head of the module why it is one thing"


@parametrize(tracked("*.py", "*.pyx", "*.pxd", "*.js", "*.css", "*.html", "*.sh", "*.md", "Makefile"))
def test_nothing_is_left_for_later(path):
    if path == Path(__file__):
        return
    assert not re.search(r"\b(TODO|FIXME|XXX)\b", path.read_text())


@parametrize(tracked("web/*.html", "web/templates/*"))
def test_templates_hold_no_inline_code(path):
    """The Content-Security-Policy has no unsafe-inline: what is inline would not work, and should not be there."""
    text = re.sub(r"<!--.*?-->|\{#.*?#\}", "", path.read_text(), flags=re.DOTALL)
    assert not re.search(r"\sstyle\s*=|<style\b", text, re.IGNORECASE)
    assert not re.search(r"<[^>]*\son[a-z]+\s*=|javascript:", text, re.IGNORECASE)
    for tag in re.findall(r"<script\b[^>]*>", text, re.IGNORECASE):
        assert "src=" in tag or 'type="application/json"' in tag, tag


@parametrize(tracked("web/*.html", "web/*.css", "web/*.js", "web/*.svg", "web/*.json"))
def test_pages_ask_nobody_else(path):
    """No font, script, image or beacon from a third party. Comments may cite; names in examples are reserved ones."""
    text = re.sub(r"/\*.*?\*/|^\s*//.*$|<!--.*?-->", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    hosts = set(re.findall(r"""(?:(?:https?|wss?):|["'(=])//([\w.-]+)""", text))
    ours = re.compile(r"localhost|127\.0\.0\.1|[\w.-]*\bexample(\.org|\.com|\.net)?|www\.w3\.org")
    assert not {host for host in hosts if not ours.fullmatch(host)}


@parametrize(tracked("web/static/js/rtc/*.js"))
def test_the_library_imports_only_itself(path):
    """The pages stand on the library, never the other way; that it knows no DOM, tests/web/test_library.py holds."""
    modules = re.findall(r"\b(?:from|import)\s*\(?['\"]([^'\"]+)['\"]", path.read_text())
    assert all(re.fullmatch(r"\./[\w.-]+", module) for module in modules), modules


FOREIGN = re.compile(
    "|".join(
        [
            r"(?<![\w.])/(work|root|home)/\w",  # somebody's machine
            r"registry\.npmjs",
            r"pythonhosted",
            r"\bpypi\.org",
            r"deb\.debian\.org",
        ]
    )
)


def test_no_machine_and_no_registry_is_named():
    """The tree builds anywhere: it names no path of one machine, and leaves registries to the tools' own settings."""
    found = []
    for path in tracked():
        if path == Path(__file__):
            continue
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{name_of(path)}: {match[0]}" for match in FOREIGN.finditer(text)]
    assert not found


def test_every_suppression_has_a_reason():
    """`# type: ignore` and `# noqa` name the rule they silence."""
    bare = re.compile(r"#\s*(type:\s*ignore(?!\[)|noqa(?!:))")
    assert not [name_of(path) for path in PYTHON if path != Path(__file__) and bare.search(path.read_text())]
