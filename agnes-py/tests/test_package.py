"""The wheel, its types, and its independence from everything else."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

import agnes


@pytest.fixture
def wheel() -> Path:
    path = os.environ.get("AGNES_WHEEL")
    if not path:
        pytest.fail("AGNES_WHEEL names no wheel: run `make test-python`")
    return Path(path)


def test_it_runs_with_nothing_but_the_wheel(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "venv"
    venv.create(home, with_pip=True)
    python = home / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-index", wheel], check=True)
    code = "import sys, agnes; print(agnes.open(sys.argv[1]).query('SELECT 41 + 1').rows())"
    # No library path, no Python path: the wheel carries what it needs.
    env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        [python, "-c", code, tmp_path / "data"], capture_output=True, text=True, env=env, cwd=tmp_path
    )
    assert done.stdout == "[(42,)]\n", done.stderr


def test_the_wheel_holds_what_it_should(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in [r"agnes/_agnes\.abi3\.so", r"agnes/lib/libduckdb\.(so|dylib)", r"agnes/py\.typed", r"agnes/_agnes\.pyi"]:
        assert any(re.fullmatch(wanted, name) for name in names), f"{wanted} is missing in {names}"


def test_the_stubs_are_those_of_the_module(tmp_path: Path) -> None:
    config = Path(__file__).parent.parent / "pyproject.toml"
    command = [sys.executable, "-m", "mypy.stubtest", "--mypy-config-file", str(config), "agnes"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_typed_use_passes_strict_mypy() -> None:
    here = Path(__file__).parent
    config = here.parent / "pyproject.toml"
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", config, here], capture_output=True, text=True, cwd=here
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_everything_public_is_exported() -> None:
    assert all(hasattr(agnes, name) for name in agnes.__all__)
    assert re.fullmatch(r"\d+\.\d+\.\d+", agnes.__version__)
