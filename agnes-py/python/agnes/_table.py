"""One table: what it is like, and its rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ._agnes import Database, QueryResult
from ._aio import in_thread
from ._shown import Profile, Sample, Schema

if TYPE_CHECKING:
    import pandas
    import polars
    # It has no types of its own.
    import pyarrow as _pyarrow


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


class Table:
    """A table that the caller may read. Nothing is asked until something of it is wanted."""

    __slots__ = ("_db", "name")

    def __init__(self, db: Database, name: str) -> None:
        self._db = db
        self.name = name
        """Its name, as SQL has it."""

    @property
    def schema(self) -> Schema:
        """Its columns, and what is known of them."""
        return self._db.tables.schema(self.name)

    @property
    def columns(self) -> list[str]:
        """Names of its columns."""
        return [column["name"] for column in self.schema["columns"]]

    def profile(self, *, refresh: bool = False) -> Profile:
        """Statistics of its columns; made again with `refresh`."""
        return self._db.tables.profile(self.name, refresh=refresh)

    def sample(self, rows: int = 10) -> Sample:
        """Some rows."""
        return self._db.tables.sample(self.name, rows)

    def select(
        self,
        columns: Sequence[str] | None = None,
        *,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> QueryResult:
        """Its rows, as a query gives them; of these columns alone, where they are named."""
        wanted = "*" if columns is None else ", ".join(map(_quoted, columns))
        return self._db.query(f"SELECT {wanted} FROM {_quoted(self.name)}", limit=limit, timeout=timeout)

    def count(self) -> int:
        """How many rows it has for the caller."""
        rows = self._db.query(f"SELECT count(*) FROM {_quoted(self.name)}").rows()
        return int(rows[0][0])

    def to_arrow(self) -> _pyarrow.Table:
        """All of it as a `pyarrow.Table`."""
        return self.select().to_arrow()

    def to_pandas(self) -> pandas.DataFrame:
        """All of it as a `pandas.DataFrame`."""
        return self.select().to_pandas()

    def to_polars(self) -> polars.DataFrame:
        """All of it as a `polars.DataFrame`."""
        return self.select().to_polars()

    async def aprofile(self, *, refresh: bool = False) -> Profile:
        """`profile` for asyncio."""
        return await in_thread(self.profile, refresh=refresh)

    async def asample(self, rows: int = 10) -> Sample:
        """`sample` for asyncio."""
        return await in_thread(self.sample, rows)

    async def aselect(
        self,
        columns: Sequence[str] | None = None,
        *,
        limit: int | None = None,
        timeout: float | None = None,
    ) -> QueryResult:
        """`select` for asyncio."""
        return await in_thread(self.select, columns, limit=limit, timeout=timeout)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.select().__arrow_c_stream__(requested_schema)

    def __repr__(self) -> str:
        return f"<agnes.Table {self.name} of {self._db!r}>"

    def _repr_html_(self) -> str:
        return self.schema._repr_html_() + self.select(limit=10)._repr_html_()

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if name != "_db"]
