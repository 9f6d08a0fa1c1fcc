"""`workbench`: run the notebook chain, serve the dashboard, keep its accounts, measure it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from same.errors import InputError, RunFailed

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
users = typer.Typer(no_args_is_help=True, help="Keep the accounts of the dashboard.")
app.add_typer(users, name="user")

Runs = Annotated[Path, typer.Option(help="Folder of runs.")]


@app.command()
def reproduce(
    chain: Annotated[str, typer.Option(help="Name of a chain in notebooks/chains, or the path of a YAML file.")],
    runs: Runs = Path("runs"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run, and stop.")] = False,
    begin: Annotated[
        str | None, typer.Option("--from", help="Notebook to begin at: it and those after it run again.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler whose workers train the runs, as tcp://host:8786.")
    ] = None,
) -> None:
    """Execute a chain of notebooks and write its report.

    What is done and unchanged is skipped, so the same command goes on where an earlier one ended.
    """
    from workbench.chain import reproduce as run_chain

    run_chain(chain, runs, dry_run, begin, scheduler)


@app.command()
def serve(  # noqa: PLR0913 - a command has as many options as its contract says
    runs: Runs = Path("runs"),
    port: Annotated[int, typer.Option(help="TCP port; 0 takes a free one.")] = 5006,
    address: Annotated[str, typer.Option(help="Network interface; 0.0.0.0 is all of them.")] = "127.0.0.1",
    auth: Annotated[
        Path | None, typer.Option(help="File of accounts, from `workbench user add`; none: no login.")
    ] = None,
    oauth: Annotated[str | None, typer.Option(help="Log in by this OAuth provider; --auth says who may enter.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="Dask scheduler, tcp://HOST:PORT; none: a worker here.")] = None,
    prefix: Annotated[str, typer.Option(help="Path below which a reverse proxy shows the page.")] = "",
    allow_websocket_origin: Annotated[
        list[str] | None, typer.Option(help="HOST or HOST:PORT that browsers may call the server by; repeatable.")
    ] = None,
    jobs_per_user: Annotated[int, typer.Option(help="Jobs of one user that wait or run.")] = 3,
    job_minutes: Annotated[float, typer.Option(help="Time a job may take.")] = 60.0,
    job_gigabytes: Annotated[float, typer.Option(help="Memory a job may take.")] = 8.0,
) -> None:
    """Open the dashboard on a folder of runs."""
    from workbench.app import Serving
    from workbench.app import serve as serve_page
    from workbench.jobs.queue import Limits

    limits = Limits(per_user=jobs_per_user, minutes=job_minutes, gigabytes=job_gigabytes)
    hosts = tuple(allow_websocket_origin or ())
    serve_page(runs, Serving(port, address, auth, oauth, scheduler, prefix, hosts, limits))


@app.command()
def bench(
    minutes: Annotated[float, typer.Option(help="How long the crowd moves its sliders.")] = 0.5,
    sessions: Annotated[int, typer.Option(help="How many come at once.")] = 50,
    view: Annotated[str, typer.Option(help="Whose slider is moved: spectra (δ) or drift (the layer).")] = "spectra",
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
) -> None:
    """Measure the dashboard on runs of a 7B model's size: a real browser alone, then a crowd of websocket sessions."""
    import json

    from workbench.bench.measure import Load, measure

    found = measure(Load(minutes, sessions, view))
    print(json.dumps(found) if as_json else "\n".join(f"{name:24}{value}" for name, value in found.items()))


@users.command()
def add(
    name: Annotated[str, typer.Argument(help="How the person logs in.")],
    role: Annotated[str, typer.Option(help="viewer, or runner, who may also queue jobs.")] = "viewer",
    auth: Annotated[Path | None, typer.Option(help="File of accounts (default: in the user's configuration).")] = None,
    without_password: Annotated[bool, typer.Option("--without-password", help="For who logs in by OAuth.")] = False,
) -> None:
    """Add or replace an account; the password is asked for, or read from standard input."""
    from workbench.serving.accounts import Accounts, check_new, default_path

    check_new(name, role)
    accounts = Accounts(auth or default_path())
    accounts.add(name, role, None if without_password else _password(name))
    print(f"{name} is {role} in {accounts.path}. Serve with: workbench serve --auth {accounts.path}")


@users.command()
def remove(
    name: Annotated[str, typer.Argument(help="Who may no longer enter.")],
    auth: Annotated[Path | None, typer.Option(help="File of accounts (default: in the user's configuration).")] = None,
) -> None:
    """Take an account out; a server that runs lets it do no more."""
    from workbench.serving.accounts import Accounts, default_path

    accounts = Accounts(auth or default_path())
    accounts.remove(name)
    print(f"{name} is no longer in {accounts.path}.")


def _password(name: str) -> str:
    if sys.stdin.isatty():
        return str(typer.prompt(f"Password of {name}", hide_input=True, confirmation_prompt=True, err=True))
    return sys.stdin.readline().rstrip("\r\n")


def main() -> None:
    """Exit with 0 when done, 1 when the work failed, 2 on bad input."""
    try:
        app()
    except InputError as error:
        print(f"workbench: {error}", file=sys.stderr)
        sys.exit(2)
    except RunFailed as error:
        print(f"workbench: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
