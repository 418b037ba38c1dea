"""What is worth telling: each finding one sentence with its figures, its places, and a score.

The score says how much a maintainer would want to hear of it: broken things (80 and more), then what
costs time with each change (50 to 79), then what is merely good to know. Within a kind it grows with the
figure, up to a ceiling. What is found only in tests counts half: test data are often broken on purpose.
"""

from __future__ import annotations

from collections.abc import Iterator

from code_findings import in_complexity, in_history
from markdown import code, count, listed, percent, ref, verb
from told import Rows, finding, grown, places, weigh, where
from tree_findings import in_inventory, in_structure
from workplace import Json


def all_findings(inventory: Json, structure: Json, complexity: Json, history: Json, words: Json) -> Rows:
    """The most telling first; the order is the same for the same directory."""
    has_code = any(row["purpose"] == "code" for row in inventory["languages"])
    found = [
        *in_inventory(inventory),
        *in_structure(structure),
        *in_complexity(complexity),
        *in_history(history, complexity["per_file"], structure["edges"]),
        *in_words(words, has_code),
    ]
    return sorted(found, key=lambda row: (-row["score"], row["kind"]))


def in_words(words: Json, has_code: bool) -> Iterator[Json]:
    for kind, base, title in (
        ("conflicts", 96, ("merge conflict was left in", "merge conflicts were left in")),
        ("private_keys", 92, ("private key lies in the tree", "private keys lie in the tree")),
    ):
        if rows := sorted(words[kind], key=lambda row: (row["test"], row["path"], row["line"])):
            yield finding(
                kind, 4, weigh(base, rows), f"{count(len(rows), *title)}{where(rows)}.", f"{places(rows)}."
            )
    if words["broken_links"]:
        yield broken_links(words)
    if words["promises_count"]:
        yield promises(words)
    documented = words["documented"]
    public, have = sum(documented["public"].values()), sum(documented["with_text"].values())
    if public >= 20 and have / public < 0.6:
        bare = documented["bare"][0]
        yield finding(
            "docstrings", 4, 30 + 20 * (1 - have / public),
            f"{percent(have, public)} of what is public in Python says what it is for.",
            f"{have:,} of {public:,} carry a docstring; {code(bare['path'])} alone lacks {bare['bare']:,}.",
        )  # fmt: skip
    if has_code and not words["has"]["README"]:
        yield finding("no readme", 4, 42, "No README at the top.")
    if has_code and not (words["has"]["LICEN"] or words["has"]["COPYING"]):
        yield finding("no licence", 4, 36, "No licence file at the top, so others may not use it.")
    if two := words["two_ways"]:
        shown = [
            f"{code(p['rare']['word'])} ({p['rare']['uses']:,}, first in {code(p['rare']['path'])}) beside "
            f"{code(p['usual']['word'])} ({p['usual']['uses']:,})"
            for p in two
        ]
        said = f"{count(len(two), 'word is', 'words are')} spelled two ways in the code."
        yield finding("spelling", 4, grown(20, 2 * len(two), 10), said, f"{listed(shown, 2)}.")


def broken_links(words: Json) -> Json:
    rows, number = words["broken_links"], words["broken_count"]
    top = rows[0]
    then = f"; then {places(rows[1:], 2, of=number - 1)}" if rows[1:] else ""
    return finding(
        "links", 4, weigh(grown(48, number, 16), rows),
        f"{number:,} of {count(words['links'], 'link')} within the Markdown "
        f"{verb(number, 'leads', 'lead')} nowhere.",
        f"{ref(top['path'], top['line'])} points to {code(top['link'])} ({top['why']}){then}.",
    )  # fmt: skip


def promises(words: Json) -> Json:
    number = words["promises_count"]
    by_word = ", ".join(f"{word} {uses:,}" for word, uses in words["promises_by_word"].items())
    path, most = words["promises_by_file"][0]
    return finding(
        "promises", 4, grown(28, number / 4, 20),
        f"{count(number, 'comment says', 'comments say')} that something is still to be done ({by_word}).",
        f"Most stand in {code(path)} ({most:,}). {places(words['promises'], 2, of=number)}.",
    )  # fmt: skip
