"""Plug-ins by file stem: what stands in a package's folder is what can be named."""

import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Sequence
from difflib import get_close_matches
from types import ModuleType
from typing import TypeVar

from same.errors import InputError

T = TypeVar("T")


def names(package: str) -> list[str]:
    """List the plug-ins of ``package`` without importing any of them.

    Args:
        package: dotted name, for example ``"same.methods"``.

    Returns:
        The stems of its files that do not start with ``_``, sorted.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        raise InputError(f"A plug-in package must be an importable package; got {package!r}.")
    found = pkgutil.iter_modules(spec.submodule_search_locations)
    return sorted(module.name for module in found if not module.ispkg and not module.name.startswith("_"))


def choose(kind: str, name: str, choices: Sequence[str]) -> str:
    """Return ``name`` if it is one of ``choices``; otherwise say what could have been meant."""
    if name in choices:
        return name
    near = get_close_matches(name, choices, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise InputError(f"Unknown {kind} {name!r}.{hint} Choices: {', '.join(choices) or 'none'}.")


def require_extra(package: str, extra: str, setting: str) -> None:
    """Check that an optional package which a setting needs is there.

    Raises:
        InputError: it is not; says what to install.
    """
    if importlib.util.find_spec(package) is None:
        raise InputError(
            f"{setting} must find the package {package}; it is not installed. Install it with the extra: "
            f"pip install 'same-workbench[{extra}]'."
        )


def load(package: str, name: str) -> ModuleType:
    """Import the plug-in ``name`` of ``package``.

    Raises:
        InputError: no file of that stem stands in the package.
    """
    kind = package.rpartition(".")[2].rstrip("s").replace("_", " ")
    return importlib.import_module(f"{package}.{choose(kind, name, names(package))}")


def load_class(package: str, name: str, base: type[T]) -> type[T]:
    """Return the one public subclass of ``base`` that the plug-in file defines."""
    module = load(package, name)
    found = [
        item
        for key, item in vars(module).items()
        if inspect.isclass(item)
        and issubclass(item, base)
        and item.__module__ == module.__name__
        and not key.startswith("_")
    ]
    if len(found) != 1:
        raise InputError(
            f"{package}/{name}.py must define exactly one public subclass of {base.__name__}; "
            f"got {[item.__name__ for item in found]}. Make the others private or move them to a file of their own."
        )
    return found[0]
