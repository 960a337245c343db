"""Check the layout of the project: python tools/check_house.py [FOLDER].

Three rules, each with its exceptions in this file:

- The map in CONTRIBUTING.md and the folders agree. The map is the one block of CONTRIBUTING.md fenced with ```tree.
  A line of it is either a folder, `name/`, with what the folder holds, or a list of files. Indentation says what lies
  in what. `tests/` is not listed file by file: its folders repeat those of the package.
- Folders, files and functions are small, and so are the classes of the package: what a class inherits is counted where
  it is defined.
- A top-level name of the package, private ones included, is defined in one module.

Prints one line for each mistake, and ends with status 1 if there is any.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

FILES_IN_A_FOLDER, LINES_IN_A_FILE, LINES_IN_A_FUNCTION, METHODS_IN_A_CLASS = 12, 700, 50, 30
ROOT = Path(__file__).parent.parent
PACKAGE = "src/napari_milcnn"
MAPPED = (PACKAGE, "benchmarks", "docs", "tools")
"""Folders whose files the map lists."""
ONE_LINE = ("docs/images", "sample_data", "tests")
"""Folders that have one line in the map, whatever they hold."""
MEASURED = ("src", "tests", "benchmarks", "docs", "tools")
"""Folders whose files and functions are measured; those without any code or text are data and may be large."""

OF_THE_WHOLE = ("tests/fuzz",)
"""Folders of tests that are of no one folder of the package."""

LARGE: dict[str, str] = {}
"""Files that may be long and hold long functions, with the reason."""
TWINS: dict[str, str] = {}
"""Names that several modules of the package may define, with the reason; at most MOST_TWINS."""
MOST_TWINS = 9


def mistakes(root: Path) -> list[str]:
    """Collect the mistakes of all three rules, one sentence each."""
    found = [*map_mistakes(root), *size_mistakes(root)]
    return [*found, *twin_mistakes(root)]


def map_mistakes(root: Path) -> list[str]:
    """Compare the map in CONTRIBUTING.md with the folders, both ways."""
    blocks = re.findall(r"^```tree\n(.*?)^```", (root / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.M | re.S)
    if len(blocks) != 1:
        return [f"CONTRIBUTING.md has {len(blocks)} blocks fenced with ```tree; expected one"]
    drawn, undescribed = read_map(blocks[0])
    there = set(mapped_paths(root))
    return [
        *(f"CONTRIBUTING.md: the map says nothing about what {path} holds" for path in undescribed),
        *(f"CONTRIBUTING.md: {path} is missing from the map; add it" for path in sorted(there - drawn)),
        *(f"CONTRIBUTING.md: the map names {path}, which is not there; remove it" for path in sorted(drawn - there)),
        *_folders_of_tests_without_a_room(root),
    ]


def read_map(text: str) -> tuple[set[str], list[str]]:
    """Read a map -> the paths that it names, folders with a slash at the end; and the folders without description."""
    paths: set[str] = set()
    undescribed: list[str] = []
    parents: list[tuple[int, str]] = []
    for line in filter(str.strip, text.splitlines()):
        indent = len(line) - len(line.lstrip())
        while parents and parents[-1][0] >= indent:
            parents.pop()
        parent = parents[-1][1] if parents else ""
        first, *rest = line.split()
        if first.endswith("/"):
            parents.append((indent, parent + first))
            paths.add(parent + first)
            undescribed += [] if rest else [parent + first]
        else:
            paths.update(parent + name for name in (first, *rest))
    return paths, undescribed


def mapped_paths(root: Path) -> Iterator[str]:
    """Yield what the map must name: folders, with a slash at the end, and the files of those in MAPPED."""
    yield from (f"{name}/" for name in ONE_LINE if (root / name).is_dir())
    for top in MAPPED:
        for folder in _folders(root / top):
            if not _name(root, folder).startswith(ONE_LINE):
                yield f"{_name(root, folder)}/"
                named = (path for path in _files(folder) if path.name != "__init__.py" or folder == root / PACKAGE)
                yield from (_name(root, path) for path in named)


def size_mistakes(root: Path) -> list[str]:
    """Find folders with many files, long files and long functions."""
    found = []
    for folder in (folder for name in MEASURED for folder in _folders(root / name) if not _is_data(folder)):
        files = [path for path in _files(folder) if path.name != "__init__.py"]
        if len(files) > FILES_IN_A_FOLDER:
            found.append(f"{_name(root, folder)} holds {len(files)} files; at most {FILES_IN_A_FOLDER}: divide it")
        for path in files:
            if path.suffix == ".py" and _name(root, path) not in LARGE:
                found += _long_parts(_name(root, path), path.read_text(encoding="utf-8"))
    return found


def _long_parts(name: str, code: str) -> Iterator[str]:
    lines = len(code.splitlines())
    if lines > LINES_IN_A_FILE:
        yield f"{name} has {lines} lines; at most {LINES_IN_A_FILE}: divide it"
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = body_lines(node)
            if length > LINES_IN_A_FUNCTION:
                limit = f"at most {LINES_IN_A_FUNCTION}: divide it"
                yield f"{name}:{node.lineno} the body of {node.name} has {length} lines; {limit}"
        if isinstance(node, ast.ClassDef) and name.startswith(PACKAGE):
            methods = sum(isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef) for part in node.body)
            if methods > METHODS_IN_A_CLASS:
                limit = f"at most {METHODS_IN_A_CLASS}: divide it"
                yield f"{name}:{node.lineno} the class {node.name} has {methods} methods; {limit}"


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function's body without its docstring."""
    body = function.body[ast.get_docstring(function) is not None :]
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


