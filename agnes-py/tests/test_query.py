"""Queries, their parameters, and every way to read a result."""

from __future__ import annotations

import datetime as dt
import sys
from decimal import Decimal
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import agnes


def test_rows_are_python_values(db: agnes.Database) -> None:
    result = db.query("SELECT id, customer, region, ordered_on, revenue, paid FROM orders ORDER BY id")
    assert result.columns == ["id", "customer", "region", "ordered_on", "revenue", "paid"]
    rows = result.rows()
    assert rows[0] == (1, "Ada", "north", dt.date(2026, 1, 5), rows[0][4], True)
    assert float(rows[0][4]) == 10.5
    assert rows[3][2] is None
    assert result.rows(named=True)[1]["customer"] == "Bob"
    assert result.truncated is False


@pytest.mark.parametrize(
    ("sql", "value"),
    [
        ("NULL", None),
        ("true", True),
        ("170141183460469231731687303715884105727::HUGEINT", 170141183460469231731687303715884105727),
        ("18446744073709551615::UBIGINT", 18446744073709551615),
        ("1.25::DECIMAL(10,2)", Decimal("1.25")),
        ("-0.01::DECIMAL(38,2)", Decimal("-0.01")),
        ("1e300::DOUBLE", 1e300),
        ("'žluť 🦆'", "žluť 🦆"),
        ("'\\x00\\xFF'::BLOB", b"\x00\xff"),
        ("DATE '2026-02-28'", dt.date(2026, 2, 28)),
        ("TIME '23:59:59.999999'", dt.time(23, 59, 59, 999999)),
        ("TIMESTAMP '1969-12-31 23:59:59.5'", dt.datetime(1969, 12, 31, 23, 59, 59, 500000)),
        ("TIMESTAMPTZ '2026-06-01 12:00:00+02'", dt.datetime(2026, 6, 1, 10, tzinfo=dt.timezone.utc)),
        ("[1, NULL, 3]", [1, None, 3]),
        ("{'a': 1, 'b': ['x']}", {"a": 1, "b": ["x"]}),
        ("MAP {'k': 1.5::DOUBLE}", {"k": 1.5}),
        ("'b'::ENUM('a', 'b')", "b"),
        # What Python has no value for comes as text.
        ("DATE '20000-01-01'", "+20000-01-01"),
        ("DATE '290000-01-01'", "+290000-01-01"),
        ("DATE 'infinity'", "infinity"),
        ("TIMESTAMP '-infinity'", "-infinity"),
    ],
)
def test_types(db: agnes.Database, sql: str, value: object) -> None:
    [(got,)] = db.query(f"SELECT {sql} AS v").rows()
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -3,
        2**64 - 1,
        1.5,
        "Robert'); DROP TABLE orders;--",
        b"\x00\xff",
        dt.date(2026, 2, 28),
        dt.time(1, 2, 3, 4),
        dt.datetime(2026, 2, 28, 1, 2, 3),
        dt.datetime(2026, 2, 28, 1, 2, 3, tzinfo=dt.timezone.utc),
        [1, 2, 3],
    ],
)
def test_parameters_come_back(db: agnes.Database, value: object) -> None:
    [(got,)] = db.query("SELECT ? AS v", [value]).rows()
    assert got == value


NOON = dt.datetime(2026, 2, 28, 12)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (pd.NaT, None),
        (pd.NA, None),
        (np.datetime64("NaT", "ns"), None),
        (pd.Timestamp(NOON), NOON),
        (np.datetime64("2026-02-28T12:00", "ns"), NOON),
        (np.datetime64("2026-02-28", "D"), NOON.date()),
        (np.int64(-3), -3),
        (np.bool_(True), True),
        (np.array([1, 2]), [1, 2]),
        (np.array(["2026-02-28T12:00"], "datetime64[ns]"), [NOON]),
        (pd.Series([1, 2]), [1, 2]),
        (pd.Series([NOON]), [NOON]),
        (pd.Index(["a"]), ["a"]),
        (pl.Series([1, None]), [1, None]),
    ],
    ids=repr,
)
def test_values_of_frames_are_parameters(db: agnes.Database, value: object, expected: object) -> None:
    [(got,)] = db.query("SELECT ? AS v", [value]).rows()
    assert got == expected
    [(got,)] = db.query("SELECT $v AS v", {"v": value}).rows()
    assert got == expected


