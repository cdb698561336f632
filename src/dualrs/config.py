"""Configuration files: YAML validated into typed objects, with errors that name the field."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Tag, ValidationError


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
            path, known = _located(section, problem["loc"])
            field = ".".join(path) or "the file"
            if problem["type"] == "extra_forbidden":
                lines.append(f"  {field}: unknown field (value {problem['input']!r}); known here: {', '.join(known)}")
            elif problem["type"] == "missing":
                lines.append(f"  {field}: must be given")
            else:
                lines.append(f"  {field}: {problem['msg']} (given: {problem['input']!r})")
        raise ConfigError(f"{source} is not a valid configuration:\n" + "\n".join(lines)) from error


_Kinds = dict[str | None, type[BaseModel] | None]


def _located(section: type[BaseModel], location: tuple[int | str, ...]) -> tuple[list[str], list[str]]:
    """Where a problem is, as the user wrote it, and the names of the fields beside it.

    Pydantic's location also has the tags of the kinds of sections between which it chose.
    """
    path: list[str] = []
    kinds: _Kinds = {None: section}
    for part in location:
        if part in kinds:
            kinds = {None: kinds[str(part)]}
            continue
        path.append(str(part))
        if isinstance(part, str):
            here = [kind for kind in kinds.values() if kind is not None]
            section = next((kind for kind in here if part in kind.model_fields), here[0] if here else section)
            kinds = _kinds_in(section.model_fields[part].annotation) if part in section.model_fields else {}
    return path, sorted(section.model_fields)


def _kinds_in(annotation: Any, tag: str | None = None) -> _Kinds:
    """The sections that an annotation such as ``tuple[Section, ...]`` or ``A | B`` speaks of, by their tags."""
    if get_origin(annotation) is Annotated:
        annotation, *about = get_args(annotation)
        return _kinds_in(annotation, next((each.tag for each in about if isinstance(each, Tag)), tag))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {tag: annotation}
    kinds: _Kinds = {}
    for part in get_args(annotation):
        kinds |= _kinds_in(part, tag)
    return kinds or ({} if tag is None else {tag: None})