def twin_mistakes(root: Path) -> list[str]:
    """Find top-level names of the package that two or more modules define."""
    homes = defaultdict(set)
    for folder in _folders(root / PACKAGE):
        for path in _files(folder):
            if path.suffix == ".py":
                for name in defined_names(ast.parse(path.read_text(encoding="utf-8"))):
                    homes[name].add(path.relative_to(root / PACKAGE).as_posix())
    twins = {name: sorted(files) for name, files in homes.items() if len(files) > 1}
    too_many = [f"check_house.TWINS lists {len(TWINS)} names; at most {MOST_TWINS}"] if len(TWINS) > MOST_TWINS else []
    return [
        *(
            f"{name} is defined in {', '.join(twins[name])}; rename or join them"
            for name in sorted(twins.keys() - TWINS)
        ),
        *(f"check_house.TWINS lists {name}, which has no twin; remove it" for name in sorted(TWINS.keys() - twins)),
        *too_many,
    ]


def defined_names(module: ast.Module) -> set[str]:
    """Collect the functions, classes and constants of a module's top level, without names such as __all__."""
    names = set()
    statements = list(module.body)
    for node in statements:  # grows while it is read
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {part.id for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)}
        elif isinstance(node, ast.If | ast.Try):
            handlers = [line for handler in getattr(node, "handlers", []) for line in handler.body]
            statements += [*node.body, *handlers, *node.orelse, *getattr(node, "finalbody", [])]
    return {name for name in names if not re.fullmatch("__.*__", name)}


def _folders_of_tests_without_a_room(root: Path) -> Iterator[str]:
    for folder in _folders(root / "tests"):
        if not (
            _name(root, folder) in OF_THE_WHOLE
            or _is_data(folder)
            or (root / PACKAGE / folder.relative_to(root / "tests")).is_dir()
        ):
            yield f"{_name(root, folder)} has no folder of that name in {PACKAGE}; move the tests to their room"


def _folders(top: Path) -> Iterator[Path]:
    """Yield a folder and those in it, without caches and hidden folders."""
    if top.is_dir() and not top.name.startswith((".", "__")) and top.suffix != ".egg-info":
        yield top
        for path in sorted(top.iterdir()):
            yield from _folders(path)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))


def _is_data(folder: Path) -> bool:
    return not any(path.suffix in {".py", ".md", ".html", ".sh"} for path in folder.rglob("*"))


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def main(root: Path) -> int:
    """Print the mistakes -> the exit status."""
    found = mistakes(root)
    sys.stdout.writelines(f"{line}\n" for line in found)
    sys.stdout.write(f"the house: {len(found)} {'mistake' if len(found) == 1 else 'mistakes'}\n")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]) if sys.argv[1:] else ROOT))
