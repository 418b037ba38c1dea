"""The words that the target's code is made of: what it names things with, and what it spells two ways."""

from __future__ import annotations

import re
from collections import Counter

from workplace import Json

# A name where it is made, in whichever language: after a word that says so, or to the left of a `=`
NAMED = re.compile(
    r"\b(?:def|class|function|func|fn|type|struct|enum|interface|trait|impl|module|const|let|var|val|local)"
    r"\s+(?:\([^)\n]*\)\s*)?([A-Za-z_]\w+)"
    r"|^[ \t]*(?:[A-Za-z_]\w*\.)*([A-Za-z_]\w+)(?:[ \t]*:[^=\n(]+)?[ \t]*=(?!=)"
    r"|^([A-Za-z_][\w-]+)[ \t]*\(\)[ \t]*\{",
    re.MULTILINE,
)
PIECE = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+")
# Pieces of names that every program has, and so say nothing about this one
COMMON_WORDS = """
    from with this that then have will self text name names file files path paths line lines list
    dict args kwargs value values item items type types data size count index init main test tests
    func function class init true false none null char bool string array call code default result
    results start stop get set new add all old next prev temp object parse read write open close
    make find error errors info state base first last left right else each print format keys node
    nodes number options option update create check handler config
"""
COMMON = frozenset(COMMON_WORDS.split())
# What the two spellings share, and how each ends; in pieces, so that this file does not spell them both ways
ENDINGS = """
    col|or|our behavi|or|our neighb|or|our fav|orite|ourite art|ifact|efact cancel|ed|led label|ed|led
    model|ing|ling gr|ay|ey licen|se|ce cent|er|re catal|og|ogue analy|ze|se initiali|ze|se normali|ze|se
    seriali|ze|se organi|ze|se optimi|ze|se recogni|ze|se
"""
TWO_WAYS = [(stem + one, stem + other) for stem, one, other in (pair.split("|") for pair in ENDINGS.split())]
SPELLED = re.compile(rf"(?<![a-z])({'|'.join(word for pair in TWO_WAYS for word in pair)})s?(?![a-z])")


class Vocabulary:
    """Pieces of names by the number of files that make such a name; spellings by their uses in all code."""

    def __init__(self) -> None:
        self.files: Counter[str] = Counter()
        self.uses: Counter[str] = Counter()
        self.spelled: Counter[str] = Counter()
        self.first: dict[str, str] = {}

    def listen(self, path: str, text: str) -> None:
        names = [next(filter(None, groups)) for groups in NAMED.findall(text)]
        pieces = Counter(piece.lower() for name in names for piece in PIECE.findall(name) if len(piece) > 3)
        self.uses.update(pieces)
        self.files.update(pieces.keys())
        for word in SPELLED.findall(text.lower()):
            self.spelled[word] += 1
            self.first.setdefault(word, path)

    def most_told(self, count: int) -> list[Json]:
        told = [word for word in self.files if word not in COMMON and self.uses[word] >= 3]
        told.sort(key=lambda word: (-self.files[word], -self.uses[word], word))
        return [{"word": word, "files": self.files[word], "uses": self.uses[word]} for word in told[:count]]

    def two_ways(self) -> list[Json]:
        """Words of which both spellings stand in the code, the rarer one first."""
        found = []
        for pair in TWO_WAYS:
            rare, usual = sorted(pair, key=lambda word: (self.spelled[word], word))
            if self.spelled[rare] >= 3:  # fewer may be somebody else's name, such as NO_COLOR
                found.append(
                    {
                        "rare": {"word": rare, "uses": self.spelled[rare], "path": self.first[rare]},
                        "usual": {"word": usual, "uses": self.spelled[usual]},
                    }
                )
        return found
