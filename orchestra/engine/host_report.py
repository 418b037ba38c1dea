"""The host as the throttle sees it, for an answer: every signal, its limit, the verdict, what is held."""

from __future__ import annotations

from typing import Any

from orchestra.engine.room import Room
from orchestra.host import clock
from orchestra.model.likeness import same_command
from orchestra.model.plan import Plan, WorkerEntry
from orchestra.model.reservation import UNKNOWN, needs_by, needs_of
from orchestra.model.throttle import limit_of, pressure

MOST_TRIED = 1000  # workers: as many as room is looked for
NOT_HERE = ("max_workers", "starts_per_s")  # of one run, and of one moment


def host_report(room: Room, plan: Plan | None, at_work: int) -> dict[str, Any]:
    """`signals`, `held`, `known`, `would_start`: see README, "When the host is short of room"."""
    throttle = plan.throttle if plan else {}
    limits = room.limits(throttle)
    seen = room.look(limits, fresh=True)
    if "swap_rate" not in seen.figures:  # a rate takes two looks
        clock.pause(0.1)
        seen = room.look(limits, fresh=True)
    figures = seen.figures | ({"max_workers": float(at_work)} if plan else {})
    entry = WorkerEntry("", "", command=plan.command if plan else None, throttle=throttle)
    return {
        "signals": [signal_row(room, key, figures, limits, throttle) for key in limits],
        "held": [
            {
                "command": same_command(hold.command),
                "age_s": round(clock.since_boot() - hold.at, 1),
                **needs_row(*seen.rests[hold.token]),
            }
            for hold in seen.holds
            if any(seen.rests[hold.token])
        ],
        "known": [{"command": key, **needs_row(*needs_by(room.known, key))} for key in known_keys(room)],
        "would_start": would_start(room, entry, at_work),
    }


def signal_row(
    room: Room,
    key: str,
    figures: dict[str, float],
    limits: dict[str, float | None],
    throttle: dict[str, float | None],
) -> dict[str, Any]:
    limit, value, wanted = limit_of(key), figures.get(key), limits[key]
    spoke = pressure(figures, {key: wanted}, first=False, held={}, needs={})
    verdict = "speaks" if spoke else "ok"
    if wanted is None:
        verdict = "off"
    elif value is None:
        verdict = "counted" if key in NOT_HERE else "unknown"
    layers = (
        ("environment", room.settings.environment),
        ("plan", throttle),
        ("config", room.settings.config),
    )
    return {
        "signal": key,
        "what": limit.what,
        "kind": limit.kind,
        "value": value,
        "limit": wanted,
        "wants": limit.wants,
        "unit": limit.unit,
        "verdict": verdict,
        "set_by": next((name for name, layer in layers if key in layer), "default"),
    }


def needs_row(memory: float, processes: float, cpus: float, settle_s: float) -> dict[str, Any]:
    return {
        "memory_bytes": int(memory),
        "processes": int(processes),
        "cpus": round(cpus, 2),
        "settle_s": round(settle_s, 1),
    }


def known_keys(room: Room) -> list[str]:
    """Commands of which something is known, the program alone left out where it says no more."""
    return [key for key in room.known if needs_by(room.known, key) is not UNKNOWN]


def would_start(room: Room, entry: WorkerEntry, at_work: int) -> dict[str, Any]:
    """How many workers of this command could start at this moment, and what would speak against the next."""
    count, promised = 0, dict[str, float]()
    limits = {key: value for key, value in entry.throttle.items() if key != "starts_per_s"}
    entry = entry._replace(throttle={**limits, "starts_per_s": None})
    spoke = room.ask(entry, at_work)
    while not spoke and count < MOST_TRIED:
        count += 1
        promised = {key: count * amount for key, amount in room.share(entry).items()}
        spoke = room.ask(entry, at_work + count, promised=promised)
    return {
        "workers": count,
        "command": same_command(entry.command) if entry.command else None,
        "then": [signal.to_json() for signal in spoke],
        **needs_row(*needs_of(room.known, entry.command or ())),
    }
