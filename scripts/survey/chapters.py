"""Builder-1 … Builder-4: each writes the chapter of its number, as the Planner laid it out."""

from __future__ import annotations

from collections.abc import Callable

from code_findings import again, here
from markdown import chart, code, count, percent, ref, table, verb
from workplace import Json, SurveyError, Workplace

Section = Callable[[Workplace, int], list[str]]


def build(place: Workplace) -> str:
    plan = place.left_by("Planner", "plan.json")
    # The brief says which chapter; where it does not, the worker's name does
    number = place.number(r"chapter (N)", int(place.name.rpartition("-")[2]))
    chapter = next((c for c in plan["chapters"] if c["number"] == number), None)
    if chapter is None:
        raise SurveyError(f"the plan has no chapter {number}")
    lines = [f"## {number}. {chapter['title']}", ""]
    for name in chapter["sections"]:
        place.beat()
        lines += SECTIONS[name](place, chapter["rows"])
    if also := chapter["findings"]:
        lines += [f"- **{row['title']}** {row['detail']}".rstrip() for row in also]
        if chapter["left_out"]:
            lines.append(f"- {count(chapter['left_out'], 'lesser finding')} in the Planner's `plan.md`.")
        lines.append("")
    if len(lines) == 2:
        lines += ["There is nothing of this kind here.", ""]
    place.write_text("chapter.md", "\n".join(lines))
    return f"chapter {number}, {len(lines)} lines"


def languages(place: Workplace, rows: int) -> list[str]:
    """Lines by language, and what machines wrote."""
    inventory = place.left_by("Diagnose", "inventory.json")
    found = inventory["languages"]
    text = [f for f in inventory["files"] if f["kind"] == "text"]
    total = sum(row["lines"] for row in found)
    kinds = count(len(found), "language or format", "languages and formats")
    lines = [f"{count(total, 'line')} of text in {count(len(text), 'file')} and {kinds}:", ""]
    bars = []
    for row in found[:rows]:
        lines_of = f"{row['lines']:>9,} {verb(row['lines'], 'line ', 'lines')}"
        said = f"{lines_of}  {percent(row['lines'], total):>7}  {count(row['files'], 'file')}"
        bars.append((row["language"], row["lines"], said))
    lines += chart(bars)
    if rest := found[rows:]:
        names = ", ".join(row["language"] for row in rest)
        lines += [f"Besides, {count(sum(row['lines'] for row in rest), 'line')}: {names}.", ""]
    machine = [f for f in text if f.get("generated")]
    copied = [f for f in text if f.get("vendored") and not f.get("generated")]
    for group, what in ((machine, "written by machines"), (copied, "copied in from elsewhere")):
        if group:
            said = f"{count(len(group), 'file')} ({count(sum(f['lines'] for f in group), 'line')})"
            looks = f"{verb(len(group), 'looks', 'look')} {what}"
            lines += [f"{said} {looks}; what follows on code leaves {verb(len(group), 'it', 'them')} out."]
            lines.append("")
    return lines


def parts(place: Workplace, rows: int) -> list[str]:
    """The top directories."""
    found = place.left_by("Recon", "structure.json")["parts"]
    keys = ("files", "code", "test", "docs", "other")
    cells = [[code(row["part"], 40), *(row[key] for key in keys)] for row in found[:rows]]
    lines = table(["part", "files", "lines of code", "tests", "docs", "other"], cells)
    rest = len(found) - rows
    return [*lines, *([f"{count(rest, 'smaller part')} not shown.", ""] if rest > 0 else [])]


