"""Answers that show themselves in a notebook. Each is the plain list or dict that it looks like."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

LONGEST = 120
"""Characters of a cell."""


def cell(value: object) -> str:
    """One value as text."""
    if value is None:
        return ""
    if isinstance(value, float):
        text = f"{value:,.6g}"
    elif isinstance(value, bool):
        text = "yes" if value else "no"
    elif isinstance(value, int):
        text = f"{value:,}"
    elif isinstance(value, list):
        text = ", ".join(map(cell, value))
    elif isinstance(value, dict):
        text = ", ".join(f"{name}: {cell(inner)}" for name, inner in value.items())
    else:
        text = str(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def grid(header: Sequence[str], rows: Iterable[Sequence[object]], caption: str = "") -> str:
    """A table of HTML; every text is escaped."""
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell(value))}</td>" for value in row) + "</tr>" for row in rows)
    told = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f"<table>{told}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _of(rows: Sequence[dict[str, Any]], wanted: Sequence[str] = (), caption: str = "") -> str:
    """Those columns of records that hold anything."""
    names = [*wanted] or list(dict.fromkeys(name for row in rows for name in row))
    names = [name for name in names if any(row.get(name) not in (None, "", [], {}) for row in rows)]
    return grid(names, ([row.get(name) for name in names] for row in rows), caption)


def bars(counts: Sequence[float]) -> str:
    """A histogram as a line of text."""
    most = max(counts, default=0)
    return "".join("▁▂▃▄▅▆▇█"[int(count / most * 7)] for count in counts) if most else ""


def _of_column(column: dict[str, Any]) -> dict[str, object]:
    """What a person looks for first in the statistics of a column."""
    missing = column.get("completeness_pct")
    row: dict[str, object] = {
        "column": column.get("name"),
        "type": column.get("type"),
        "missing": f"{100 - missing:.4g} %" if missing is not None and missing < 100 else None,
        "distinct": column.get("unique_count"),
    }
    numbers, dates = column.get("numeric_stats") or {}, column.get("date_stats") or {}
    texts, flags = column.get("string_stats") or {}, column.get("boolean_stats") or {}
    row["least"] = numbers.get("min", dates.get("earliest"))
    row["median"] = numbers.get("median")
    row["most"] = numbers.get("max", dates.get("latest"))
    row["spread"] = bars((numbers.get("histogram") or dates.get("histogram") or {}).get("counts", []))
    row["often"] = [f"{top['value']} ({top['pct']:.3g} %)" for top in texts.get("top_values", [])[:3]]
    if flags:
        row["often"] = [f"true ({flags.get('true_pct', 0):.3g} %)"]
    row["look at"] = column.get("alerts")
    return row


class Records(list[dict[str, Any]]):
    """A list of records: users, groups, grants, registered tables."""

    def _repr_html_(self) -> str:
        return _of(self)


class Catalog(Records):
    """The tables that the caller may read."""

    def _repr_html_(self) -> str:
        wanted = ["name", "description", "rows", "size_bytes", "query_mode", "last_sync"]
        return _of(self, wanted, f"{len(self)} tables")


class Schema(dict[str, Any]):
    """The columns of a table."""

    def _repr_html_(self) -> str:
        return _of(self.get("columns", []), caption=str(self.get("table_id") or self.get("name") or ""))


class Sample(dict[str, Any]):
    """Some rows of a table."""

    def _repr_html_(self) -> str:
        return _of(self.get("rows", []), self.get("columns", []))


class Profile(dict[str, Any]):
    """Statistics of the columns of a table."""

    def _repr_html_(self) -> str:
        rows = [_of_column(column) for column in self.get("columns", [])]
        count = self.get("row_count")
        return _of(rows, caption=f"{cell(count)} rows" if count is not None else "")


class Run(dict[str, Any]):
    """A sync run: its state, and what became of each table."""

    def _repr_html_(self) -> str:
        tables = (self.get("outcome") or {}).get("tables", [])
        wanted = ["source", "table", "status", "rows", "bytes", "duration_ms", "error", "hint"]
        return _of(tables, wanted, f"the sync {self.get('state')}")
