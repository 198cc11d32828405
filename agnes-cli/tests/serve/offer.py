"""Sits at a terminal: answers the one question of a command; prints what the command showed."""

import os
import pty
import sys

question, answer, *arguments = sys.argv[1:]
child, screen = pty.fork()
if child == 0:
    os.execv(arguments[0], arguments)
shown, asked = b"", False
while True:
    try:
        piece = os.read(screen, 65536)
    except OSError:
        # How Linux says that the other end is closed.
        break
    if not piece:
        break
    shown += piece
    if not asked and question.encode() in shown:
        asked = True
        os.write(screen, answer.encode() + b"\r")
_, status = os.waitpid(child, 0)
assert asked, shown
print(shown.decode())
sys.exit(os.waitstatus_to_exitcode(status))
