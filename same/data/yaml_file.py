"""A YAML file a person writes: its values by key and type, every complaint by file, place and choices."""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import yaml

from same.errors import InputError


class YamlFile:
    """Reads what such a file holds; a subclass says which error and which advice its complaints carry."""

    error: ClassVar[type[InputError]] = InputError
    remedy: ClassVar[str] = "Mend the file."

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, kind: str) -> Any:
        """What YAML makes of the file."""
        try:
            return yaml.safe_load(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
            raise self.error(f"{self.path}: {kind} must be readable YAML; got {error}. Mend the file.") from error

    def one_of(self, given: Mapping[str, Any], key: str, choices: Iterable[str], place: str) -> str:
        """The text under a key, one of the choices."""
        value: str = self.value(given, key, str, place)
        if value not in (known := list(choices)):
            raise self.complaint(f"{place}.{key}", f"be one of {', '.join(known)}", value)
        return value

    def value(self, given: Mapping[str, Any], key: str, kind: type, place: str, *default: Any) -> Any:
        """The value under a key, of that very type; the default where it is left out."""
        if key not in given:
            if default:
                return default[0]
            raise self.complaint(f"{place}.{key}", "be given", "nothing")
        value = given[key]
        if kind is float and type(value) is int:
            value = float(value)
        if type(value) is not kind or value == "":
            raise self.complaint(f"{place}.{key}", f"be a {'non-empty ' * (kind is str)}{kind.__name__}", value)
        return value

    def mapping(self, content: Any, place: str) -> Mapping[str, Any]:
        """A mapping of names to values."""
        if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
            raise self.complaint(place, "be a mapping of names to values", content)
        return content

    def known(self, given: Mapping[str, Any], kind: type, place: str, but: tuple[str, ...] = ()) -> None:
        """Refuse keys that are no field of a dataclass."""
        known = [field.name for field in dataclasses.fields(kind) if field.name not in but]
        for key in given:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                hint = "".join(f"Did you mean {name}?" for name in near)
                raise self.complaint(place, f"hold only the keys {', '.join(known)}", key, hint)

    def complaint(self, place: str, must: str, found: Any, hint: str = "") -> InputError:
        """The error that a place does not hold what it must."""
        shown = found if isinstance(found, str) and " " not in found else repr(found)
        return self.error(f"{self.path}: {place} must {must}; got {shown}. {hint or self.remedy}")
