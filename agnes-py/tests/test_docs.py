"""The examples of the documentation, run."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

import agnes

DOCS = Path(__file__).parents[2] / "docs" / "guides"


def test_examples_of_the_notebook_guide(place: agnes.Database) -> None:
    done = doctest.testfile(
        str(DOCS / "notebooks.md"),
        module_relative=False,
        globs={"agnes": agnes, "db": place},
        optionflags=doctest.ELLIPSIS,
    )
    assert done.attempted > 20
    assert done.failed == 0


def test_examples_of_the_python_guide(
    tmp_path: Path, exports: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "python.md").read_text(), re.DOTALL)
    assert len(blocks) >= 4
    monkeypatch.chdir(tmp_path)
    # One namespace: each block goes on where the one before it ended.
    names: dict[str, object] = {}
    try:
        for block in blocks:
            exec(compile(block, "python.md", "exec"), names)
    finally:
        db = names.get("db")
        if isinstance(db, agnes.Database):
            db.close()


def test_the_first_example(tmp_path: Path, exports: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    [block] = re.findall(r"```python\n(import agnes\n\nwith .*?)```", readme, re.DOTALL)
    exec(compile(block, "README.md", "exec"), {})
