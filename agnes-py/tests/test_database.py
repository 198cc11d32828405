"""Opening, closing, errors, threads, processes, asyncio."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import agnes

from .conftest import run_python


def test_verbs(db: agnes.Database, exports: Path) -> None:
    assert [source["name"] for source in db.sources.list()] == ["shop"]
    assert all(item["ok"] for item in db.sources.check("shop"))
    assert {table["name"] for table in db.sources.discover("shop")} == {"orders", "salaries"}
    assert {table["name"] for table in db.catalog()} >= {"orders", "salaries"}
    assert {column["name"] for column in db.tables.schema("salaries")["columns"]} == {"name", "salary"}
    assert db.tables.profile("orders")
    assert db.tables.sample("salaries", 1)
    assert db.tables.history("orders")
    assert db.tables.get("orders")["source"] == "shop"
    (exports / "orders.csv").write_text("id,revenue\n1,2.5\n")
    events: list[dict[str, object]] = []
    run = db.sync(["shop"], progress=events.append)
    assert run["state"] == "succeeded"
    assert {table["table"]: table["status"] for table in run["outcome"]["tables"]} == {
        "orders": "ok",
        "salaries": "unchanged",
    }
    assert any(event["event"] == "table_finished" for event in events)
    assert db.query("SELECT revenue::DOUBLE FROM orders").rows() == [(2.5,)]
    assert db.runs(limit=1)[0]["id"] == run["id"]
    assert any(event["action"].startswith("query") for event in db.audit(limit=50))
    assert isinstance(db.doctor(), dict)
    db.sources.remove("shop", drop_data=True)
    assert db.sources.list() == []


def test_people(db: agnes.Database, analyst: str) -> None:
    assert [user["email"] for user in db.users.list()] == [analyst]
    access = db.users.access(analyst)
    assert [item["resource_id"] for item in access["items"]] == ["orders"]
    db.users.deactivate(analyst)
    with pytest.raises(agnes.AccessError):
        db.query("SELECT 1", as_user=analyst)
    db.users.activate(analyst)
    assert {member["email"] for member in db.groups.members("sales")} == {analyst}
    db.groups.remove_member("sales", analyst)
    assert db.groups.members("sales") == []
    db.groups.delete("sales")
    db.users.remove(analyst)
    assert db.users.list() == []


def test_errors_by_kind(db: agnes.Database) -> None:
    with pytest.raises(agnes.NotFoundError) as missing:
        db.sources.check("nowhere")
    assert isinstance(missing.value, LookupError)
    assert missing.value.code == "source_not_found"
    assert missing.value.hint
    assert f"hint: {missing.value.hint}" in str(missing.value)
    with pytest.raises(agnes.ConflictError):
        db.groups.delete("Admin")
    with pytest.raises(agnes.InvalidInputError) as bad:
        db.users.add("no address")
    assert isinstance(bad.value, ValueError)
    with pytest.raises(agnes.InvalidInputError, match="no connector"):
        db.sources.add("x", "nonsense")
    with pytest.raises(TypeError):
        db.sources.add("x", "files", path=object())
    copy = pickle.loads(pickle.dumps(missing.value))
    assert (type(copy), copy.code, str(copy)) == (agnes.NotFoundError, missing.value.code, str(missing.value))


def test_every_kind_has_its_exception() -> None:
    from agnes._errors import KINDS, from_wire

    for kind, exception in KINDS.items():
        error = from_wire({"kind": kind, "code": "c", "message": "m", "hint": None, "retryable": False, "facts": None})
        assert type(error) is exception
        assert str(error) == "m"


def test_closed(db: agnes.Database) -> None:
    rows = db.query("SELECT id FROM orders").rows()
    db.close()
    db.close()
    assert len(rows) == 4
    with pytest.raises(agnes.InvalidInputError) as caught:
        db.query("SELECT 1")
    assert caught.value.code == "database_closed"


def test_state_survives(db: agnes.Database, folder: Path, analyst: str) -> None:
    db.close()
    with agnes.open(str(folder)) as again:
        assert again.query("SELECT count(*) FROM orders", as_user=analyst).rows() == [(4,)]


def test_two_handles_in_one_process(db: agnes.Database, folder: Path) -> None:
    with agnes.open(folder) as other:
        assert other.query("SELECT count(*) FROM orders").rows() == [(4,)]
    assert db.query("SELECT count(*) FROM orders").rows() == [(4,)]


def test_a_second_process_is_served_by_the_holder(db: agnes.Database, folder: Path) -> None:
    code = """
        import sys, agnes
        db = agnes.open(sys.argv[1])
        print(db.served_by)
        print(db.query("SELECT count(*) FROM orders WHERE region = ?", ["north"]).rows())
        db.users.add("from@other.example")
        try:
            db.query("DROP TABLE orders")
        except agnes.AgnesError as e:
            print(type(e).__name__)
    """
    out = run_python(code, folder).splitlines()
    assert out[0] == str(os.getpid())
    assert out[1] == "[(2,)]"
    assert out[2] in {"QueryRefusedError", "InvalidInputError"}
    assert [user["email"] for user in db.users.list()] == ["from@other.example"]
    assert db.served_by is None


def test_a_forked_child_is_told_not_hung(db: agnes.Database, folder: Path) -> None:
    code = """
        import os, sys, agnes
        db = agnes.open(sys.argv[1])
        child = os.fork()
        if child == 0:
            try:
                db.query("SELECT 1")
            except agnes.UnsupportedError as e:
                os._exit(7 if e.code == "opened_before_fork" else 1)
            os._exit(2)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        print(db.query("SELECT 1").rows())
    """
    db.close()
    assert run_python(code, folder).splitlines() == ["7", "[(1,)]"]


def test_other_threads_run_while_the_engine_works(db: agnes.Database) -> None:
    ticks = 0
    stop = threading.Event()

    def tick() -> None:
        nonlocal ticks
        while not stop.wait(0.005):
            ticks += 1

    thread = threading.Thread(target=tick)
    thread.start()
    db.query("SELECT sum(hash(i)) % 7 FROM range(60000000) AS r(i)").rows()
    stop.set()
    thread.join()
    assert ticks > 10


def test_queries_from_many_threads(db: agnes.Database) -> None:
    answers: list[int] = []

    def ask(number: int) -> None:
        answers.append(db.query("SELECT ?::INT + count(*) FROM orders", [number]).rows()[0][0])

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == list(range(4, 16))


def test_ctrl_c_ends_a_query(db: agnes.Database, folder: Path) -> None:
    db.close()
    code = """
        import os, signal, sys, threading, time, agnes
        db = agnes.open(sys.argv[1])
        threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        start = time.monotonic()
        try:
            db.query("SELECT sum(a.i * b.i) FROM range(10000000) a(i), range(10000000) b(i)").rows()
        except KeyboardInterrupt:
            print("interrupted", time.monotonic() - start < 20)
    """
    assert run_python(code, folder) == "interrupted True\n"


def test_asyncio(folder: Path, exports: Path) -> None:
    async def main() -> list[int]:
        db = await agnes.aopen(folder)
        with db:
            db.sources.add("shop", "files", path=exports)
            run = await db.async_sync()
            assert run["state"] == "succeeded"
            results = await asyncio.gather(*(db.aquery("SELECT ?::INT", [n]) for n in range(4)))
            return [result.rows()[0][0] for result in results]

    assert asyncio.run(main()) == [0, 1, 2, 3]


def test_who_does_not_wait_any_more_ends_the_query(db: agnes.Database, folder: Path) -> None:
    db.close()
    code = """
        import asyncio, sys, agnes

        async def main(db):
            sql = "SELECT sum(a.i * b.i) FROM range(10000000) a(i), range(10000000) b(i)"
            try:
                await asyncio.wait_for(db.aquery(sql, timeout=600), 1)
            except TimeoutError:
                print("left")
            print((await db.aquery("SELECT 1")).rows())

        with agnes.open(sys.argv[1]) as db:
            # Its end waits for the threads.
            asyncio.run(main(db))
            print("end")
    """
    assert run_python(code, folder, timeout=45) == "left\n[(1,)]\nend\n"


def test_a_dropped_stream_frees_its_query(db: agnes.Database) -> None:
    for _ in range(30):
        next(iter(db.query("SELECT i FROM range(100000000) AS r(i)")))
    gc.collect()
    assert db.query("SELECT 1").rows() == [(1,)]


def test_an_open_database_is_closed_at_exit(folder: Path) -> None:
    start = time.monotonic()
    assert run_python("import sys, agnes; db = agnes.open(sys.argv[1]); print('end')", folder) == "end\n"
    assert time.monotonic() - start < 30
    with agnes.open(folder) as db:
        assert db.served_by is None


def test_killed_holders_leave_the_folder_usable(db: agnes.Database, folder: Path) -> None:
    db.close()
    code = "import sys, time, agnes; db = agnes.open(sys.argv[1]); print('ready', flush=True); time.sleep(60)"
    holder = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "ready\n"
        with agnes.open(folder) as served:
            assert served.served_by == holder.pid
            holder.send_signal(signal.SIGKILL)
            holder.wait()
            assert served.query("SELECT count(*) FROM orders").rows() == [(4,)]
            assert served.served_by is None
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
