"""What a notebook sees: the magic, and answers that show themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from IPython.core.interactiveshell import InteractiveShell

import agnes
from agnes import _progress


@pytest.fixture
def shell() -> Iterator[InteractiveShell]:
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "agnes")
    yield shell
    shell.run_line_magic("reload_ext", "agnes")
    InteractiveShell.clear_instance()


def ask(shell: InteractiveShell, line: str, cell: str) -> Any:
    return shell.run_cell_magic("agnes", line, cell)  # type: ignore[no-untyped-call]


def test_sql_in_a_cell(place: agnes.Database, shell: InteractiveShell) -> None:
    shell.user_ns["db"] = place
    result = ask(shell, "db", "SELECT id\nFROM orders ORDER BY id;")
    assert result.rows() == [(1,), (2,), (3,), (4,)]
    assert "<td>1</td>" in result._repr_html_()
    for form, kind in [("pandas", pd.DataFrame), ("polars", pl.DataFrame), ("arrow", pa.Table)]:
        assert isinstance(ask(shell, f"db --as {form}", "FROM orders"), kind)
    assert ask(shell, "db --out kept --limit 2", "FROM orders") is None
    assert len(shell.user_ns["kept"].rows()) == 2
    assert shell.user_ns["kept"].truncated is True


def test_variables_of_the_notebook(place: agnes.Database, shell: InteractiveShell) -> None:
    goals = pl.DataFrame({"region": ["north"], "goal": [10.0]})
    shell.user_ns.update(db=place, least=15, goals=goals)
    sql = "SELECT count(*) FROM orders JOIN goals USING (region) WHERE revenue < $least"
    assert ask(shell, "db --param least --frame goals", sql).rows() == [(2,)]


def test_the_last_opened_database_is_meant(db: agnes.Database, shell: InteractiveShell) -> None:
    assert ask(shell, "", "SELECT count(*) FROM orders").rows() == [(4,)]
    line = shell.run_line_magic("agnes", "SELECT 41 + 1")
    assert line.rows() == [(42,)]


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("nothing", "no variable"),
        ("text", "no opened database"),
        ("db --as excel", "none of"),
        ("db --limit many", "no number"),
        ("db --out 1x", "no name"),
        ("db --nope 1", "no option"),
        ("db --param", "needs a value"),
        ("db db", "too many"),
        ("db --param gone", "no variable"),
    ],
)
def test_what_it_does_not_take(db: agnes.Database, shell: InteractiveShell, line: str, match: str) -> None:
    shell.user_ns.update(db=db, text="x")
    with pytest.raises(agnes.InvalidInputError, match=match):
        ask(shell, line, "SELECT 1")


def test_help(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    assert ask(shell, "--help", "SELECT 1") is None
    assert "--frame" in capsys.readouterr().out


def test_progress_grows_in_one_place(db: agnes.Database, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []

    class Handle:
        def update(self, html: Any) -> None:
            shown.append(html.data)

    def display(html: Any, display_id: bool) -> Handle:
        assert display_id
        return Handle()

    monkeypatch.setattr(_progress, "in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", display)
    # In a notebook it shows itself.
    run = db.sync(tables=["orders"])
    assert run["state"] == "succeeded"
    assert "shop.orders" in shown[-1] and "unchanged" in shown[-1]
    shown.clear()
    db.sync(tables=["orders"], progress=False)
    assert shown == []


def test_answers_show_themselves_escaped() -> None:
    from agnes._shown import Catalog, Profile, Records, grid

    evil = "<script>alert(1)</script>"
    for html in [
        grid([evil], [[evil]], evil),
        Records([{evil: evil}])._repr_html_(),
        Catalog([{"name": evil, "description": [evil]}])._repr_html_(),
        Profile({"row_count": 1, "columns": [{"name": evil}]})._repr_html_(),
    ]:
        assert "<script" not in html
        assert "&lt;script" in html
    assert "…" in grid(["a"], [["x" * 1000]])
    # Empty columns are left out.
    assert Records([{"a": 1, "b": None}])._repr_html_().count("<th>") == 1


def test_values_are_shown_short_and_have_no_power_over_the_terminal(db: agnes.Database) -> None:
    result = db.query("SELECT chr(27) || '[2J' AS \"a\x1bb\", repeat('x', 5000) AS long")
    shown = repr(result)
    assert "\x1b" not in shown and "[2J" in shown and "…" in shown
    html = result._repr_html_()
    assert "…" in html and "x" * 900 in html and "x" * 1100 not in html
    assert len(result.rows()[0][1]) == 5000


def test_results_of_the_engine_are_what_they_look_like(place: agnes.Database) -> None:
    profile = place.table("orders").profile()
    assert isinstance(profile, dict)
    assert isinstance(place.catalog(), list)
    assert place.catalog() == list(place.catalog())
