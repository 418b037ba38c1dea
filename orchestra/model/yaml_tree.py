"""YAML or JSON text as a tree in which every value knows where it stands.

What is always true of a tree, whatever the text: no more than `MAX_VALUES` values (an
alias counts as often as it is used) and `MAX_DEPTH` levels, no cycle, no key twice in
a mapping, no tag beyond YAML's plain ones, merge keys (`<<`) already applied.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from orchestra import errors
from orchestra.model.names import shown

if TYPE_CHECKING:
    from yaml import MarkedYAMLError

MAX_VALUES = 200_000
MAX_DEPTH = 50

NULL, BOOL, INT, FLOAT = (f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float"))
_MERGE = "tag:yaml.org,2002:merge"
_TAGS = {NULL, BOOL, INT, FLOAT} | {
    f"tag:yaml.org,2002:{name}" for name in ("str", "timestamp", "merge", "value", "map", "seq")
}
_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_JSON_ONLY = re.compile(r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|.)"
                        "|[\t\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")  # fmt: skip
_TOO_LARGE = f"the document holds more than {MAX_VALUES} values, counting an alias as often as it is used"


class At(NamedTuple):
    """A place in a file; line and column from 1."""

    file: str
    line: int
    column: int

    def bad(self, problem: str, hint: str) -> errors.BadPlan:
        """The error to raise for what stands here."""
        message = f"{self.file}:{self.line}:{self.column}: {problem}"
        return errors.BadPlan(message, hint=hint, file=self.file, line=self.line, column=self.column)


class Scalar(NamedTuple):
    """`tag` is what YAML takes the text for; `plain` is text that stands without quotes."""

    at: At
    text: str
    tag: str
    plain: bool


class Items(NamedTuple):
    at: At
    values: tuple[Tree, ...]


class Pairs(NamedTuple):
    """`values` by key, each key with its own place in `keys`."""

    at: At
    keys: dict[str, At]
    values: dict[str, Tree]


Tree: TypeAlias = "Scalar | Items | Pairs"


def read_tree(text: str, *, file: str) -> Tree | None:
    """The one document in `text`, or None where there is none; else `errors.BadPlan`."""
    # Here, not above: most commands never read YAML, and its import takes longer than they do.
    import yaml

    text = _json_as_yaml(text.removeprefix("\ufeff"))
    _check_characters(text, file)
    loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_bounds(yaml.parse(text, Loader=loader), file)
        root = yaml.compose(text, Loader=loader)
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, text, file) from None
    except yaml.YAMLError as error:
        raise At(file, 1, 1).bad(f"not valid YAML: {error}", "save the file as plain UTF-8 text") from None
    return None if root is None else _Builder(file).tree(root)


def _json_as_yaml(text: str) -> str:
    r"""Valid JSON written so that YAML reads the same from it; any other text as it is.

    YAML does not know JSON's pairs of escapes for a character above U+FFFF, nor tabs as
    indentation, and takes more characters for line ends or refuses them.
    """
    if not text.lstrip().startswith(("{", "[")) or not _JSON_ONLY.search(text):
        return text
    import json

    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return text
    return _JSON_ONLY.sub(_escape_for_yaml, text)


def _escape_for_yaml(found: re.Match[str]) -> str:
    if found[1]:
        return chr(0x10000 + ((int(found[1], 16) & 0x3FF) << 10) + (int(found[2], 16) & 0x3FF))
    if found[0] == "\t":
        return " "
    return found[0] if found[0].startswith("\\") else f"\\u{ord(found[0]):04x}"


def _check_characters(text: str, file: str) -> None:
    found = _FORBIDDEN.search(text)
    if found is None:
        return
    line, column = _line_and_column(text, found.start())
    problem = f"the character U+{ord(found[0]):04X} cannot stand in a plan"
    raise At(file, line, column).bad(problem, "delete it: a plan is plain text")


def _check_bounds(events: Any, file: str) -> None:
    """Before anything is built: libyaml's composer recurses in C, and a deep text ends the process."""
    import yaml

    count = depth = documents = 0
    for event in events:
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        count += isinstance(event, yaml.NodeEvent)
        documents += isinstance(event, yaml.DocumentStartEvent)
        if depth > MAX_DEPTH:
            raise _too_deep(_at(file, event))
        if count > MAX_VALUES:
            raise _at(file, event).bad(_TOO_LARGE, "split it into several files")
        if documents > 1:
            raise _at(file, event).bad("a second document begins here", "remove the '---', or split the file")


