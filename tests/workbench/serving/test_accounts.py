"""The file of accounts: what it keeps, whom it knows, what is refused."""

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from same.errors import InputError
from workbench.serving.accounts import Accounts

PASSWORD = "correct horse"


@pytest.fixture
def accounts(tmp_path: Path) -> Accounts:
    found = Accounts(tmp_path / "users.json")
    found.add("alice", "runner", PASSWORD)
    found.add("bob@lab.example", "viewer", None)
    return found


def test_a_password_is_kept_as_an_argon2_hash_in_a_file_of_its_owner_alone(accounts: Accounts) -> None:
    accounts.check()
    content = accounts.path.read_text(encoding="utf-8")
    assert PASSWORD not in content
    assert json.loads(content)["users"]["alice"]["hash"].startswith("$argon2id$")
    assert stat.S_IMODE(accounts.path.stat().st_mode) == 0o600
    assert [path.name for path in accounts.path.parent.iterdir()] == ["users.json"]


def test_names_passwords_and_roles_are_compared(accounts: Accounts) -> None:
    assert accounts.verify("alice", PASSWORD)
    assert not accounts.verify("alice", "correct horsE")
    assert not accounts.verify("carol", PASSWORD)
    assert not accounts.verify("bob@lab.example", "")  # logs in elsewhere
    assert accounts.role("alice") == "runner"
    assert accounts.role("bob@lab.example") == "viewer"
    assert accounts.role("carol") is None
    assert accounts.role(None) is None


def test_a_change_of_the_file_is_seen(accounts: Accounts) -> None:
    Accounts(accounts.path).add("alice", "viewer", "another password")
    assert accounts.role("alice") == "viewer"
    assert not accounts.verify("alice", PASSWORD)


def test_a_seal_ends_with_the_password_and_with_the_account(accounts: Accounts) -> None:
    seal = accounts.seal("alice")
    assert accounts.holder(seal) == "alice"
    assert [accounts.holder(forged) for forged in ("alice", "alice:", "", "bob@lab.example")] == [None] * 4
    assert accounts.holder(accounts.seal("bob@lab.example")) is None  # has no password
    accounts.add("alice", "runner", "another password")
    assert accounts.holder(seal) is None
    seal = accounts.seal("alice")
    accounts.remove("alice")
    assert accounts.holder(seal) is None
    assert accounts.holder(accounts.seal("alice")) is None
    assert accounts.role("bob@lab.example") == "viewer"


@pytest.mark.parametrize(
    ("name", "role", "password", "said"),
    [
        ("a b", "viewer", PASSWORD, "name"),
        ("", "viewer", PASSWORD, "name"),
        ("../x", "viewer", PASSWORD, "name"),
        ("<script>", "viewer", PASSWORD, "name"),
        ("a", "admin", PASSWORD, "Choices: viewer, runner"),
        ("a", "viewer", "short", "got 5"),
        ("a", "viewer", "x" * 2000, "got 2000"),
    ],
)
def test_what_cannot_be_an_account_is_refused_and_nothing_is_written(
    name: str, role: str, password: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        Accounts(tmp_path / "users.json").add(name, role, password)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"schema": 1, "users": {"a": 1}}', '{"schema": 2, "users": {}}',
                '{"schema": 1, "users": {"a": {"role": "root", "hash": null}}}']
)  # fmt: skip
def test_a_file_of_another_form_is_named(content: str, tmp_path: Path) -> None:
    path = tmp_path / "users.json"
    path.write_text(content, encoding="utf-8")
    path.chmod(0o600)
    with pytest.raises(InputError, match=r"users\.json"):
        Accounts(path).check()


def test_a_file_that_others_can_read_is_refused(accounts: Accounts) -> None:
    accounts.path.chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        accounts.check()
    with pytest.raises(InputError, match="workbench user add"):
        Accounts(accounts.path.with_name("none.json")).check()


def test_the_command_reads_the_password_from_standard_input(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "users.json"
    command = [sys.executable, "-m", "workbench.cli", "user", "add", "carol", "--role", "runner", "--auth", str(path)]
    done = subprocess.run(command, input=f"{PASSWORD}\n", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    assert Accounts(path).verify("carol", PASSWORD)
    done = subprocess.run(command, input="short\n", capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "10 to 1024" in done.stderr


def test_the_command_takes_an_account_out(accounts: Accounts) -> None:
    command = [sys.executable, "-m", "workbench.cli", "user", "remove", "alice", "--auth", str(accounts.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(accounts.read()) == ["bob@lab.example"]
    assert stat.S_IMODE(accounts.path.stat().st_mode) == 0o600
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "Unknown user 'alice'" in done.stderr
