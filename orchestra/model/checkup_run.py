"""What a checkup finds of runs: their directories, and what old ones have left behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from orchestra.model.checkup import MIB, Check, Health, some, unknown
from orchestra.model.event import Damage
from orchestra.model.units import format_bytes

MOST = 10  # leftovers that have a line each
MOST_REMOVED = 50  # by one command


class Lock(NamedTuple):
    """A run's lock. `words` is RUN as it must stand in a command."""

    run: str
    words: str
    held: bool
    holder: str | None  # None: the lock does not say
    lives: bool | None  # None: cannot be seen from here
    stopped: int | None  # the holder's PID, where it is stopped


class Family(NamedTuple):
    """The living processes that have one attempt's token.

    `standing` is the attempt's: `at work`, `lost` (the run knows of them), `ended`, `not in its log`,
    `gone` (with the run's directory), `nameless` (no run is named), `unknown` (the run cannot be read).
    """

    token: str
    pids: list[int]
    run_dir: str | None
    words: str
    worker: str | None
    standing: str


def runs(count: int, closed: Sequence[str], logless: Sequence[str]) -> Check:
    """`closed`: directories that this user may not look into; `logless`: RUNs as in a command."""
    if closed:
        return unknown("runs", f"beside {count} runs, these may not be looked into: {some(closed)}")
    if logless:
        found = f"{count}, of which these have no event log, or an empty one: {some(logless)}"
        return Check("runs", found, Health.WARNING, "ask orchestra doctor RUN of each")
    return Check("runs", f"{count}, all of which may be looked into")


def lock(check: str, found: Lock) -> Check:
    if not found.held:
        return Check(check, "free")
    unlock = f"orchestra unlock {found.words}"
    if found.holder is None:
        return Check(check, f"run {found.run}: held, and does not say by whom", Health.WARNING, unlock)
    if found.lives is False:
        return Check(
            check, f"run {found.run}: held by a dead holder ({found.holder})", Health.WARNING, unlock
        )
    if found.stopped is not None:
        why = f"run {found.run}: held by {found.holder}, which is stopped (SIGSTOP)"
        return Check(check, why, Health.WARNING, f"kill -CONT {found.stopped}")
    if found.lives is None:
        why = f"run {found.run}: held by {found.holder}, which cannot be seen from here"
        return Check(check, why, Health.UNKNOWN)
    return Check(check, f"run {found.run}: held by {found.holder}, which is at work")


def locks(found: Sequence[Lock]) -> list[Check]:
    checks = [lock("locks", one) for one in found if one.held]
    odd = [check for check in checks if check.verdict != Health.OK]
    held = sum(one.held for one in found)
    if len(odd) > MOST:
        return [*odd[:MOST], Check("locks", f"and {len(odd) - MOST} more like these", Health.WARNING)]
    return odd or [Check("locks", f"{held} of {len(found)} runs held, none by a dead holder")]


def no_log(quoted: str, words: str) -> Check:
    advice = f"mv -- {quoted} {quoted}.aside && orchestra unlock {words}   # writes back what state.json has"
    return Check("event log", f"what stands at {quoted} is no file", Health.BAD, advice)


def leftovers(families: Sequence[Family]) -> list[Check]:
    check = "leftover processes"
    at_work = sum(family.standing == "at work" for family in families)
    odd = [family for family in families if family.standing != "at work"]
    if not odd:
        return [Check(check, f"none; {at_work} attempts at work")]
    checks = [leftover(check, family) for family in odd[:MOST]]
    if len(odd) > MOST:
        checks.append(Check(check, f"and {len(odd) - MOST} more attempts'", Health.WARNING))
    return checks


