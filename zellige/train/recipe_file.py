"""Recipes in YAML files: plain data, and the line on which each of its parts stands, for messages.

Only plain scalars, lists and mappings are read: no tags, no aliases, no key twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zellige.errors import RecipeError

Way = tuple[str, ...]
DEEPEST = 6


@dataclass(frozen=True)
class RecipeFile:
    """A file's name and content, and the lines of its keys (by their way from the top) and of its texts."""

    name: str
    content: dict[str, Any]
    keys: dict[Way, int] = field(default_factory=dict)
    texts: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | Path) -> RecipeFile:
        """Raises ``RecipeError`` if the file can't be read, or is no YAML mapping."""
        import yaml

        name = Path(path).name
        try:
            text = Path(path).read_text(encoding="utf-8")
            root = yaml.compose(text, Loader=yaml.SafeLoader)
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"the recipe {path} can't be read: {getattr(error, 'strerror', None) or error}") from error
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f", line {mark.line + 1}" if mark else ""
            raise RecipeError(f"{name}{where}: this is no YAML: {getattr(error, 'problem', None) or error}") from error
        made = cls(name, {})
        content = made._plain(root, (), set()) if root is not None else {}
        if not isinstance(content, dict):
            raise RecipeError(f"{name}, line 1: expected keys with values, such as 'pattern: block:8x8'")
        return cls(name, content, made.keys, made.texts)

    def line(self, message: str, path: Way = ()) -> int | None:
        """The line that a message is about: that of a key, or of a text that it quotes, or of a key among its first words."""
        if path in self.keys:
            return self.keys[path]
        for quoted in re.findall(r"'([^']*)'", message):
            if quoted in self.texts:
                return self.texts[quoted]
        for word in re.findall(r"[a-z_]+", message.lower())[:3]:
            if (word,) in self.keys:
                return self.keys[word,]
        return None

    def _plain(self, node: Any, path: Way, above: set[int]) -> Any:
        import yaml

        line = node.start_mark.line + 1
        if id(node) in above or len(path) > DEEPEST:
            raise RecipeError(f"{self.name}, line {line}: too deep: nothing in a recipe contains itself")
        above = above | {id(node)}
        if isinstance(node, yaml.MappingNode):
            found: dict[Any, Any] = {}
            for key, value in node.value:
                name = self._plain(key, (*path, "?"), above)
                at = key.start_mark.line + 1
                if not isinstance(name, str) or name in found:
                    raise RecipeError(f"{self.name}, line {at}: {name!r} is " + ("there twice" if name in found else "no name"))
                inside = (*path, name)
                self.keys[inside] = at
                found[name] = self._plain(value, inside, above)
            return found
        if isinstance(node, yaml.SequenceNode):
            return [self._plain(value, (*path, "?"), above) for value in node.value]
        loader = yaml.SafeLoader("")
        try:
            value = loader.construct_object(node)
        except yaml.YAMLError as error:
            raise RecipeError(f"{self.name}, line {line}: {node.value!r} can't be read as {node.tag}") from error
        if not isinstance(value, (str, int, float, bool, type(None))):
            raise RecipeError(f"{self.name}, line {line}: expected a number or a text, not {node.value!r}")
        if isinstance(value, str):
            self.texts.setdefault(value, line)
        return value
