"""Sits at a terminal: types at the shell of `agnes query`, and looks at what comes."""

import codecs
import errno
import fcntl
import os
import pty
import re
import select
import struct
import sys
import termios
import time

PROMPT = "agnes> "
# How long anything may take on a slow machine.
PATIENCE = 120


class Terminal:
    def __init__(self, arguments, rows=24, columns=200):
        self.child, self.screen = pty.fork()
        if self.child == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
            os.execv(arguments[0], arguments)
        self.seen = ""
        self.decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def type(self, text):
        os.write(self.screen, text.encode())

    def read(self, seconds):
        if not select.select([self.screen], [], [], seconds)[0]:
            return False
        try:
            piece = os.read(self.screen, 65536)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            piece = b""
        if not piece:
            raise EOFError(self.seen)
        self.seen += re.sub(r"\x1b(\[[0-9;?]*[A-Za-z]|[=>])", "", self.decoder.decode(piece))
        return True

    def until(self, text):
        """What comes up to `text`, which has to come."""
        end = time.monotonic() + PATIENCE
        while text not in self.seen:
            assert time.monotonic() < end, f"{text!r} did not come: {self.seen!r}"
            self.read(1)
        at = self.seen.index(text) + len(text)
        came, self.seen = self.seen[:at], self.seen[at:]
        return came

    def ask(self, line, text):
        """Types a line; what is shown up to `text`, which is no part of it, then the next prompt."""
        self.type(line + "\r")
        came = self.until(text)
        self.until(PROMPT)
        return came

    def ended(self):
        """Its exit code; it has to end."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                self.read(0.2)
            except EOFError:
                break
        _, status = os.waitpid(self.child, 0)
        return os.waitstatus_to_exitcode(status)


def busy(terminal):
    """A query that never ends, and what ends it."""
    terminal.type("select count(*) from range(100000) a, range(100000) b, range(100000) c where a.range + b.range = c.range;\r")
    terminal.until("c.range;")
    # A key that comes too early is for the line that is typed; then once more.
    end = time.monotonic() + PATIENCE
    while "interrupted" not in terminal.seen:
        assert time.monotonic() < end, terminal.seen
        if not terminal.read(3):
            terminal.type("\x03")
    terminal.until("interrupted")
    while terminal.read(1):
        pass
    terminal.seen = ""
    assert "7" in terminal.ask("select 3 + 4 as seven;", "1 row")


def talk(arguments, history):
    terminal = Terminal(arguments)
    banner = terminal.until(PROMPT)
    assert "Ctrl-D ends" in banner, banner
    # Statements go over lines, and several stand in one.
    terminal.type("select count(*) as n\r")
    terminal.type("from orders;\r")
    came = terminal.until("1 row")
    terminal.until(PROMPT)
    assert re.search(r"\b4\b", came), came
    came = terminal.ask("; select 41 + 1 as a; select ';' as b;", "│ ; ")
    assert "42" in came, came
    # Names are completed: tables, then columns of those that are named, also by an alias.
    came = terminal.ask("select count(*) from ord\t;", "1 row")
    assert "orders" in came, came
    came = terminal.ask("select count(*) from orders where stat\t = 'lost';", "1 row")
    assert "status" in came, came
    came = terminal.ask("select o.status from orders o where o.am\t > 30;", "1 row")
    assert "paid" in came and "o.amount" in came, came
    # A quote that is open goes with the name that takes its place.
    terminal.ask('select count(*) as n from "ord\t;', "1 row")
    terminal.ask('select count(*) as n from orders where "stat\t = \'lost\';', "1 row")
    # Commands of the shell.
    terminal.ask("\\dt", "orders")
    came = terminal.ask("\\d orders", "amount")
    assert "status" in came, came
    terminal.ask("\\d nothing", "error")
    terminal.ask("\\?", "\\timing")
    terminal.ask("\\l", "SOURCE")
    terminal.ask("\\timing", "timing is on")
    terminal.ask("select 1;", "time: ")
    terminal.ask("\\timing off", "timing is off")
    terminal.ask("\\x", "one field a line")
    terminal.ask("select 1 as one;", "record 1")
    terminal.ask("\\f csv", "shown as csv")
    came = terminal.ask("select id, status from orders order by id limit 1;", "1,paid")
    assert "id,status" in came, came
    terminal.ask("\\f json", "shown as json")
    terminal.ask("select 1 as one;", '"one"')
    terminal.ask("\\f table", "shown as table")
    terminal.ask("\\limit 2", "2 rows")
    terminal.ask("select id from orders;", "there is more")
    terminal.ask("\\f parquet", "nothing to show")
    terminal.ask("\\nonsense", "no command")
    # What fails is told, and the next one is asked.
    terminal.ask("selec 1;", "error")
    terminal.ask("select * from nobody;", "error")
    # What is long goes through the pager.
    terminal.ask("\\limit 0", "all rows")
    terminal.ask("select a.id from orders a, orders b, orders c;", "paged by me")
    terminal.ask("\\pager off", "the pager is off")
    terminal.ask("select 'here' as w;", "1 row")
    # Ctrl-C gives up what is typed.
    terminal.type("select nonsense")
    terminal.type("\x03")
    terminal.until(PROMPT)
    busy(terminal)
    # The last one again, from the history.
    terminal.type("\x1b[A")
    terminal.until("3 + 4 as seven;")
    terminal.type("\r")
    terminal.until("1 row")
    terminal.until(PROMPT)
    terminal.type("\x04")
    assert terminal.ended() == 0
    assert os.stat(history).st_mode & 0o777 == 0o600, oct(os.stat(history).st_mode)
    assert os.stat(os.path.dirname(history)).st_mode & 0o077 == 0 or ".agnes" in history
    # Another one remembers.
    terminal = Terminal(arguments)
    terminal.until(PROMPT)
    terminal.type("\x1b[A")
    terminal.until("3 + 4 as seven;")
    terminal.type("\x03")
    terminal.until(PROMPT)
    terminal.type("\\q\r")
    assert terminal.ended() == 0
    # Where columns do not fit side by side there is a line for each field.
    narrow = Terminal(arguments, columns=30)
    narrow.until(PROMPT)
    narrow.ask("\\dt", "record 1")
    narrow.type("\x04")
    assert narrow.ended() == 0


os.environ["PAGER"] = "sed 's/^/paged by me /'"
os.environ["TERM"] = "xterm"
history, *arguments = sys.argv[1:]
talk(arguments, history)
print("well")
