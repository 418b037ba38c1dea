"""Planner: ranks the findings, picks what is worth telling, and divides it into four chapters."""

from __future__ import annotations

from findings import all_findings
from markdown import table
from workplace import Json, Workplace

CHAPTERS = (
    "What is here",
    "How it hangs together",
    "Where it is hard, and where it moves",
    "What it says about itself",
)
PER_CHAPTER = 4
FEW_IMPORTS = 5


def plan(place: Workplace) -> str:
    telling = place.number(r"the (N) most telling", 5)
    rows = place.number(r"at most (N) rows", 6)
    inventory = place.left_by("Diagnose", "inventory.json")
    structure = place.left_by("Recon", "structure.json")
    complexity = place.left_by("Research-1", "complexity.json")
    history = place.left_by("Research-2", "history.json")
    words = place.left_by("Research-3", "words.json")
    found = all_findings(inventory, structure, complexity, history, words)
    offered = sections(inventory, structure, complexity, history, words)
    chapters = []
    for number, title in enumerate(CHAPTERS, 1):
        also = [row for row in found[telling:] if row["chapter"] == number]
        chapters.append(
            {
                "number": number,
                "title": title,
                "rows": rows,
                "sections": [name for name, there in offered[number] if there],
                "findings": also[:PER_CHAPTER],
                "left_out": len(also[PER_CHAPTER:]),
            }
        )
    cut = [said for source in (inventory, structure, complexity, history, words) for said in source["cut"]]
    place.write_json(
        "plan.json",
        {
            "summary": found[:telling],
            "chapters": chapters,
            "found": len(found),
            "found_files": len(inventory["files"]),
            "cut": cut,
        },
    )
    place.write_text("plan.md", as_text(found, telling))
    return f"{len(found)} findings, {len(found[:telling])} of them for the summary"


def sections(
    inventory: Json, structure: Json, complexity: Json, history: Json, words: Json
) -> dict[int, list[tuple[str, object]]]:
    """What each chapter may show, and whether there is anything to show."""
    git = history["source"] == "git"
    return {
        1: [("languages", inventory["languages"]), ("parts", len(structure["parts"]) > 1)],
        2: [
            ("entries", structure["entries"]),
            ("hubs", structure["graph"]["imports"] >= FEW_IMPORTS),
            ("tests", structure["tests"]["code_files"]),
        ],
        3: [
            ("branching", complexity["functions"] >= 5),
            ("lengths", complexity["functions"] >= 10),
            ("blocks", not complexity["functions"] and complexity["other_longest"]),
            ("clones", complexity["clones_count"] > 1),
            ("months", git),
            ("churn", git),
            ("ages", not git and history["files"]),
        ],
        4: [
            ("docstrings", sum(words["documented"]["public"].values()) >= 10),
            ("links", words["broken_links"]),
            ("promises", words["promises"]),
            ("vocabulary", words["vocabulary"]),
        ],
    }


def as_text(found: list[Json], telling: int) -> str:
    rows = [
        [n, f"{row['score']:.1f}", row["kind"], row["chapter"], row["title"]]
        for n, row in enumerate(found, 1)
    ]
    lines = ["# Findings, by how telling they are", "", f"The first {telling} go into the summary.", ""]
    return "\n".join([*lines, *(table(["", "score", "kind", "chapter", "finding"], rows) or ["None.", ""])])