def leftover(check: str, family: Family) -> Check:
    pids = " ".join(map(str, family.pids[:50]))
    who = f"{len(family.pids)} of ORCHESTRA_TOKEN {family.token}"
    of = f"worker {family.worker} of {family.run_dir}" if family.worker else f"{family.run_dir}"
    if family.standing == "unknown":
        return unknown(check, f"{who} (PIDs {pids}): {of}, whose event log cannot be read: perhaps at work")
    if family.standing == "lost":
        found = f"{who} (PIDs {pids}): {of}, whose launcher is gone"
        return Check(check, found, Health.WARNING, f"orchestra unlock {family.words}")
    if family.standing == "not in its log":
        found = f"{who} (PIDs {pids}): {of}, whose log does not know them; the same spawn again takes them on"
        return Check(check, found, Health.WARNING, f"spawn it again, or orchestra stop {family.words}")
    why = {
        "gone": f"of {of}, which is gone",
        "nameless": "they name no run",
        "ended": f"{of}: that attempt is over",
    }[family.standing]
    advice = f"kill {pids} (and kill -KILL what stays)"
    return Check(check, f"{who} (PIDs {pids}): {why}", Health.WARNING, advice)


def leftover_directories(tmp: str, quoted: Sequence[str], size: int) -> Check:
    check = "leftover TMPDIRs"
    if not quoted:
        return Check(check, f"none in {tmp}")
    found = f"{len(quoted)} in {tmp}, {format_bytes(size)}, used by no process that is seen from here"
    return Check(check, found, Health.WARNING, removal(quoted))


def half_built(quoted: Sequence[str]) -> Check:
    if not quoted:
        return Check("half-built files", "none")
    found = f"{len(quoted)}, of processes that are dead"
    return Check("half-built files", found, Health.WARNING, removal(quoted))


def removal(quoted: Sequence[str]) -> str:
    rest = len(quoted) - MOST_REMOVED
    more = f"   # and {rest} more: ask orchestra doctor again" if rest > 0 else ""
    return f"rm -rf -- {' '.join(quoted[:MOST_REMOVED])}{more}"


# --- one run -----------------------------------------------------------------------------


def ownership(run_dir: str, *, owner: int, us: int, refused: bool) -> Check:
    """`refused`: this user may not write there."""
    if refused:
        advice = f"act as the user with the ID {owner}, or mount the file system writable"
        return Check("run directory", f"{run_dir} may not be written to", Health.WARNING, advice)
    if owner != us:
        found = f"{run_dir} belongs to the user with the ID {owner}, not {us}"
        return Check("run directory", found, Health.WARNING, "drive a run as one user: files would be mixed")
    return Check("run directory", run_dir)


def permissions(loose: Sequence[str], quoted_dir: str) -> Check:
    """`loose`: what others may read or write, "." for the directory itself."""
    if not loose:
        return Check("permissions", "for its user alone (0700, 0600)")
    found = f"open to others: {some(loose)}"
    return Check("permissions", found, Health.WARNING, f"chmod -R go-rwx -- {quoted_dir}")


def log(
    events: int,
    size: int,
    damage: Sequence[Damage],
    *,
    begun: bool,
    in_order: bool,
    held: bool,
    aside: int,
    copied: bool,
    words: str,
) -> Check:
    """`begun`: its first event is there; `held`: somebody may be writing at this moment; `aside`: pieces
    of earlier damage; `copied`: state.json has what the log has lost.
    """
    check = "event log"
    figures = f"{events} events, {format_bytes(size)}, each line's checksum looked at"
    earlier = f"; set aside before, in events.damaged: {aside}" if aside else ""
    real = [d for d in damage if not (d.torn and held)]
    places = some([f"{d.size} bytes at {d.offset}{' (at the end)' if d.torn else ''}" for d in real])
    if not begun:
        found = f"{figures}; its beginning is damaged or gone{f': {places}' if places else ''}"
        lost = "restore events.jsonl from a copy, or begin anew: orchestra init NEW --plan run.yaml"
        return Check(check, found, Health.BAD, f"orchestra unlock {words}" if copied else lost)
    if real:
        verdict = Health.WARNING if all(d.torn for d in real) else Health.BAD
        return Check(check, f"{figures}; damaged: {places}{earlier}", verdict, f"orchestra unlock {words}")
    if not in_order:
        advice = f"see orchestra events {words}: two may have written, or a copy was put back"
        return Check(check, f"{figures}; its operations do not grow{earlier}", Health.WARNING, advice)
    return Check(check, f"{figures}: whole{earlier}")


