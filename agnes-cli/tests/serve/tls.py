"""Speaks TLS before a server, with a certificate of an authority that nobody knows.

Arguments: the server's port, a folder. Writes `ca.pem` and `chain.pem` there; prints the port it listens at. With port 0
the server's port is a line of standard input, once it is known.
"""

import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path

port, folder = int(sys.argv[1]), Path(sys.argv[2])


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, cwd=folder)


key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=An authority", "-days", "2")
openssl("req", *key, "-keyout", "leaf.key", "-out", "leaf.csr", "-subj", "/CN=127.0.0.1")
(folder / "names").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
signed = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
openssl("x509", "-req", "-in", "leaf.csr", *signed, "-out", "leaf.pem")

(folder / "chain.pem").write_text((folder / "leaf.pem").read_text() + (folder / "ca.pem").read_text())

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(folder / "leaf.pem", folder / "leaf.key")
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
if port == 0:
    # The server has to know its address before it is there.
    port = int(sys.stdin.readline())


def pump(source, target):
    try:
        while piece := source.recv(65536):
            target.sendall(piece)
    except OSError:
        pass
    finally:
        try:
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def serve(client):
    try:
        client = context.wrap_socket(client, server_side=True)
    except (ssl.SSLError, OSError):
        return
    upstream = socket.create_connection(("127.0.0.1", port))
    threading.Thread(target=pump, args=(client, upstream), daemon=True).start()
    pump(upstream, client)


while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
