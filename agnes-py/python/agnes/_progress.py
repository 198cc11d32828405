"""Progress of a sync, where people look: a notebook or a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

from ._shown import grid

Event = Mapping[str, Any]


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")


def of(progress: bool | Callable[[Event], object] | None) -> Callable[[Event], object] | None:
    """Where the events of one run go: in a notebook a table that grows, unless it is told otherwise."""
    if progress is None:
        progress = in_notebook()
    if progress is True:
        return Display()
    if progress is False:
        return None
    return progress


class Display:
    """Shows each table of a run in one place of the notebook, or a line for each on standard error."""

    def __init__(self) -> None:
        self._tables: dict[str, dict[str, Any]] = {}
        self._handle: Any = None
        self._in_notebook = in_notebook()
        if self._in_notebook:
            from IPython.display import HTML, display

            self._handle = display(HTML("<p>the sync begins</p>"), display_id=True)

    def __call__(self, event: Event) -> None:
        """Takes one event."""
        kind = event["event"]
        if kind == "stage":
            self._line(f"{event['name']} ...")
            return
        name = f"{event['source']}.{event['table']}"
        row = self._tables.setdefault(name, {"table": name, "status": "reads", "read": "", "rows": ""})
        total = event.get("total_bytes")
        if kind == "table_started" and total:
            row["total"] = total
        elif kind == "table_progress":
            share = event["bytes"] / row["total"] if row.get("total") else None
            row["read"] = f"{min(share, 1):.0%}" if share is not None else f"{event['bytes']:,} B"
        elif kind == "table_finished":
            row.update(status=event["status"], rows=f"{event['rows']:,}", read="")
            self._line(f"{name}: {event['status']}, {event['rows']:,} rows")
        self._show()

    def end(self, run: Mapping[str, Any] | None) -> None:
        """Shows how the run ended, with what became of each table."""
        for table in ((run or {}).get("outcome") or {}).get("tables", []):
            name = f"{table['source']}.{table['table']}"
            self._tables[name] = {
                "table": name,
                "status": table["status"],
                "read": "",
                "rows": f"{table['rows']:,}",
            }
        self._show()
        self._line(f"the sync {run['state']}" if run else "the sync did not end well")

    def _line(self, text: str) -> None:
        if not self._in_notebook:
            print(text, file=sys.stderr)

    def _show(self) -> None:
        if self._handle is not None:
            from IPython.display import HTML

            rows = [[row["table"], row["status"], row["read"], row["rows"]] for row in self._tables.values()]
            self._handle.update(HTML(grid(["table", "status", "read", "rows"], rows)))
