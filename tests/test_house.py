"""The script that checks the layout of the project, on small made trees: each rule holds, and each is broken."""

from __future__ import annotations

import pytest

from tools import check_house

MAP = """# Contributing

```tree
src/napari_milcnn/   the package
  __init__.py  errors.py
  images/    what opens images
    open.py  tiff.py
tests/       tests, in the same folders
docs/        pages
  page.md
  images/    pictures
```
"""


@pytest.fixture
def house(monkeypatch):
    """Return the script without the exceptions that the project itself needs, and with twins as a warning."""
    for name, value in {"LARGE": {}, "TWINS": {}}.items():
        monkeypatch.setattr(check_house, name, value)
    return check_house


@pytest.fixture
def tree(tmp_path):
    """Make a project whose map is right, whose parts are small and whose names are defined once."""
    files = {
        "src/napari_milcnn/__init__.py": "__all__ = []\n",
        "src/napari_milcnn/errors.py": "__all__ = []\nclass Refused(Exception):\n    pass\n",
        "src/napari_milcnn/images/__init__.py": "",
        "src/napari_milcnn/images/open.py": "LIMIT = 3\ndef opened():\n    return LIMIT\n",
        "src/napari_milcnn/images/tiff.py": "from napari_milcnn.images.open import LIMIT\n",
        "src/napari_milcnn/images/__pycache__/open.pyc": "",
        "tests/images/test_open.py": "",
        "tests/model/zips/old.zip": "",
        "docs/page.md": "",
        "docs/images/picture.png": "",
        "CONTRIBUTING.md": MAP,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_a_tidy_tree_passes(house, tree):
    """No mistake, no twin."""
    assert house.mistakes(tree) == []
    assert house.twin_mistakes(tree) == []


def test_the_map_is_compared_both_ways(house, tree):
    """A file and a folder that are not on the map, and a file and a folder that are only there."""
    (tree / "src/napari_milcnn/images/tiff.py").rename(tree / "src/napari_milcnn/images/png.py")
    (tree / "docs/page.md").unlink()
    (tree / "docs").rename(tree / "benchmarks")
    (tree / "benchmarks" / "speed.py").touch()
    assert house.map_mistakes(tree) == [
        "CONTRIBUTING.md: benchmarks/ is missing from the map; add it",
        "CONTRIBUTING.md: benchmarks/images/ is missing from the map; add it",
        "CONTRIBUTING.md: benchmarks/images/picture.png is missing from the map; add it",
        "CONTRIBUTING.md: benchmarks/speed.py is missing from the map; add it",
        "CONTRIBUTING.md: src/napari_milcnn/images/png.py is missing from the map; add it",
        "CONTRIBUTING.md: the map names docs/, which is not there; remove it",
        "CONTRIBUTING.md: the map names docs/images/, which is not there; remove it",
        "CONTRIBUTING.md: the map names docs/page.md, which is not there; remove it",
        "CONTRIBUTING.md: the map names src/napari_milcnn/images/tiff.py, which is not there; remove it",
    ]


def test_the_map_says_what_each_folder_holds(house, tree):
    """A folder without a description is a mistake, and so is a CONTRIBUTING.md without a map."""
    (tree / "CONTRIBUTING.md").write_text(MAP.replace("what opens images", ""))
    assert house.map_mistakes(tree) == [
        "CONTRIBUTING.md: the map says nothing about what src/napari_milcnn/images/ holds"
    ]
    (tree / "CONTRIBUTING.md").write_text("# Contributing\n")
    assert house.map_mistakes(tree) == ["CONTRIBUTING.md has 0 blocks fenced with ```tree; expected one"]


def test_tests_lie_in_the_folders_of_the_package(house, tree):
    """A folder of tests without its room is a mistake."""
    (tree / "tests" / "model" / "test_card.py").touch()
    assert house.mistakes(tree) == [
        "tests/model has no folder of that name in src/napari_milcnn; move the tests to their room"
    ]


def test_a_folder_holds_twelve_files(house, tree):
    """Twelve files and an __init__.py pass, thirteen fail; pictures are not counted."""
    folder = tree / "tests" / "images"
    for i in range(11):
        (folder / f"test_{i}.py").touch()
    (folder / "__init__.py").touch()
    for i in range(20):
        (tree / "docs" / "images" / f"{i}.png").touch()
    assert house.size_mistakes(tree) == []
    (folder / "test_more.py").touch()
    assert house.size_mistakes(tree) == ["tests/images holds 13 files; at most 12: divide it"]


def test_long_files_and_functions(house, tree, monkeypatch):
    """700 lines and a body of 50 pass, one more of each fails. Docstrings do not count; a listed file may be long."""
    path = tree / "src/napari_milcnn/images/tiff.py"
    function = 'class A:\n    async def long(self):\n        """First.\n\n        Last.\n        """\n'
    for body, rest, expected in (
        (50, 700 - 56, []),
        (51, 700 - 56, [
            "src/napari_milcnn/images/tiff.py has 701 lines; at most 700: divide it",
            "src/napari_milcnn/images/tiff.py:2 the body of long has 51 lines; at most 50: divide it",
        ]),
    ):  # fmt: skip
        path.write_text(function + "        pass\n" * body + "# more\n" * rest)
        assert house.size_mistakes(tree) == expected
    monkeypatch.setattr(house, "LARGE", {"src/napari_milcnn/images/tiff.py": "a reason"})
    assert house.size_mistakes(tree) == []


def test_a_class_of_the_package_has_thirty_methods(house, tree):
    for folder in ("src/napari_milcnn/images", "tests/images"):
        for count in (30, 31):
            methods = "".join(f"    def m{i}(self): ...\n" for i in range(count))
            (tree / folder / "open.py").write_text(f"class A:\n{methods}")
            fault = "src/napari_milcnn/images/open.py:1 the class A has 31 methods; at most 30: divide it"
            assert house.size_mistakes(tree) == ([fault] if count > 30 and folder.startswith("src") else [])
        (tree / folder / "open.py").unlink()


@pytest.mark.parametrize(
    "code",
    [
        "def opened(): ...",
        "class opened: ...",
        "opened = 3",
        "first, (opened, *_) = 1, (2, 3)",
        "opened: int = 3",
        "try:\n    import this\nexcept ImportError:\n    opened = 3\nelse:\n    pass",
        "if True:\n    pass\nelse:\n    async def opened(): ...",
    ],
)
def test_a_name_is_defined_once(house, tree, monkeypatch, code):
    """However a name is defined, a second module with it is a mistake, unless the name is listed with a reason."""
    (tree / "src/napari_milcnn/errors.py").write_text(code)
    twin = ["opened is defined in errors.py, images/open.py; rename or join them"]
    assert house.twin_mistakes(tree) == twin
    assert house.mistakes(tree) == twin
    monkeypatch.setattr(house, "TWINS", {"opened": "a reason"})
    assert house.mistakes(tree) == []


@pytest.mark.parametrize("code", ["from images.open import opened", "def f():\n    opened = 3", "__all__ = ['opened']"])
def test_other_uses_of_a_name_are_no_definition(house, tree, code):
    """A name that is imported, local or only mentioned has no twin."""
    (tree / "src/napari_milcnn/errors.py").write_text(code)
    assert house.twin_mistakes(tree) == []


def test_exceptions_are_few_and_needed(house, tree, monkeypatch):
    """A listed name without a twin is a mistake, and so is a tenth name."""
    monkeypatch.setattr(house, "TWINS", {"opened": "a reason"})
    assert house.twin_mistakes(tree) == ["check_house.TWINS lists opened, which has no twin; remove it"]
    monkeypatch.setattr(house, "TWINS", {f"name{i}": "a reason" for i in range(10)})
    assert "check_house.TWINS lists 10 names; at most 9" in house.twin_mistakes(tree)


def test_status_and_output(house, tree, capsys):
    """Status 0 and the count of mistakes; then status 1 and the mistakes in words."""
    assert house.main(tree) == 0
    assert capsys.readouterr().out == "the house: 0 mistakes\n"
    (tree / "docs" / "page.md").unlink()
    (tree / "src/napari_milcnn/errors.py").write_text("LIMIT = 4")
    assert house.main(tree) == 1
    assert capsys.readouterr().out == (
        "CONTRIBUTING.md: the map names docs/page.md, which is not there; remove it\n"
        "LIMIT is defined in errors.py, images/open.py; rename or join them\n"
        "the house: 2 mistakes\n"
    )
