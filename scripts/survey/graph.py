"""The graph of imports: which files use one another in a circle, and what can be reached from where."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from imports import Edge
from workplace import Json


def users_of(edges: Iterable[Edge]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for edge in edges:
        found[edge.target].add(edge.source)
    return found


def used_by(edges: Iterable[Edge]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for edge in edges:
        found[edge.source].add(edge.target)
    return found


def reached_from(starts: set[str], edges: Iterable[Edge]) -> set[str]:
    """The starts, and all that they use, directly or through others."""
    uses = used_by(edges)
    reached, stack = set(starts), sorted(starts)
    while stack:
        for target in uses[stack.pop()] - reached:
            reached.add(target)
            stack.append(target)
    return reached


def cycles(edges: list[Edge]) -> list[Json]:
    """Each knot of files that import one another, with one shortest way round it, largest knot first."""
    uses: dict[str, dict[str, int]] = defaultdict(dict)
    for edge in edges:
        uses[edge.source].setdefault(edge.target, edge.line)
    knots = [knot for knot in strongly_connected(uses) if len(knot) > 1]
    found = []
    for knot in sorted(knots, key=lambda knot: (-len(knot), min(knot))):
        way = shortest_round(knot, uses)
        steps = [{"path": a, "line": uses[a][b]} for a, b in zip(way, way[1:] + way[:1], strict=True)]
        found.append({"files": len(knot), "way": steps})
    return found


def strongly_connected(uses: dict[str, dict[str, int]]) -> list[set[str]]:
    """Kosaraju's algorithm, without recursion."""
    order: list[str] = []
    seen: set[str] = set()
    for start in sorted(uses):
        stack = [(start, iter(sorted(uses[start])))] if start not in seen else []
        seen.add(start)
        while stack:
            node, targets = stack[-1]
            target = next((t for t in targets if t not in seen), None)
            if target is None:
                order.append(stack.pop()[0])
            else:
                seen.add(target)
                stack.append((target, iter(sorted(uses.get(target, {})))))
    users: dict[str, list[str]] = defaultdict(list)
    for source, targets_of in uses.items():
        for target in targets_of:
            users[target].append(source)
    knots, taken = [], set[str]()
    for node in reversed(order):
        if node in taken:
            continue
        knot, pending = set[str](), [node]
        while pending:
            current = pending.pop()
            if current not in taken:
                taken.add(current)
                knot.add(current)
                pending.extend(users[current])
        knots.append(knot)
    return knots


def shortest_round(knot: set[str], uses: dict[str, dict[str, int]]) -> list[str]:
    """A shortest cycle through the knot's members; looks from at most 50 of them."""
    best: list[str] = []
    for start in sorted(knot)[:50]:
        came: dict[str, str] = {}
        level = [start]
        while level and start not in came:
            following = []
            for node in level:
                for target in sorted(uses[node]):
                    if target in knot and target not in came:
                        came[target] = node
                        following.append(target)
            level = following
        way, node = [start], came[start]
        while node != start:
            way.append(node)
            node = came[node]
        way.reverse()
        way = [start, *[n for n in way if n != start]]
        if not best or len(way) < len(best):
            best = way
    return best
