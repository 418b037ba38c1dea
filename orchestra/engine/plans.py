"""Plans and briefs from disk: what a command was given, read and checked before anything is written."""

from __future__ import annotations

import json
import os
import re
from typing import Any

from orchestra.errors import BadPlan, Usage
from orchestra.model.event import json_bytes
from orchestra.model.plan import MOST_INPUT, Plan, WorkerEntry, brief_is_path, plan_to_json


def read_plan(path: str) -> tuple[str, Plan, str]:
    """(the plan's text, what it says, the directory that it is relative to); every brief that is a file is
    there and readable. Raises BadPlan, Usage.

    `path` may also be the run.yaml of a run, for another of the same plan.
    """
    from orchestra.model.plan_text import parse_plan

    text, base = read_input(path, "plan"), os.path.dirname(os.path.abspath(path))
    before = ""
    if of_a_run := _RUN_YAML.match(text):
        before, text, base = of_a_run[0], text[of_a_run.end() :].removesuffix("\n"), json.loads(of_a_run[1])
    plan = parse_plan("\n" * before.count("\n") + text, file=path)
    size = len(json_bytes(plan_to_json(plan)))
    if size > 3 * MOST_INPUT:  # of plain text no byte takes more in JSON
        raise BadPlan(
            f"the plan ({path}) has {size} bytes with its aliases written out, and may have {3 * MOST_INPUT}",
            hint="put what is used again and again into files, and name them",
            file=path,
        )
    for phase in plan.phases:
        for entry in phase.workers:
            line, column = plan.positions.get(entry.name, (0, 0))
            resolve_brief(entry.brief, base, where=(path, line, column), worker=entry.name)
    return text, plan, base


def run_yaml(settings: dict[str, Any], plan: str | None) -> str:
    """The settings as a YAML document, and behind it the plan, letter by letter."""
    head = "".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items())
    return f"# orchestra run, version 1\n{head}---\n{plan if plan is not None else '# no plan'}\n"


_RUN_YAML = re.compile(
    r'# orchestra run, version 1\n(?:(?!base:)\w+: .*\n)*base: (".*")\n(?:\w+: .*\n)*---\n'
)


def read_workers(path: str) -> list[WorkerEntry]:
    """The list that `--from` names (`-`: standard input), briefs resolved. Raises BadPlan."""
    from orchestra.model.plan_text import parse_workers_and_positions

    name = "standard input" if path == "-" else path
    text = read_input(path, "list of workers")
    base = os.getcwd() if path == "-" else os.path.dirname(os.path.abspath(path))
    entries, positions = parse_workers_and_positions(text, file=name)
    return [
        e._replace(brief=resolve_brief(e.brief, base, where=(name, *positions[e.name]), worker=e.name))
        for e in entries
    ]


def resolve_brief(brief: str, base: str, *, where: tuple[str, int, int] | None, worker: str) -> str:
    """The text of a brief: a file where one of that name exists, else the text itself. Raises BadPlan.

    `where`: file, line and column of the worker, where they are known.
    """
    path = os.path.join(base, brief) if len(brief) < 4096 and "\0" not in brief and "\n" not in brief else ""
    if path and os.path.isfile(path):
        return read_brief(path, worker)
    if brief_is_path(brief):
        missing, hint = f"the brief of {worker} is not there: {path}", "write the file, then call again"
        if where is None:
            raise BadPlan(missing, hint=hint, file=path, worker=worker)
        file, line, column = where
        raise BadPlan(
            f"{file}:{line}:{column}: {missing}",
            hint="write the file, or put the text of the brief in its place",
            file=file,
            line=line,
            column=column,
            worker=worker,
        )
    return brief


def read_brief(path: str, worker: str) -> str:
    try:
        with open(path, "rb") as file:
            data = file.read(MOST_INPUT + 1)
    except OSError as error:
        raise BadPlan(
            f"the brief of {worker} cannot be read ({path}): {error.strerror}", file=path, worker=worker
        ) from error
    if len(data) > MOST_INPUT:
        raise BadPlan(
            f"the brief of {worker} ({path}) has more than {MOST_INPUT} bytes",
            hint="put the bulk into a file and name it in the brief",
            file=path,
            worker=worker,
        )
    return data.decode("utf-8", "surrogateescape")


def read_input(path: str, what: str) -> str:
    """The text of a file, or of standard input for `-`. Raises BadPlan where it is not UTF-8, Usage."""
    try:
        # By its number: /dev/stdin cannot be opened where it is a socket.
        with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
            data = file.read(MOST_INPUT + 1)
        if len(data) > MOST_INPUT:
            raise BadPlan(
                f"the {what} ({path}) has more than {MOST_INPUT} bytes",
                hint="put long briefs into files beside it, and name them",
                file=path,
            )
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8")
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        raise BadPlan(
            f"{path}:{line}:{column}: the {what} is not UTF-8 (byte {error.start})",
            hint="save the file as UTF-8 text",
            file=path,
            line=line,
            column=column,
        ) from None
    except OSError as error:
        raise Usage(f"could not read the {what} {path}: {error.strerror}", hint="check the path") from error