def _syntax_error(error: MarkedYAMLError, text: str, file: str) -> errors.BadPlan:
    mark = error.problem_mark or error.context_mark
    last = text.count("\n", 0, len(text.rstrip())) + 1
    if mark and mark.line + 1 > last and error.context_mark:
        mark = error.context_mark
    if mark is None:
        line, column = 1, 1
    elif mark.line + 1 > last:
        line, column = _line_and_column(text, len(text.rstrip()))
    else:
        line, column = mark.line + 1, mark.column + 1
    lines = text.split("\n")[line - 1 : line]
    culprit = lines[0][column - 1 : column] if lines else ""
    said = error.problem or error.context or "cannot be read"
    return At(file, line, column).bad(f"not valid YAML: {said}", _syntax_hint(said, culprit))


def _syntax_hint(said: str, culprit: str) -> str:
    if culprit == "\t":
        return "indent with spaces: YAML takes no tabs there"
    if culprit and culprit in "@`%":
        return f"put a value that begins with {culprit} in quotes"
    if "mapping values are not allowed" in said:
        return "put a value that holds ': ' in quotes, and check the indentation"
    if "undefined alias" in said:
        return "put a value that begins with * in quotes, or define its &anchor above"
    return "check the quotes, brackets and indentation here and on the line above"


def _line_and_column(text: str, index: int) -> tuple[int, int]:
    return text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index)


def _at(file: str, marked: Any) -> At:
    """`marked` is a node or an event."""
    return At(file, marked.start_mark.line + 1, marked.start_mark.column + 1)


def _too_deep(at: At) -> errors.BadPlan:
    return at.bad(f"nested more than {MAX_DEPTH} levels deep", "a plan needs 7: check the brackets")


class _Builder:
    """Nodes to values, counting every visit: aliases make a small document endless."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.visits = 0
        self.open: list[int] = []

    def tree(self, node: Any) -> Tree:
        import yaml

        at = _at(self.file, node)
        self.visits += 1
        if self.visits > MAX_VALUES:
            raise at.bad(_TOO_LARGE, "use fewer aliases, or split it into several files")
        if node.tag not in _TAGS:
            raise at.bad(f"the tag {shown(node.tag)} has no meaning in a plan", "remove it")
        if isinstance(node, yaml.ScalarNode):
            return Scalar(at, node.value, node.tag, plain=not node.style)
        if id(node) in self.open:
            raise at.bad("an alias inside its own anchor never ends", "write the value out")
        if len(self.open) >= MAX_DEPTH:
            raise _too_deep(at)
        self.open.append(id(node))
        built: Tree
        if isinstance(node, yaml.MappingNode):
            built = self.pairs(node, at)
        else:
            built = Items(at, tuple(self.tree(item) for item in node.value))
        self.open.pop()
        return built

    def pairs(self, node: Any, at: At) -> Pairs:
        keys: dict[str, At] = {}
        values: dict[str, Tree] = {}
        merges: list[tuple[str, Tree]] = []
        for key_node, value_node in node.value:
            key = self.tree(key_node)
            if not isinstance(key, Scalar):
                raise key.at.bad("a key must be text", "quote a value that begins with { or [")
            if key.text in keys:
                problem = f"the key {shown(key.text)} is used a second time"
                raise key.at.bad(f"{problem} (first on line {keys[key.text].line})", "keep one of the two")
            keys[key.text] = key.at
            value = self.tree(value_node)
            if key.tag == _MERGE:
                merges.append((key.text, value))
            else:
                values[key.text] = value
        for merge_key, merged in merges:
            del keys[merge_key]
            _merge(keys, values, merged)
        return Pairs(at, keys, values)


def _merge(keys: dict[str, At], values: dict[str, Tree], merged: Tree) -> None:
    """What stands there itself wins, then the first of the merged mappings that has the key."""
    for source in merged.values if isinstance(merged, Items) else (merged,):
        if not isinstance(source, Pairs):
            raise source.at.bad("'<<' takes a mapping, or a list of mappings", "write <<: *name")
        for key, value in source.values.items():
            if key not in values:
                keys[key], values[key] = source.keys[key], value
