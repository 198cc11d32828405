"""A data folder with one small shop in it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import agnes

ORDERS = """id,customer,region,ordered_on,revenue,paid
1,Ada,north,2026-01-05,10.50,true
2,Bob,south,2026-01-06,20.00,false
3,Ada,north,2026-02-01,5.25,true
4,Cy,,2026-02-03,99.99,true
"""
SALARIES = "name,salary\nAda,5000\nBob,4000\n"


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    folder = tmp_path / "exports"
    folder.mkdir()
    (folder / "orders.csv").write_text(ORDERS)
    (folder / "salaries.csv").write_text(SALARIES)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def db(folder: Path, exports: Path) -> Iterator[agnes.Database]:
    with agnes.open(folder) as database:
        database.sources.add("shop", "files", path=exports)
        run = database.sync()
        assert run["state"] == "succeeded", run
        yield database


@pytest.fixture
def analyst(db: agnes.Database) -> str:
    """A person who may read `orders` and nothing else."""
    db.users.add("ann@acme.example", "Ann")
    db.groups.create("sales")
    db.groups.add_member("sales", "ann@acme.example")
    db.grants.add("sales", "orders")
    return "ann@acme.example"
