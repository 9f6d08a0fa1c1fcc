"""Who may enter and what they may do: a JSON file of names, roles and argon2 hashes, readable by its owner alone."""

import json
import os
import re
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from platformdirs import user_config_path

from same.errors import InputError
from same.registry import choose

ROLES = {"viewer": "reads everything", "runner": "may also queue jobs"}
SHORTEST = 10
LONGEST = 1024
_SCHEMA = 1
_NAME = re.compile(r"[\w.@+-]{1,64}")
_HASHER = PasswordHasher()


def default_path() -> Path:
    """Where accounts are kept when no file is named."""
    return user_config_path("same-workbench") / "users.json"


@dataclass(frozen=True)
class Account:
    """One person."""

    role: str
    hash: str | None
    """None for who logs in elsewhere (OAuth)."""


class Accounts:
    """The accounts of one file, read again when it changes."""

    def __init__(self, path: Path):
        self.path = path

    def check(self) -> None:
        """Read the file once, so that what is wrong with it is said at the start.

        Raises:
            InputError: it is missing, not of this form, empty, or open to others.
        """
        if not self.path.is_file():
            raise InputError(f"The auth file must exist; {self.path} does not. Make it: workbench user add NAME.")
        if os.name == "posix" and self.path.stat().st_mode & 0o077:
            raise InputError(f"The auth file must be its owner's alone; {self.path} is not. Do chmod 600 on it.")
        if not self.read():
            raise InputError(f"The auth file must hold an account; {self.path} has none. Do workbench user add NAME.")

    def read(self) -> dict[str, Account]:
        """Return the accounts by name."""
        try:
            seen = self.path.stat()
        except OSError as error:
            raise InputError(f"The auth file {self.path} must be readable; {error.strerror}.") from None
        return _read(self.path, (seen.st_mtime_ns, seen.st_size, seen.st_ino))

    def role(self, name: str | None) -> str | None:
        """The role of a person, None for who is not listed."""
        account = self.read().get(name or "")
        return account.role if account else None

    def seal(self, name: str) -> str:
        """What a login's cookie says: the name, and what ends with the password."""
        account = self.read().get(name)
        known = account.hash if account and account.hash else ""
        return f"{name}:{sha256(known.encode()).hexdigest()[:32]}"

    def holder(self, seal: str) -> str | None:
        """Whose seal it is, None when the account or its password is another one by now."""
        name = seal.partition(":")[0]
        account = self.read().get(name)
        return name if account and account.hash and seal == self.seal(name) else None

    def verify(self, name: str, password: str) -> bool:
        """Whether the password is the account's; unknown names take as long as known ones."""
        account = self.read().get(name)
        known = account.hash if account and account.hash else None
        try:
            fits = _HASHER.verify(known or _nobody(), password[:LONGEST])
        except (VerificationError, InvalidHashError):
            return False
        return fits and known is not None

    def add(self, name: str, role: str, password: str | None) -> None:
        """Write an account, replacing one of that name.

        Args:
            name: letters, digits and ``. _ @ + -``.
            role: viewer or runner.
            password: None for who logs in by OAuth.

        Raises:
            InputError: the name, role or password cannot be used, or the file cannot be written.
        """
        check_new(name, role)
        if password is not None and not SHORTEST <= len(password) <= LONGEST:
            raise InputError(
                f"A password must have {SHORTEST} to {LONGEST} characters; got {len(password)}. Choose another."
            )
        accounts = self.read() if self.path.exists() else {}
        hashed = None if password is None else _HASHER.hash(password)
        self._write({**accounts, name: Account(role, hashed)})

    def remove(self, name: str) -> None:
        """Take an account out of the file.

        Raises:
            InputError: there is none of that name, or the file cannot be written.
        """
        accounts = self.read()
        choose("user", name, list(accounts))
        self._write({other: one for other, one in accounts.items() if other != name})

    def _write(self, accounts: dict[str, Account]) -> None:
        users = {name: {"role": one.role, "hash": one.hash} for name, one in sorted(accounts.items())}
        beside = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, beside = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)  # mode 0600
            with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
                json.dump({"schema": _SCHEMA, "users": users}, stream, indent=1)
                stream.flush()
                os.fsync(stream.fileno())
            Path(beside).replace(self.path)
        except OSError as error:
            if beside:
                Path(beside).unlink(missing_ok=True)
            raise InputError(f"The auth file {self.path} must be writable; {error.strerror}. Give another.") from None


def check_new(name: str, role: str) -> None:
    """Refuse a name or a role that no account can have."""
    choose("role", role, list(ROLES))
    if not _NAME.fullmatch(name):
        raise InputError(f"A user's name must be 1 to 64 letters, digits or . _ @ + -; got {name!r}. Choose another.")


@lru_cache(maxsize=1)
def _nobody() -> str:
    """A hash that no password is meant to fit, to spend the same time on unknown names."""
    return _HASHER.hash(os.urandom(32).hex())


@lru_cache(maxsize=8)
def _read(path: Path, _identity: object) -> dict[str, Account]:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        found = {str(name): Account(one["role"], one["hash"]) for name, one in content["users"].items()}
        wrong = [name for name, one in found.items() if one.role not in ROLES]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"The auth file must be one that `workbench user add` wrote; {path} is not ({type(error).__name__})."
        ) from None
    if content.get("schema") != _SCHEMA or wrong:
        fault = f"the role of {', '.join(wrong)}" if wrong else f"schema {content.get('schema')!r}"
        raise InputError(f"The auth file {path} has {fault}; write the account anew with `workbench user add`.")
    return found
