"""What schemathesis should know of the server under test: names that exist, so that not
every request ends at a name that nobody has, and who asks.

Whoever asks may end their own session, or be locked out by what they send: then they sign in
again, or another of their kind does.
"""

import os
import zlib

import requests
import schemathesis

URL = os.environ["AGNES_FUZZ_URL"]
PASSWORD = os.environ.get("AGNES_FUZZ_PASSWORD", "")
ROLE = os.environ.get("AGNES_FUZZ_ROLE", "")
PEOPLE = [email for email in os.environ.get("AGNES_FUZZ_PEOPLE", "").split(",") if email]
KNOWN = {
    "table_id": "orders",
    "table_name": "orders",
    "file": "index.css",
}


def sometimes(value) -> bool:
    """Half of the values, always the same ones."""
    return zlib.crc32(repr(value).encode()) % 2 == 0


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    if path_parameters:
        for name, value in path_parameters.items():
            if name in KNOWN and sometimes(value):
                path_parameters[name] = KNOWN[name]
    return path_parameters


class SignedIn:
    token = None

    def get(self, case, context):
        if self.token and self.is_good():
            return self.token
        for email in PEOPLE:
            answer = requests.post(f"{URL}/auth/token", json={"email": email, "password": PASSWORD}, timeout=60)
            if answer.ok:
                self.token = answer.json()["access_token"]
                if self.is_good():
                    return self.token
        raise RuntimeError(f"nobody of these is {ROLE} any more: the rest would test nothing")

    def is_good(self) -> bool:
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = requests.get(f"{URL}/auth/me", headers=headers, timeout=60)
        return answer.ok and answer.json()["role"] == ROLE

    def set(self, case, data, context):
        case.headers = case.headers or {}
        case.headers["Authorization"] = f"Bearer {data}"


if PEOPLE:
    schemathesis.auth(refresh_interval=1)(SignedIn)