def entries(place: Workplace, rows: int) -> list[str]:
    """Where one enters."""
    found = place.left_by("Recon", "structure.json")["entries"]
    shown = [f"{ref(row['path'], row['line'])} ({how(row)})" for row in found[: max(rows // 2, 1)]]
    rest = f" and {len(found) - len(shown):,} more" if len(found) > len(shown) else ""
    return [f"{count(len(found), 'way in', 'ways in')}: {', '.join(shown)}{rest}.", ""]


def how(entry: Json) -> str:
    word, _, name = entry["how"].partition(" ")
    return f"{word} {code(name)}" if word == "command" else str(entry["how"])


def hubs(place: Workplace, rows: int) -> list[str]:
    """The files that most others import."""
    structure = place.left_by("Recon", "structure.json")
    graph = structure["graph"]
    said = f"{count(graph['imports'], 'import')} between {count(graph['followed'], 'source file')}"
    lines = [f"{said} were followed. What most others stand on:", ""]
    for row in graph["hubs"][:rows]:
        row["said"] = f"used by {row['users']:,}, uses {row['uses']:,}"
    lines += chart(
        [(code(row["path"], 50).strip("`"), row["users"], row["said"]) for row in graph["hubs"][:rows]]
    )
    if graph["reaching"]:
        top = graph["reaching"][0]
        lines += [f"Leaning on most others itself: {code(top['path'])}, on {count(top['uses'], 'file')}.", ""]
    if unknown := structure["not_followed"]:
        kinds = [f"{language} ({count(files, 'file')})" for language, files in sorted(unknown.items())]
        lines += [f"Imports were not followed in {', '.join(kinds)}.", ""]
    return lines


def tests(place: Workplace, rows: int) -> list[str]:
    """Lines of test beside lines of code."""
    found = place.left_by("Recon", "structure.json")["tests"]
    beside = f"{count(found['code_lines'], 'line')} of code in {count(found['code_files'], 'file')}"
    if not found["test_files"]:
        return [f"{beside}; no tests.", ""]
    ratio = found["test_lines"] / max(found["code_lines"], 1)
    said = f"{count(found['test_lines'], 'line')} of tests in {count(found['test_files'], 'file')}"
    return [f"{beside} and {said}: {ratio:.2f} lines of test for each line of code.", ""]


def branching(place: Workplace, rows: int) -> list[str]:
    """The functions with most paths."""
    found = place.left_by("Research-1", "complexity.json")["branching"][:rows]
    cells = [
        [code(r["name"], 46), r["paths"], r["lines"], r["depth"], ref(r["path"], r["line"])] for r in found
    ]
    head = ["most paths through (cyclomatic)", "paths", "lines", "depth", "where"]
    return table(head, cells)


def lengths(place: Workplace, rows: int) -> list[str]:
    """Functions by their length."""
    found = place.left_by("Research-1", "complexity.json")
    median = count(found["median_lines"], "line")
    bars = [
        (f"up to {row['upto']} lines" if row["upto"] else "more", row["count"], f"{row['count']:>7,}")
        for row in found["lengths"]
    ]
    while len(bars) > 1 and not bars[-1][1]:
        bars.pop()
    return [f"How long the {found['functions']:,} Python functions are (median {median}):", "", *chart(bars)]


def blocks(place: Workplace, rows: int) -> list[str]:
    """The longest blocks, for languages that nobody parsed."""
    found = place.left_by("Research-1", "complexity.json")["other_longest"][:rows]
    cells = [[ref(r["path"], r["block"]), r["lines"], r["depth"], r["language"]] for r in found]
    return table(["longest blocks from the margin", "lines", "levels in the file", "language"], cells)


def clones(place: Workplace, rows: int) -> list[str]:
    """The longest passages said twice."""
    found = place.left_by("Research-1", "complexity.json")["clones"]
    cells = [[row["lines"], here(row), again(row)] for row in found[: max(rows // 2, 3)]]
    return ["Said twice, equal but for indentation:", "", *table(["lines", "here", "and here"], cells)]


def months(place: Workplace, rows: int) -> list[str]:
    """Commits by month."""
    found = place.left_by("Research-2", "history.json")
    said = f"{count(found['commits'], 'commit')} by {count(found['authors'], 'author')}, merges left out"
    span = f"from {found['oldest']} to {found['newest']}" if found["commits"] > 1 else f"on {found['newest']}"
    lines = [f"{said}, {span}.", ""]
    if found["commits"] >= 10 and found["oldest"][:7] != found["newest"][:7]:
        bars = [(row["month"], row["commits"], f"{row['commits']:>5,}") for row in found["months"]]
        while len(bars) > 1 and not bars[0][1]:
            bars.pop(0)
        lines += ["Commits in the year up to the newest:", "", *chart(bars)]
    return lines


def churn(place: Workplace, rows: int) -> list[str]:
    """The files that change most."""
    found = place.left_by("Research-2", "history.json")["churn"]
    paths = place.left_by("Research-1", "complexity.json")["per_file"]
    cells = [
        [code(r["path"], 60), r["commits"], r["lines"], r["authors"], r["mended"], paths.get(r["path"], "-")]
        for r in found[:rows]
        if r["commits"] > 1
    ]
    return table(["changed most", "commits", "lines", "authors", "fixes", "paths"], cells)


def ages(place: Workplace, rows: int) -> list[str]:
    """Files by date, where there is no history."""
    found = place.left_by("Research-2", "history.json")
    bars = [(row["age"], row["count"], f"{row['count']:>7,}") for row in found["ages"]]
    oldest = found["oldest"][0]
    return [
        f"No history to read ({found['why_not']}). By their dates, files are older than the newest "
        f"({found['newest']}) by less than:", "",
        *chart(bars), f"The oldest: {code(oldest['path'])}, {oldest['day']}.", "",
    ]  # fmt: skip


def docstrings(place: Workplace, rows: int) -> list[str]:
    """Who says what it is for, and where most do not."""
    found = place.left_by("Research-3", "words.json")["documented"]
    bars = []
    for kind, number in found["public"].items():
        have = found["with_text"].get(kind, 0)
        bars.append(
            (kind, round(1000 * have / number), f"{percent(have, number):>6}  {have:,} of {number:,}")
        )
    cells = [[ref(r["path"], r["line"]), r["bare"], r["public"]] for r in found["bare"][: max(rows // 2, 3)]]
    return [
        "Public Python that carries a docstring (tests left out):", "", *chart(bars),
        *table(["most left unsaid in", "bare", "of public"], cells),
    ]  # fmt: skip


def links(place: Workplace, rows: int) -> list[str]:
    """Links that lead nowhere."""
    found = place.left_by("Research-3", "words.json")
    other = found["links_elsewhere"]
    cells = [[ref(r["path"], r["line"]), code(r["link"], 60), r["why"]] for r in found["broken_links"][:rows]]
    said = [f"{count(other, 'link')} to other places {verb(other, 'was', 'were')} not followed.", ""]
    return [*table(["link in", "leads to", "but"], cells), *(said if other else [])]


def promises(place: Workplace, rows: int) -> list[str]:
    """Work left over, in the words of its comments."""
    found = place.left_by("Research-3", "words.json")["promises"]
    cells = [[ref(r["path"], r["line"]), code(r["text"], 80)] for r in found[: max(rows // 2, 3)]]
    return table(["still to be done", "in its own words"], cells)


def vocabulary(place: Workplace, rows: int) -> list[str]:
    """The words that names are made of."""
    found = place.left_by("Research-3", "words.json")["vocabulary"]
    told = ", ".join(f"{row['word']} ({row['files']:,})" for row in found)
    return [f"The words that it names things with, by the number of files: {told}.", ""]


SECTIONS: dict[str, Section] = {
    "languages": languages, "parts": parts, "entries": entries, "hubs": hubs, "tests": tests,
    "branching": branching, "lengths": lengths, "blocks": blocks, "clones": clones, "months": months,
    "churn": churn, "ages": ages, "docstrings": docstrings, "links": links, "promises": promises,
    "vocabulary": vocabulary,
}  # fmt: skip