def state(told: dict[str, Any] | None, op: int, ended: dict[str, tuple[int, str]], *, words: str) -> Check:
    """`told`: state.json, None where there is none that can be read; `op`: the log's last.

    `ended`: worker -> (attempt, state) of those that have, by the log.
    """
    check = "state.json"
    anew = f"orchestra unlock {words}"
    if told is None:
        return Check(
            check,
            "missing, unreadable, or too long to be read; it is derived from the log",
            Health.WARNING,
            anew,
        )
    upto, workers = told.get("op"), told.get("workers")
    if not isinstance(upto, int) or not isinstance(workers, dict):
        return Check(check, "is no state of a run", Health.WARNING, anew)
    if upto > op:
        found = f"knows {upto} operations, the log {op}: what the log has lost is written back from here"
        return Check(check, found, Health.BAD, anew)
    if upto < op:
        return Check(check, f"{op - upto} operations behind the log: the next command writes it anew")
    wrong = [
        name
        for name, standing in ended.items()
        if not isinstance(row := workers.get(name), dict)
        or (row.get("attempt"), row.get("state")) != standing
    ]
    if wrong:
        return Check(check, f"says otherwise than the log of: {some(wrong)}", Health.WARNING, anew)
    return Check(check, f"agrees with the log (operation {op})")


def workers(counts: dict[str, int], stalled: Sequence[str], stopped: Sequence[int], words: str) -> Check:
    """`stopped`: PIDs of launchers that are."""
    found = ", ".join(f"{n} {state}" for state, n in counts.items() if n) or "none yet"
    if stopped:
        pids = " ".join(map(str, stopped))
        return Check("workers", f"{found}; launchers are stopped", Health.WARNING, f"kill -CONT {pids}")
    if stalled:
        return Check("workers", found, Health.WARNING, f"orchestra explain {words} {stalled[0]}")
    return Check("workers", found)


def gaps(found: Sequence[tuple[str, str]], words: str) -> Check:
    """Rows of (worker, where its trail ends)."""
    if not found:
        return Check("trail", "no gaps")
    told = some([f"{name}: {gap}" for name, gap in found])
    return Check("trail", told, Health.WARNING, f"orchestra spawn {words}")


def late_results(found: Sequence[tuple[str, int]], words: str) -> Check:
    if not found:
        return Check("late results", "none")
    told = some([f"{name} (attempt {attempt})" for name, attempt in found])
    advice = f"look at attempts/NAME/K/result.json, and orchestra explain {words} {found[0][0]}"
    return Check("late results", f"kept and not believed: {told}", Health.WARNING, advice)


def leftovers_of_ended(pids: Sequence[tuple[str, list[int]]], quoted: Sequence[str], words: str) -> Check:
    """`pids`: (worker, what of it lives on); `quoted`: temporary directories of workers that ended."""
    check = "ended workers"
    if pids:
        told = some([f"{name} (PIDs {' '.join(map(str, living))})" for name, living in pids])
        return Check(check, f"live on in part: {told}", Health.WARNING, f"orchestra unlock {words}")
    if quoted:
        found = f"{len(quoted)} left their TMPDIR behind"
        return Check(check, found, Health.WARNING, removal(quoted))
    return Check(check, "left nothing behind")


def strangers(names: Sequence[str]) -> Check:
    if not names:
        return Check("strange files", "none")
    advice = "look at them: orchestra did not make them and does not need them"
    return Check("strange files", f"{len(names)}: {some(names)}", Health.WARNING, advice)


def sizes(log: int, printed: int, made: int, free: int) -> Check:
    """In bytes: the event log, what workers printed, what they made, and what the disk has left."""
    parts = (("log", log), ("printed", printed), ("made", made), ("free", free))
    found = ", ".join(f"{what} {format_bytes(size)}" for what, size in parts)
    if printed > max(free, 512 * MIB):
        advice = "the workers have printed more than there is room left: make them print less, or free space"
        return Check("sizes", found, Health.WARNING, advice)
    return Check("sizes", found)
