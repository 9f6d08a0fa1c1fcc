"""`workbench`: run the notebook chain, serve the dashboard."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from same.errors import InputError, RunFailed

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)

Runs = Annotated[Path, typer.Option(help="Folder of runs.")]


@app.command()
def reproduce(
    chain: Annotated[str, typer.Option(help="Name of a chain in notebooks/chains, or the path of a YAML file.")],
    runs: Runs = Path("runs"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would run, and stop.")] = False,
) -> None:
    """Execute a chain of notebooks and write its report."""
    from workbench.chain import reproduce as run_chain

    run_chain(chain, runs, dry_run)


@app.command()
def serve(
    runs: Runs = Path("runs"),
    port: Annotated[int, typer.Option(help="Port on this machine; 0 takes a free one.")] = 5006,
) -> None:
    """Open the dashboard on a folder of runs."""
    from workbench.app import serve as serve_page

    serve_page(runs, port)


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
