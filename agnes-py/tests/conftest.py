"""A small shop: in a data folder, and at a server that serves such a folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
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
ADMIN = "admin@acme.example"
PASSWORD = "a-long-enough-passphrase"


def write_exports(folder: Path) -> Path:
    folder.mkdir()
    (folder / "orders.csv").write_text(ORDERS)
    (folder / "salaries.csv").write_text(SALARIES)
    return folder


def fill(database: agnes.Database, exports: Path) -> None:
    database.sources.add("shop", "files", path=exports)
    run = database.sync()
    assert run["state"] == "succeeded", run


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    return write_exports(tmp_path / "exports")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def db(folder: Path, exports: Path) -> Iterator[agnes.Database]:
    with agnes.open(folder) as database:
        fill(database, exports)
        yield database


@pytest.fixture
def analyst(db: agnes.Database) -> str:
    """A person who may read `orders` and nothing else."""
    return add_analyst(db)


def add_analyst(db: agnes.Database) -> str:
    db.users.add("ann@acme.example", "Ann")
    db.groups.create("sales")
    db.groups.add_member("sales", "ann@acme.example")
    db.grants.add("sales", "orders")
    return "ann@acme.example"


def sign_in(url: str, email: str, password: str) -> str:
    body = json.dumps({"email": email, "password": password}).encode()
    request = urllib.request.Request(url + "/auth/token", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return str(json.load(answer)["access_token"])


@dataclass
class Server:
    """A process that runs `agnes serve`."""

    process: subprocess.Popen[str]
    url: str
    token: str = ""
    said: list[str] = field(default_factory=list)

    @staticmethod
    def start(folder: Path, **variables: str) -> Server:
        binary = os.environ.get("AGNES_BINARY")
        if not binary:
            pytest.fail("AGNES_BINARY names no command `agnes`: run `make test-python`")
        library = Path(agnes.__file__).parent / "lib"
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": f"{library}:{os.environ.get('LD_LIBRARY_PATH', '')}",
            "SEED_ADMIN_EMAIL": ADMIN,
            "SEED_ADMIN_PASSWORD": PASSWORD,
            "SCHEDULER_STARTUP_GRACE_SECONDS": "3600",
            **variables,
        }
        command = [binary, "serve", "--bind", "127.0.0.1:0", "--data-dir", str(folder)]
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        said = []
        for line in process.stderr:
            said.append(line)
            if "Serving on http://" in line:
                server = Server(process, line.strip().partition("Serving on ")[2], said=said)
                # Somebody has to read what it logs.
                threading.Thread(target=said.extend, args=(process.stderr,), daemon=True).start()
                server.wait()
                return server
        raise AssertionError("the server ended: " + "".join(said))

    def wait(self) -> None:
        patience = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(self.url + "/readyz", timeout=60).close()
                return
            except urllib.error.HTTPError:
                assert time.monotonic() < patience, "the server never got ready"
                time.sleep(0.02)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(120)
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server over a shop with one analyst, for tests that change nothing."""
    root = tmp_path_factory.mktemp("server")
    with agnes.open(root / "data") as database:
        fill(database, write_exports(root / "exports"))
        add_analyst(database)
    server = Server.start(root / "data")
    server.token = sign_in(server.url, ADMIN, PASSWORD)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[agnes.Database]:
    """The same shop in a data folder."""
    root = tmp_path_factory.mktemp("folder")
    with agnes.open(root / "data") as database:
        fill(database, write_exports(root / "exports"))
        add_analyst(database)
        yield database


@pytest.fixture(params=["folder", "server"])
def place(request: pytest.FixtureRequest) -> Iterator[agnes.Database]:
    """The same shop at both places, for its admin, who may read all of it."""
    if request.param == "folder":
        yield request.getfixturevalue("shared_folder")
        return
    server = request.getfixturevalue("shared_server")
    with agnes.connect(server.url, token=server.token) as database:
        yield database


@pytest.fixture
def server(folder: Path, exports: Path) -> Iterator[Server]:
    """A server of one test's own."""
    with agnes.open(folder) as database:
        fill(database, exports)
    server = Server.start(folder)
    server.token = sign_in(server.url, ADMIN, PASSWORD)
    yield server
    server.stop()


def run_python(code: str, *args: object, timeout: float = 120) -> str:
    import textwrap

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, args)],
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
