"""`python -m same.cli` is `same`."""

from same.cli import main

main()