def test_named_parameters(db: agnes.Database) -> None:
    sql = "SELECT count(*) FROM orders WHERE region = $region AND revenue > $least"
    assert db.query(sql, {"region": "north", "least": Decimal("6.00")}).rows() == [(1,)]
    with pytest.raises(agnes.AgnesError):
        db.query(sql, {"region": "north"}).rows()
    with pytest.raises(agnes.InvalidInputError, match="one text"):
        db.query("SELECT ?", "north")
    with pytest.raises(agnes.InvalidInputError, match="cannot be a parameter"):
        db.query("SELECT ?", [object()])


def test_every_reader_takes_the_result(db: agnes.Database) -> None:
    sql = "SELECT id, region FROM orders ORDER BY id"
    ids = [1, 2, 3, 4]
    assert pa.table(db.query(sql))["id"].to_pylist() == ids
    assert pl.DataFrame(db.query(sql))["id"].to_list() == ids
    stream = pa.RecordBatchReader.from_stream(db.query(sql))
    assert stream.read_all()["id"].to_pylist() == ids
    assert pa.schema(db.query(sql)).names == ["id", "region"]
    # Another version of DuckDB, in the same process.
    result = db.query(sql)
    relation = duckdb.sql("SELECT sum(id) FROM result")
    assert relation is not None
    assert relation.fetchall() == [(10,)]


def test_whole_results_can_be_read_again(db: agnes.Database) -> None:
    result = db.query("SELECT id FROM orders ORDER BY id")
    arrow, frame, polars = result.to_arrow(), result.to_pandas(), result.to_polars()
    assert isinstance(arrow, pa.Table)
    assert isinstance(frame, pd.DataFrame)
    assert isinstance(polars, pl.DataFrame)
    assert arrow["id"].to_pylist() == list(frame["id"]) == polars["id"].to_list() == [1, 2, 3, 4]
    assert [row[0] for row in result] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("library", "reader"),
    [("pandas", "to_pandas"), ("pyarrow", "to_pandas"), ("pyarrow", "to_arrow"), ("polars", "to_polars")],
)
def test_a_library_that_is_missing_is_named(
    db: agnes.Database, monkeypatch: pytest.MonkeyPatch, library: str, reader: str
) -> None:
    result = db.query("SELECT id FROM orders")
    # What the import machinery does where a module cannot be found.
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ModuleNotFoundError, match=rf"`{library}`.*agnes\["):
        getattr(result, reader)()
    monkeypatch.undo()
    # Nothing of it was taken.
    assert len(getattr(result, reader)()) == 4


def test_a_stream_is_read_once(db: agnes.Database) -> None:
    result = db.query("SELECT id FROM orders ORDER BY id")
    assert result.truncated is None
    assert [row[0] for row in result] == [1, 2, 3, 4]
    with pytest.raises(agnes.InvalidInputError, match="read already") as caught:
        result.to_arrow()
    assert caught.value.code == "rows_taken"
    assert "read already" in repr(result)


@pytest.mark.parametrize("reader", ["to_arrow", "to_polars", "rows"])
def test_rows_that_broke_off_are_no_answer(db: agnes.Database, reader: str) -> None:
    """Nor is the rest of them, for whoever asks once more."""
    number = "CASE WHEN i < 900000 THEN i::VARCHAR ELSE 'x' END::INTEGER"
    result = db.query(f"SELECT {number} AS n FROM range(1000000) AS r(i)")
    with pytest.raises(agnes.AgnesError, match="x"):
        getattr(result, reader)()
    with pytest.raises(agnes.InvalidInputError, match="read already"):
        result.rows()


def test_many_batches_become_one_table(db: agnes.Database) -> None:
    result = db.query("SELECT i, 'row ' || i AS text FROM range(300000) AS r(i)")
    table = result.to_arrow()
    assert (table.num_rows, table.column_names) == (300_000, ["i", "text"])
    assert sorted(table.column("i").to_pylist()) == list(range(300_000))
    assert result.to_arrow().equals(table) and result.truncated is False


def test_an_empty_result_has_its_columns(db: agnes.Database) -> None:
    result = db.query("SELECT id, region FROM orders WHERE false")
    assert result.rows() == []
    assert result.to_arrow().column_names == ["id", "region"]
    assert list(result.to_pandas().columns) == ["id", "region"]


def test_streaming_does_not_hold_the_result(db: agnes.Database) -> None:
    # A terabyte of rows, of which three are read.
    rows = iter(db.query("SELECT i, repeat('x', 100) AS t FROM range(10000000000) AS r(i)"))
    assert [next(rows)[0] for _ in range(3)] == [0, 1, 2]


