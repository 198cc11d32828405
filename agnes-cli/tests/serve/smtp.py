"""An SMTP server for tests: keeps each mail in a file, takes one user and password.

    smtp.py FOLDER starttls|implicit|none CERT KEY

Prints its port, then serves until its standard input ends.
"""

import asyncio
import os
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword

folder, mode, cert, key = sys.argv[1:5]
USER, PASSWORD = b"agnes", b"a password of the mail server"


class Keep:
    count = 0

    async def handle_DATA(self, server, session, envelope):
        if any("refused" in address for address in envelope.rcpt_tos):
            return "550 no such mailbox"
        self.count += 1
        name = os.path.join(folder, f"{self.count}.eml")
        with open(name + ".part", "wb") as file:
            file.write(b"X-To: " + ",".join(envelope.rcpt_tos).encode() + b"\r\n" + envelope.content)
        os.rename(name + ".part", name)
        return "250 kept"


def knows(server, session, envelope, mechanism, given):
    right = isinstance(given, LoginPassword) and given.login == USER and given.password == PASSWORD
    return AuthResult(success=right, handled=right)


async def main():
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    keep, loop = Keep(), asyncio.get_running_loop()
    options = {"authenticator": knows, "auth_required": True, "auth_require_tls": mode == "starttls"}
    if mode == "starttls":
        options |= {"tls_context": tls, "require_starttls": True}
    server = await loop.create_server(
        lambda: SMTP(keep, hostname="localhost", **options), "127.0.0.1", 0, ssl=tls if mode == "implicit" else None
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    # Threads of clients that linger must not keep a test waiting.
    os._exit(0)


asyncio.run(main())
