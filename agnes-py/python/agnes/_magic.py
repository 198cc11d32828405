"""`%%agnes`: SQL in the cells of a notebook."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from ._agnes import Database, QueryResult
from ._errors import InvalidInputError

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

USAGE = """\
%%agnes [DATABASE] [--out NAME] [--as pandas|polars|arrow] [--limit N] [--param NAME]... [--frame NAME]...

DATABASE is a variable that holds an opened database; without it, the one that was opened last.
--param binds `$NAME` of the SQL to the variable of that name, --frame lets the SQL name a DataFrame.
--out keeps the answer in a variable instead of showing it."""

FORMS = ("result", "pandas", "polars", "arrow")


def _wrong(message: str) -> InvalidInputError:
    return InvalidInputError(message, "invalid_input", "invalid_value", "`%%agnes --help` says what it takes")


class Options:
    """What stands on the first line of a cell."""

    def __init__(self, line: str) -> None:
        self.database: str | None = None
        self.out: str | None = None
        self.form = "result"
        self.limit: int | None = None
        self.params: list[str] = []
        self.frames: list[str] = []
        words = iter(shlex.split(line))
        for word in words:
            if not word.startswith("-"):
                if self.database is not None:
                    raise _wrong(f"`{word}` is one database too many")
                self.database = word
                continue
            value = next(words, None)
            if value is None:
                raise _wrong(f"`{word}` needs a value")
            match word:
                case "--out":
                    if not value.isidentifier():
                        raise _wrong(f"`{value}` is no name of a variable")
                    self.out = value
                case "--as":
                    if value not in FORMS:
                        raise _wrong(f"`{value}` is none of {', '.join(FORMS)}")
                    self.form = value
                case "--limit":
                    if not value.isdecimal():
                        raise _wrong(f"`{value}` is no number of rows")
                    self.limit = int(value)
                case "--param":
                    self.params.append(value)
                case "--frame":
                    self.frames.append(value)
                case _:
                    raise _wrong(f"`{word}` is no option")


def _variable(shell: InteractiveShell, name: str) -> Any:
    try:
        return shell.user_ns[name]
    except KeyError:
        raise _wrong(f"there is no variable `{name}`") from None


def _database(shell: InteractiveShell, name: str | None) -> Database:
    if name is None:
        from . import _last_opened

        found = _last_opened()
        if found is None:
            raise _wrong("no database is open: `db = agnes.open(path)` or `db = agnes.connect(url)` opens one")
        return found
    found = _variable(shell, name)
    if not isinstance(found, Database):
        raise _wrong(f"`{name}` is no opened database")
    return found


def run(shell: InteractiveShell, line: str, sql: str) -> object:
    """Asks the SQL of a cell."""
    if line.strip() in ("-h", "--help") or not sql.strip():
        print(USAGE)
        return None
    options = Options(line)
    result = _database(shell, options.database).query(
        sql.strip().removesuffix(";"),
        {name: _variable(shell, name) for name in options.params} or None,
        frames={name: _variable(shell, name) for name in options.frames} or None,
        limit=options.limit,
    )
    answer = _in_form(result, options.form)
    if options.out is None:
        return answer
    shell.user_ns[options.out] = answer
    return None


def _in_form(result: QueryResult, form: str) -> object:
    match form:
        case "pandas":
            return result.to_pandas()
        case "polars":
            return result.to_polars()
        case "arrow":
            return result.to_arrow()
        case _:
            # Shown and kept: reading it once must not use it up.
            return result.load()


def load(shell: InteractiveShell) -> None:
    """Registers `%%agnes` and `%agnes SQL`."""

    def magic(line: str, cell: str | None = None) -> object:
        return run(shell, "", line) if cell is None else run(shell, line, cell)

    # Its types are those of a decorator around it.
    register: Any = shell.register_magic_function
    register(magic, magic_kind="line_cell", magic_name="agnes")