def test_limits(db: agnes.Database) -> None:
    result = db.query("SELECT id FROM orders ORDER BY id", limit=2)
    assert result.rows() == [(1,), (2,)]
    assert result.truncated is True
    with pytest.raises(agnes.AgnesError) as caught:
        db.query("SELECT sum(a.i * b.i) FROM range(1000000) a(i), range(1000000) b(i)", timeout=0.3).rows()
    assert caught.value.code != "internal"
    with pytest.raises(agnes.InvalidInputError, match="seconds"):
        db.query("SELECT 1", timeout=-1)


def test_a_notebook_shows_the_first_rows_and_takes_none(db: agnes.Database) -> None:
    result = db.query("SELECT '<b>' AS \"<i>\" , i FROM range(100) AS r(i) ORDER BY i")
    html = result._repr_html_()
    assert html.count("<tr>") == 21
    assert "&lt;b&gt;" in html
    assert "<b>" not in html
    assert "<i>" not in html
    assert "first 20 rows" in html
    assert len(repr(result).splitlines()) == 23
    assert len(result.rows()) == 100


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE orders",
        "SELECT 1; SELECT 2",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM '/etc/passwd'",
        "COPY orders TO 'x.csv'",
        "SET threads = 1",
        "INSTALL httpfs",
        "not sql at all",
    ],
)
def test_refused(db: agnes.Database, sql: str) -> None:
    with pytest.raises(agnes.AgnesError) as caught:
        db.query(sql).rows()
    assert caught.value.kind in {"query_refused", "invalid_input", "not_found", "forbidden"}
    assert not caught.value.retryable


def test_grants_hold(db: agnes.Database, analyst: str) -> None:
    assert db.query("SELECT count(*) FROM orders", as_user=analyst).rows() == [(4,)]
    with pytest.raises(agnes.AgnesError) as hidden:
        db.query("SELECT count(*) FROM salaries", as_user=analyst)
    with pytest.raises(agnes.AgnesError) as unknown:
        db.query("SELECT count(*) FROM no_such_table", as_user=analyst)
    # Nobody learns which of the two exists.
    assert (hidden.value.kind, hidden.value.code) == (unknown.value.kind, unknown.value.code)
    ann = db.acting_as(analyst)
    assert {table["name"] for table in ann.catalog() if table["query_mode"] != "internal"} == {"orders"}
    [grant] = db.grants.list("sales")
    db.grants.revoke(grant["id"])
    with pytest.raises(agnes.AgnesError):
        ann.query("SELECT count(*) FROM orders")
    assert all(table["query_mode"] == "internal" for table in ann.catalog())


def test_paths_do_not_leak(db: agnes.Database, folder: Path) -> None:
    for sql in ["SELECT * FROM 'nowhere.parquet'", "SELECT error('x')", "SELECT 'a'::INT", "SELECT nope FROM orders"]:
        with pytest.raises(agnes.AgnesError) as caught:
            db.query(sql).rows()
        assert str(folder) not in str(caught.value)


def test_policies_narrow(db: agnes.Database, analyst: str) -> None:
    rules = {"filter": {"predicate": "id = 1"}, "columns": {}}
    assert db.policies.preview("sales", "orders", rules)["changes"][0]["email"] == analyst
    policy = db.policies.create("sales", "orders", rules)
    result = db.query("SELECT count(*) FROM orders", as_user=analyst)
    assert result.rows() == [(1,)]
    assert result.row_scope == [{"table": "orders", "rows_filtered": True, "masked_columns": []}]
    assert db.query("SELECT 1", as_user=analyst).row_scope == []
    assert db.policies.check()[0]["ok"]
    with pytest.raises(agnes.InvalidInputError):
        db.policies.update(policy["id"], {"filter": {"predicate": "nothing = 1"}})
    with pytest.raises(agnes.InvalidInputError):
        db.policies.create("sales", "orders", {"filtre": None})
    db.policies.remove(policy["id"])
    assert db.policies.list(table="orders") == []
    assert [version["version"] for version in db.policies.history(policy["id"])] == [2, 1]


def test_receipts_are_replayed(db: agnes.Database, analyst: str) -> None:
    result = db.query("SELECT count(*) FROM orders", as_user=analyst, receipt=True)
    result.rows()
    receipt = result.receipt
    assert receipt is not None and receipt["rows"] == 1
    replay = db.replay(receipt, as_user=analyst)
    assert replay["equal"] and replay["data"] == "receipt" and replay["changes"] == []
    with pytest.raises(agnes.InvalidInputError):
        db.replay(receipt | {"rows": 2})
    assert db.query("SELECT 1").receipt is None
