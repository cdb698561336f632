"""Configuration files: YAML validated into typed objects, with errors that name the field."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError


class ConfigError(ValueError):
    """A configuration file that cannot be used; the message names the field, the value and the remedy."""


class Section(BaseModel):
    """A part of a configuration; unknown fields are refused rather than ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=Section)


def read_yaml(path: str | Path) -> Any:
    """Reads a YAML file, with errors that name it."""
    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error


def parse_section(section: type[S], content: Any, *, source: str) -> S:
    """Validates parsed YAML against a section, turning pydantic's report into plain sentences."""
    try:
        return section.model_validate(content)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            field = ".".join(str(part) for part in problem["loc"]) or "the file"
            if problem["type"] == "extra_forbidden":
                known = ", ".join(_fields_beside(section, problem["loc"]))
                lines.append(f"  {field}: unknown field (value {problem['input']!r}); known here: {known}")
            elif problem["type"] == "missing":
                lines.append(f"  {field}: must be given")
            else:
                lines.append(f"  {field}: {problem['msg']} (given: {problem['input']!r})")
        raise ConfigError(f"{source} is not a valid configuration:\n" + "\n".join(lines)) from error


def _fields_beside(section: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The names of the fields that the section at a location has, the last entry being a name in it."""
    for part in location[:-1]:
        if isinstance(part, str):
            section = _section_in(section.model_fields[part].annotation)
    return sorted(section.model_fields)


def _section_in(annotation: Any) -> type[BaseModel]:
    """The section that an annotation such as ``tuple[Section, ...]`` or ``Section | None`` speaks of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(_section_in(part) for part in get_args(annotation) if part not in (type(None), Ellipsis))
