"""What a file is, by its name and first bytes: language, purpose, and whether people wrote it."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

CODE = {
    "Python": "py pyi pyw",
    "Shell": "sh bash zsh bats ksh",
    "JavaScript": "js mjs cjs jsx",
    "TypeScript": "ts tsx mts cts",
    "C": "c h",
    "C++": "cc cpp cxx hpp hh hxx",
    "Go": "go",
    "Rust": "rs",
    "Java": "java",
    "Kotlin": "kt kts",
    "Ruby": "rb rake",
    "PHP": "php",
    "Perl": "pl pm t",
    "C#": "cs",
    "Swift": "swift",
    "Scala": "scala",
    "Haskell": "hs",
    "Lua": "lua",
    "R": "r",
    "SQL": "sql",
    "Zig": "zig",
    "Elixir": "ex exs",
    "Erlang": "erl hrl",
    "Clojure": "clj cljs",
    "OCaml": "ml mli",
    "Fish": "fish",
    "Vim script": "vim",
    "Assembly": "asm s",
    "CSS": "css scss sass less",
    "HTML": "html htm",
    "Vue": "vue",
    "Svelte": "svelte",
    "Emacs Lisp": "el",
    "Dart": "dart",
    "Julia": "jl",
    "Tcl": "tcl",
    "PowerShell": "ps1 psm1",
    "Objective-C": "m mm",
    "Make": "mk",
    "CMake": "cmake",
    "Nix": "nix",
}
DOCS = {"Markdown": "md markdown", "reStructuredText": "rst", "Plain text": "txt text", "AsciiDoc": "adoc"}
DATA = {
    "JSON": "json jsonl ndjson", "YAML": "yaml yml", "TOML": "toml", "INI": "ini cfg conf",
    "XML": "xml xsd svg",
    "CSV": "csv tsv", "Patch": "patch diff", "Protocol Buffers": "proto", "Lock file": "lock",
}  # fmt: skip
BY_EXTENSION = {
    extension: (language, purpose)
    for table, purpose in ((CODE, "code"), (DOCS, "docs"), (DATA, "data"))
    for language, extensions in table.items()
    for extension in extensions.split()
}
BY_NAME = {
    "makefile": ("Make", "code"), "gnumakefile": ("Make", "code"), "dockerfile": ("Dockerfile", "code"),
    "cmakelists.txt": ("CMake", "code"), "rakefile": ("Ruby", "code"), "gemfile": ("Ruby", "code"),
    "readme": ("Plain text", "docs"), "license": ("Plain text", "docs"), "copying": ("Plain text", "docs"),
    "package-lock.json": ("Lock file", "data"), "pnpm-lock.yaml": ("Lock file", "data"),
    "go.sum": ("Lock file", "data"), "npm-shrinkwrap.json": ("Lock file", "data"),
}  # fmt: skip
BY_INTERPRETER = (
    ("python", "Python"),
    ("node", "JavaScript"),
    ("ruby", "Ruby"),
    ("perl", "Perl"),
    ("sh", "Shell"),
)

HASH_COMMENTS = {
    "Python", "Shell", "Ruby", "Perl", "Make", "CMake", "YAML", "TOML", "R", "Fish", "Dockerfile", "Nix",
    "Elixir", "Julia", "Tcl", "PowerShell",
}  # fmt: skip
DASH_COMMENTS = {"SQL", "Lua", "Haskell"}

TEST_DIRS = {"test", "tests", "testing", "__tests__", "spec", "specs"}
TEST_NAME = re.compile(r"^test_.*|.*_test\.\w+$|.*\.(test|spec)\.\w+$|^conftest\.py$|.*_spec\.rb$|.*\.bats$")
VENDOR_DIRS = {"vendor", "_vendor", "vendored", "third_party", "thirdparty", "extern", "bower_components"}
GENERATED = re.compile(
    rb"@generated|\bgenerated (?:from|by) .{1,100}\.(?:py|pl|sh|js|rb|tcl)\b"
    rb"|generated .{0,80}do not edit|do not edit.{0,80}generated"
    rb"|^\W{0,8}(this file (is|was) )?(auto[- ]?|automatically )?generated (by|from|automatically)",
    re.IGNORECASE | re.MULTILINE,
)
LONG_LINE = 500


def classify(path: str, head: bytes) -> tuple[str, str]:
    """(language, purpose) where purpose is code, docs, data or other; `head` is the file's first bytes."""
    name = PurePosixPath(path).name.lower()
    if name in BY_NAME:
        return BY_NAME[name]
    if "." in name[1:]:
        known = BY_EXTENSION.get(name.rsplit(".", 1)[1])
        if known:
            return known
    if head.startswith(b"#!"):
        line = head.split(b"\n", 1)[0].decode("ascii", "replace")
        for interpreter, language in BY_INTERPRETER:
            if re.search(rf"[/ ]\w*{interpreter}[0-9.]*\b", line):
                return language, "code"
    return "Other text", "other"


def is_test(path: str) -> bool:
    parts = PurePosixPath(path).parts
    return bool(TEST_DIRS.intersection(parts[:-1])) or bool(parts and TEST_NAME.match(parts[-1]))


def is_vendored(path: str) -> bool:
    return bool(VENDOR_DIRS.intersection(PurePosixPath(path).parts[:-1]))


def is_generated(language: str, head: bytes, size: int, lines: int) -> bool:
    """Whether a machine wrote it: a lock file, a notice at the top, or lines no person would write."""
    notice = b"\n".join(head.split(b"\n")[:6])
    return language == "Lock file" or bool(GENERATED.search(notice)) or size / max(lines, 1) > LONG_LINE


def comment_marker(language: str) -> str:
    """A regular expression for what opens a comment in the language."""
    if language in HASH_COMMENTS:
        return r"(?:^|\s)#"
    if language in DASH_COMMENTS:
        return r"--"
    if language in {"HTML", "XML", "Vue", "Svelte"}:
        return r"<!--|//|/\*"
    return r"//|/\*|^\s*\*|(?:^|\s);;"
