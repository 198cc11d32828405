"""The same calls on a data folder and at a server give the same answers."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import agnes

from .conftest import ADMIN, Server, run_python, sign_in

ANALYST = "ann@acme.example"


def test_a_place_says_what_it_is(place: agnes.Database) -> None:
    assert (place.path is None) is (place.url is not None)
    assert str(place.path or place.url) in repr(place)
    assert place.served_by is None


def test_catalog(place: agnes.Database) -> None:
    tables = {table["name"]: table for table in place.catalog()}
    assert tables.keys() >= {"orders", "salaries"}
    assert tables["orders"]["query_mode"] == "local"
    assert tables["orders"]["rows"] == 4
    assert isinstance(place.catalog(), list)
    html = place.catalog()._repr_html_()
    assert "<td>orders</td>" in html and "tables</caption>" in html
    assert {table["name"] for table in place.catalog(as_user=ANALYST) if table["query_mode"] == "local"} == {"orders"}


def test_rows(place: agnes.Database) -> None:
    sql = "SELECT id, ordered_on, region, paid FROM orders WHERE id >= ? ORDER BY id"
    result = place.query(sql, [2])
    assert result.columns == ["id", "ordered_on", "region", "paid"]
    assert result.rows()[0] == (2, dt.date(2026, 1, 6), "south", False)
    assert len(result.rows()) == 3
    assert result.truncated is False
    cut = place.query(sql, [1], limit=2)
    assert len(cut.rows()) == 2
    assert cut.truncated is True
    named = place.query("SELECT count(*) FROM orders WHERE region = $region", {"region": "north"})
    assert named.rows() == [(2,)]
    mine = place.query("SELECT count(*) FROM orders", as_user=ANALYST)
    assert mine.rows() == [(4,)]
    assert mine.row_scope == []


def test_every_reader(place: agnes.Database) -> None:
    sql = "SELECT id, region FROM orders ORDER BY id"
    assert place.query(sql).to_arrow()["id"].to_pylist() == [1, 2, 3, 4]
    assert list(place.query(sql).to_pandas()["id"]) == [1, 2, 3, 4]
    assert place.query(sql).to_polars()["id"].to_list() == [1, 2, 3, 4]
    assert pl.DataFrame(place.query(sql))["id"].to_list() == [1, 2, 3, 4]
    assert [row[0] for row in place.query(sql)] == [1, 2, 3, 4]


def test_batches_come_one_at_a_time(place: agnes.Database) -> None:
    result = place.query("SELECT i FROM range(300000) AS r(i)")
    seen, sizes = 0, []
    for batch in result.batches():
        table = pa.table(batch)
        sizes.append(table.num_rows)
        seen += table.num_rows
        assert batch.columns == ["i"]
        assert len(batch.to_polars()) == table.num_rows
    assert seen == 300_000
    assert max(sizes) < 300_000
    with pytest.raises(agnes.InvalidInputError, match="read already"):
        result.to_arrow()
    # Rows without end, of which some are read.
    endless = place.query("SELECT i FROM range(100000000000) AS r(i)").batches()
    assert len(next(endless).rows()) > 0


def test_one_table(place: agnes.Database) -> None:
    orders = place.table("orders")
    assert orders.columns == ["id", "customer", "region", "ordered_on", "revenue", "paid"]
    assert {column["name"] for column in orders.schema["columns"]} == set(orders.columns)
    assert orders.count() == 4
    assert len(orders.sample(2)["rows"]) == 2
    assert orders.select(["id", "region"], limit=3).to_arrow().num_rows == 3
    for frame in [orders.to_arrow().to_pandas(), orders.to_pandas(), orders.to_polars().to_pandas()]:
        assert sorted(frame["id"]) == [1, 2, 3, 4]
    assert pl.DataFrame(orders).height == pa.table(orders).num_rows == 4
    html = orders._repr_html_()
    assert "<th>" in html and "north" in html
    with pytest.raises(agnes.AgnesError):
        place.table('or"ders').count()
    with pytest.raises(agnes.NotFoundError):
        _ = place.table("nothing").schema


def test_profiles(place: agnes.Database) -> None:
    profile = place.table("orders").profile(refresh=True)
    assert profile["row_count"] == 4
    html = profile._repr_html_()
    assert "<td>region</td>" in html and "4 rows" in html
    assert "25 %" in html and "north (66.7 %)" in html and "█" in html
    assert place.table("orders").profile()["row_count"] == 4


def test_frames(place: agnes.Database) -> None:
    goals = {"region": ["north", "south"], "goal": [20.0, 10.0]}
    sql = "SELECT region, sum(revenue) >= max(goal) FROM orders JOIN goals USING (region) GROUP BY ALL ORDER BY ALL"
    for frame in [
        pd.DataFrame(goals).assign(region=lambda df: df["region"].astype("category")),
        pl.DataFrame(goals),
        pl.DataFrame(goals).with_columns(pl.col("region").cast(pl.Categorical)),
        pa.table(goals),
        place.query("SELECT * FROM (VALUES ('north', 20.0::DOUBLE), ('south', 10.0)) AS t(region, goal)"),
    ]:
        assert place.query(sql, frames={"goals": frame}).rows() == [("north", False), ("south", True)], type(frame)
    # For every query of this handle that names it.
    place.register("goals", pl.DataFrame(goals))
    assert place.query(sql).rows() == [("north", False), ("south", True)]
    assert place.query("SELECT count(*) FROM Goals").rows() == [(2,)]
    other = {"goals": pl.DataFrame({"region": ["north"], "goal": [1.0]})}
    assert place.query(sql, frames=other).rows() == [("north", True)]
    with pytest.raises(agnes.AgnesError):
        place.acting_as(ANALYST).query(sql)
    assert place.unregister("GOALS")
    assert not place.unregister("goals")
    with pytest.raises(agnes.AgnesError):
        place.query(sql)
    with pytest.raises(agnes.AgnesError):
        place.query("SELECT * FROM salaries, goals", frames=other, as_user=ANALYST)


def test_a_frame_is_never_in_the_place_of_a_table(place: agnes.Database) -> None:
    frame = pl.DataFrame({"id": [1]})
    with pytest.raises(agnes.InvalidInputError) as taken:
        place.query("SELECT * FROM orders", frames={"ORDERS": frame})
    assert (taken.value.code, taken.value.kind) == ("frame_name_taken", "invalid_input")
    for name, rows, match in [
        ("two words", frame, "characters"),
        ("f", object(), "no rows of Arrow"),
        ("f", pa.table({"a": [1], "A": [2]}), "two columns"),
        ("f", pa.table({"m": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64()))}), "type"),
    ]:
        with pytest.raises(agnes.InvalidInputError, match=match) as bad:
            place.query("SELECT * FROM f", frames={name: rows})
        assert bad.value.code == "bad_frame"


def test_types_of_frames(place: agnes.Database) -> None:
    now = dt.datetime(2026, 2, 28, 1, 2, 3, 456789)
    frame = pl.DataFrame(
        {
            "i": pl.Series([1, None], dtype=pl.Int8),
            "u": pl.Series([2**64 - 1, None], dtype=pl.UInt64),
            "f": [1.5, None],
            "t": ["žluť", None],
            "b": [b"\x00\xff", None],
            "d": [dt.date(2026, 2, 28), None],
            "at": [now, None],
            "zoned": pl.Series([now.replace(tzinfo=dt.timezone.utc), None]),
            "time": [dt.time(1, 2, 3), None],
            "list": [[1, 2], None],
            "yes": [True, None],
            "struct": [{"a": 1, "b": "x"}, None],
            "nothing": [None, None],
        }
    )
    rows = place.query("SELECT * FROM f", frames={"f": frame}).rows()
    assert rows[0] == (
        1, 2**64 - 1, 1.5, "žluť", b"\x00\xff", dt.date(2026, 2, 28), now, now.replace(tzinfo=dt.timezone.utc),
        dt.time(1, 2, 3), [1, 2], True, {"a": 1, "b": "x"}, None,
    )  # fmt: skip
    assert set(rows[1]) == {None}


def test_errors_by_kind(place: agnes.Database) -> None:
    for sql, kind in [
        ("not sql at all", agnes.InvalidInputError),
        ("SELECT nope FROM orders", agnes.InvalidInputError),
        ("DROP TABLE orders", agnes.QueryRefusedError),
        ("SELECT 1; SELECT 2", agnes.QueryRefusedError),
        ("SELECT * FROM read_csv('/etc/passwd')", agnes.QueryRefusedError),
        ("SELECT * FROM nothing", agnes.QueryRefusedError),
    ]:
        with pytest.raises(kind) as caught:
            place.query(sql).rows()
        assert not caught.value.retryable
        assert caught.value.code != "internal"
    with pytest.raises(agnes.AgnesError) as hidden:
        place.query("SELECT * FROM salaries", as_user=ANALYST)
    with pytest.raises(agnes.AgnesError) as unknown:
        place.query("SELECT * FROM nothing", as_user=ANALYST)
    assert hidden.value.code == unknown.value.code == "relation_denied"
    with pytest.raises(agnes.LimitExceededError) as late:
        place.query("SELECT sum(a.i * b.i) FROM range(10000000) a(i), range(10000000) b(i)", timeout=0.5).rows()
    assert late.value.code == "query_timeout"


def test_admin(place: agnes.Database) -> None:
    admin = place.admin
    bea = admin.users.add("bea@acme.example", "Bea")
    assert bea["email"] == "bea@acme.example"
    assert "bea@acme.example" in {user["email"] for user in admin.users.list()}
    assert "bea@acme.example" in admin.users.list()._repr_html_()
    group = admin.groups.create("finance", "for money")
    assert group["name"] == "finance"
    admin.groups.add_member("finance", "bea@acme.example")
    assert [member["email"] for member in admin.groups.members("finance")] == ["bea@acme.example"]
    grant = admin.grants.add("finance", "salaries")
    assert [one["id"] for one in admin.grants.list("finance")] == [grant["id"]]
    assert [item["resource_id"] for item in admin.users.access("bea")["items"]] == ["salaries"]
    assert place.query("SELECT count(*) FROM salaries", as_user="bea@acme.example").rows() == [(2,)]
    rules = {"filter": {"predicate": "salary > 4500"}}
    assert admin.policies.preview("finance", "salaries", rules)["changes"][0]["email"] == "bea@acme.example"
    policy = admin.policies.create("finance", "salaries", rules)
    narrowed = place.query("SELECT count(*) FROM salaries", as_user="bea@acme.example")
    assert narrowed.rows() == [(1,)]
    assert narrowed.row_scope[0]["rows_filtered"] is True
    assert admin.policies.check(policy["id"])[0]["ok"]
    assert [one["id"] for one in admin.policies.list(table="salaries")] == [policy["id"]]
    changed = admin.policies.update(policy["id"], {"filter": {"predicate": "salary > 0"}}, expected_version=1)
    assert changed["version"] == 2
    with pytest.raises(agnes.ConflictError):
        admin.policies.update(policy["id"], rules, expected_version=1)
    assert admin.policies.remove(policy["id"])["id"] == policy["id"]
    assert [version["version"] for version in admin.policies.history(policy["id"])][-1] == 1
    admin.grants.revoke(grant["id"])
    with pytest.raises(agnes.AgnesError):
        place.query("SELECT count(*) FROM salaries", as_user="bea@acme.example")
    admin.users.deactivate("bea@acme.example")
    admin.users.activate("bea@acme.example")
    admin.groups.remove_member("finance", "bea@acme.example")
    admin.groups.delete("finance")
    admin.users.remove("bea@acme.example")
    assert "bea@acme.example" not in {user["email"] for user in admin.users.list()}
    assert any(event["action"].startswith("query") for event in admin.audit(limit=100))
    with pytest.raises(agnes.NotFoundError):
        admin.users.get("nobody@acme.example")


def test_tables_of_the_registry(place: agnes.Database) -> None:
    assert {table["name"] for table in place.tables.list()} >= {"orders", "salaries"}
    assert place.tables.get("orders")["source"] == "shop"
    assert place.tables.history("orders")[0]["table_id"] == "orders"
    with pytest.raises(agnes.NotFoundError):
        place.tables.get("nothing")
    assert {table for table in place.manifest()["tables"]} >= {"orders", "salaries"}
    assert isinstance(place.admin.rebuild(), dict)


def test_sync(place: agnes.Database) -> None:
    events: list[dict[str, object]] = []
    run = place.sync(tables=["orders"], progress=events.append)
    assert run["state"] == "succeeded"
    assert [table["table"] for table in run["outcome"]["tables"]] == ["orders"]
    assert "<td>orders</td>" in run._repr_html_()


def test_runs(place: agnes.Database) -> None:
    events: list[dict[str, object]] = []
    run = place.sync(["shop"], full=True, progress=events.append)
    assert {table["table"] for table in run["outcome"]["tables"]} == {"orders", "salaries"}
    ended = {event["table"]: event["status"] for event in events if event["event"] == "table_finished"}
    assert ended.keys() == {"orders", "salaries"} and set(ended.values()) <= {"ok", "unchanged"}
    runs = place.runs(limit=1)
    assert [one["id"] for one in runs] == [run["id"]] and runs[0]["state"] == "succeeded"
    assert place.admin.cancel(run["id"]) is False
    with pytest.raises(agnes.NotFoundError):
        place.cancel("nothing")
    with pytest.raises(agnes.NotFoundError):
        place.sync(["nothing"])


def test_sources(place: agnes.Database) -> None:
    assert [source["name"] for source in place.sources.list()] == ["shop"]
    assert all(item["ok"] for item in place.admin.sources.check("shop"))
    assert {table["source_table"] for table in place.sources.discover("shop")} == {"orders.csv", "salaries.csv"}
    with pytest.raises(agnes.NotFoundError):
        place.sources.check("nothing")
    with pytest.raises(agnes.NotFoundError):
        place.sources.remove("nothing")


def test_looking_after_it(place: agnes.Database) -> None:
    assert {check["name"] for check in place.doctor()["checks"]} >= {"state", "disk", "catalog"}
    assert place.admin.gc(dry_run=True)["dry_run"] is True
    result = place.query("SELECT count(*) FROM orders", receipt=True)
    assert result.rows() == [(4,)]
    receipt = result.receipt
    assert receipt is not None
    assert place.replay(receipt)["equal"]
    assert place.replay(receipt, as_user=ANALYST)["equal"]
    with pytest.raises(agnes.InvalidInputError):
        place.admin.replay(receipt | {"rows": 2})
    link = place.users.invite(ANALYST)
    assert link["email"] == ANALYST and "/auth/password/setup" in link["link"]


def test_progress_is_told_on_standard_error(place: agnes.Database, capsys: pytest.CaptureFixture[str]) -> None:
    place.sync(tables=["orders"], progress=True)
    told = capsys.readouterr()
    assert told.out == ""
    assert "the sync succeeded" in told.err
    place.sync(tables=["orders"], progress=False)
    place.sync(tables=["orders"])
    assert capsys.readouterr().err == ""


def test_asyncio(place: agnes.Database) -> None:
    async def main() -> None:
        results = await asyncio.gather(*(place.aquery("SELECT ?::INT", [n]) for n in range(4)))
        assert [(await result.aload()).rows()[0][0] for result in results] == [0, 1, 2, 3]
        assert {table["name"] for table in await place.acatalog()} >= {"orders"}
        seen = 0
        result = await place.aquery("SELECT i FROM range(300000) AS r(i)")
        async for batch in result.batches():
            seen += pa.table(batch).num_rows
        assert seen == 300_000
        orders = place.table("orders")
        assert len((await orders.asample(1))["rows"]) == 1
        assert (await orders.aprofile())["row_count"] == 4
        assert len((await (await orders.aselect(["id"])).aload()).rows()) == 4
        assert (await place.async_sync(tables=["orders"]))["state"] == "succeeded"

    asyncio.run(main())


def test_what_is_for_folders_alone_says_so(shared_server: Server, tmp_path: Path) -> None:
    with agnes.connect(shared_server.url, token=shared_server.token) as db:
        with pytest.raises(agnes.UnsupportedError) as caught:
            db.backup(tmp_path / "copy")
        assert caught.value.code == "not_at_a_server"
        assert "never leave its machine" in str(caught.value) and caught.value.hint
        # What reaches the files of the server's machine is added there.
        with pytest.raises(agnes.AccessError) as refused:
            db.sources.add("own", "files", path="/etc")
        assert refused.value.code == "source_for_operators"
        assert "own" not in {source["name"] for source in db.sources.list()}


def test_a_server_refuses_as_itself(shared_server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ["AGNES_TOKEN", "AGNES_SERVER"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AGNES_CONFIG_DIR", str(tmp_path / "config"))
    with pytest.raises(agnes.AccessError) as nobody:
        agnes.connect(shared_server.url)
    assert nobody.value.code == "not_signed_in"
    with pytest.raises(agnes.AccessError) as nowhere:
        agnes.connect()
    assert nowhere.value.code == "no_server"
    wrong = agnes.connect(shared_server.url, token="wrong")
    with pytest.raises(agnes.AccessError) as refused:
        wrong.catalog()
    assert refused.value.kind == "unauthenticated"
    assert "wrong" not in str(refused.value) and "wrong" not in repr(wrong)
    with pytest.raises(agnes.UnavailableError) as away:
        agnes.connect("http://127.0.0.1:9", token="t").catalog()
    assert away.value.retryable
    with pytest.raises(agnes.InvalidInputError):
        agnes.connect("no address", token="t")
    monkeypatch.setenv("AGNES_SERVER", shared_server.url)
    monkeypatch.setenv("AGNES_TOKEN", shared_server.token)
    with agnes.connect() as db:
        assert db.url == shared_server.url
        assert db.query("SELECT 1").rows() == [(1,)]
    with pytest.raises(agnes.InvalidInputError) as closed:
        db.query("SELECT 1")
    assert closed.value.code == "database_closed"


def test_members_of_a_server_are_members(server: Server) -> None:
    with agnes.connect(server.url, token=server.token) as admin:
        admin.users.add(ANALYST, "Ann")
        admin.groups.create("sales")
        admin.groups.add_member("sales", ANALYST)
        admin.grants.add("sales", "orders")
    password = "another-long-passphrase"
    # As an operator gives it.
    set_password(server, ANALYST, password)
    with agnes.connect(server.url, token=sign_in(server.url, ANALYST, password)) as ann:
        assert {table["name"] for table in ann.catalog() if table["query_mode"] == "local"} == {"orders"}
        assert ann.table("orders").count() == 4
        with pytest.raises(agnes.AgnesError):
            ann.table("salaries").count()
        calls: list[Callable[[], object]] = [
            ann.users.list,
            ann.sync,
            ann.audit,
            lambda: ann.acting_as(ADMIN).catalog(),
        ]
        for call in calls:
            with pytest.raises(agnes.AccessError):
                call()


def set_password(server: Server, email: str, password: str) -> None:
    import json
    import urllib.request

    def call(method: str, path: str, body: object = None) -> object:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(server.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=60) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    users = call("GET", "/api/users?limit=100")
    assert isinstance(users, list)
    [user] = [user["id"] for user in users if user["email"] == email]
    call("POST", f"/api/users/{user}/set-password", {"password": password, "must_change": False})


def test_ctrl_c_ends_a_query_at_a_server(shared_server: Server) -> None:
    code = """
        import os, signal, sys, threading, agnes
        db = agnes.connect(sys.argv[1], token=sys.argv[2])
        threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        try:
            db.query("SELECT sum(a.i * b.i) FROM range(10000000) a(i), range(10000000) b(i)").rows()
        except KeyboardInterrupt:
            print("interrupted")
    """
    assert run_python(code, shared_server.url, shared_server.token) == "interrupted\n"
