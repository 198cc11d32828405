"""What admins and operators do, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

from ._agnes import Database, Grants, Groups, Policies, Sources, Tables, Users


class Admin:
    """People, what they may read, and the place itself. At a server the token's owner has to be an admin."""

    __slots__ = ("_db",)

    def __init__(self, db: Database) -> None:
        self._db = db

    @property
    def users(self) -> Users:
        """The people."""
        return self._db.users

    @property
    def groups(self) -> Groups:
        """Named sets of people."""
        return self._db.groups

    @property
    def grants(self) -> Grants:
        """What is open to whom."""
        return self._db.grants

    @property
    def policies(self) -> Policies:
        """What groups see of the tables they may read."""
        return self._db.policies

    @property
    def sources(self) -> Sources:
        """Where data comes from."""
        return self._db.sources

    @property
    def tables(self) -> Tables:
        """The registered tables."""
        return self._db.tables

    def audit(self, limit: int = 100, **filter: object) -> list[dict[str, Any]]:
        """The audit log, newest first."""
        return self._db.audit(limit, **filter)

    def rebuild(self) -> dict[str, Any]:
        """Publishes what is in the extracts folder."""
        return self._db.rebuild()

    def runs(self, limit: int = 20) -> list[dict[str, Any]]:
        """Sync runs, newest first."""
        return self._db.runs(limit)

    def cancel(self, run_id: str) -> bool:
        """Stops a sync run; whether there was something to stop."""
        return self._db.cancel(run_id)

    def backup(self, target: str | PathLike[str]) -> dict[str, Any]:
        """Copies state and data into a new folder; of data folders, since it holds the server's keys."""
        return self._db.backup(target)

    def gc(self, *, dry_run: bool = False) -> dict[str, Any]:
        """Deletes what nothing refers to."""
        return self._db.gc(dry_run=dry_run)

    def doctor(self) -> dict[str, Any]:
        """What is wrong with the data folder, and what to do."""
        return self._db.doctor()

    def replay(self, receipt: Mapping[str, Any]) -> dict[str, Any]:
        """Asks the query of a receipt again."""
        return self._db.replay(receipt)

    def __repr__(self) -> str:
        return f"<agnes.Admin of {self._db!r}>"
