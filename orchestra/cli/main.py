"""The command line: verbs, the options that all of them take, and the one error boundary."""

from __future__ import annotations

import contextlib
import gc
import io
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click
import typer
from typer.core import TyperCommand

from orchestra import __version__
from orchestra.cli.session import Session
from orchestra.errors import BUG, USAGE, OrchestraError, Storage
from orchestra.model.advice import after_error
from orchestra.model.names import did_you_mean

INTERRUPTED = 130

# Each verb stands in a file of its own, imported only when it is called.
VERBS = {
    "init": "Make a run.",
    "spawn": "Start workers, each in its own right; pick up what was deferred.",
    "wait": "Wait until workers have ended, one failed, or the time is up.",
    "status": "Every worker, counts, lock, alerts, next steps.",
    "explain": "A worker's whole story: trail, attempts, verdict, evidence.",
    "logs": "What a worker printed.",
    "stop": "End workers with everything that they started.",
    "retry": "A new attempt for failed workers.",
    "run": "The built-in narrator: all phases of a plan, in order, unattended.",
    "unlock": "After a dead narrator: free the lock, put half-done spawns right.",
    "takeover": "Conduct a run in place of another narrator.",
    "list": "The runs under the root.",
    "host": "The host as the throttle sees it, and what would start now.",
    "doctor": "Check this machine, and a run's directory; say what to mend.",
    "events": "The event log.",
    "beat": "For workers: say that you are alive, and how far.",
    "completion": "Print the completion script for your shell.",
}


TAKE_COMMAND = ("spawn", "retry")  # a worker's, behind --
ONLY_LOOK = ("status", "explain", "logs", "list", "host", "doctor", "events", "completion")


class TakesCommand(TyperCommand):
    """A verb behind which a worker's command may stand."""

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return [*super().collect_usage_pieces(ctx), "[-- CMD ...]"]


class Verbs(click.Group):
    """The verbs by name, each imported when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in VERBS:
            return None
        module = import_module(f"orchestra.cli.verbs.{name}_verb")
        return build(name, module)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            near = did_you_mean(args[0], VERBS)
            raise click.UsageError(f"there is no command {args[0]!r}{near and '; '}{near}", ctx)
        name, command, rest = super().resolve_command(ctx, args)
        ctx.obj.verb = name or ""  # a value of an option may be spelled like a verb
        if ctx.obj.after_dashes is not None and name not in TAKE_COMMAND:
            raise click.UsageError(f"orchestra {name} takes no command behind --", ctx)
        return name, command, rest


def build(name: str, module: Any) -> click.Command:
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    kind = TakesCommand if name in TAKE_COMMAND else TyperCommand
    app.command(name, cls=kind, context_settings={"max_content_width": 100})(getattr(module, f"{name}_"))
    command = typer.main.get_command(app)
    command.params += shared_options()
    return command


def shared_options() -> list[click.Parameter]:
    """Taken before and behind the verb; they fill in the session."""

    def setter(field: str) -> Any:
        def callback(ctx: click.Context, param: click.Parameter, value: Any) -> None:
            if value is not None:
                setattr(ctx.find_object(Session), field, value)

        return callback

    def option(*words: str, field: str, text: str, **more: Any) -> click.Option:
        return click.Option(words, help=text, expose_value=False, callback=setter(field), **more)

    return [
        option(
            "--root",
            field="given_root",
            metavar="DIR",
            text="Where the runs are. Default: $ORCHESTRA_ROOT, else ./runs.",
        ),
        option(
            "--json/--text",
            field="json",
            default=None,
            text="How to answer. Default: text on a terminal, JSON elsewhere.",
        ),
        option(
            "--narrator",
            field="given_narrator",
            metavar="ID",
            text="Who is calling. Default: $ORCHESTRA_NARRATOR, else nobody in particular.",
        ),
    ]


HELP = """Drive long runs of detached workers, with no silence.

A run is a directory. Make one, spawn workers into it, wait, look at what came of it:

\b
  orchestra init demo
  echo 'Say something wise.' > brief.md
  orchestra spawn demo --worker W1=brief.md -- claude -p
  orchestra wait demo
  orchestra status demo

An answer names the commands that make sense next. Exit status: 0 all well, 1 a worker
failed, 2 bad input, 3 another narrator holds the run, 4 something was deferred, 5 still
running at the timeout, 70 a bug in orchestra, 130 interrupted.
"""


def group() -> Verbs:
    return Verbs(
        "orchestra",
        help=HELP,
        params=[*shared_options(), version_option()],
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
        no_args_is_help=True,
    )


def version_option() -> click.Option:
    def show(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value:
            print(f"orchestra {__version__}")
            ctx.exit()

    return click.Option(
        ["--version"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=show,
        help="Show the version.",
    )


def open_standard_streams() -> None:
    """A caller may have closed some; then the next file to be opened would take their place."""
    for fd, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != fd:
                os.dup2(null, fd)
                os.close(null)
            setattr(sys, name, os.fdopen(fd, "r" if fd == 0 else "w"))


class Interrupted(KeyboardInterrupt):
    """SIGTERM or SIGHUP: as good as ^C, so that what was begun is recorded."""


def interrupt(signum: int, frame: object) -> None:
    raise Interrupted


def main(noted: Sequence[int] = ()) -> None:
    """Answer one call. It is short, and a narrator makes hundreds: collecting garbage and taking the
    interpreter apart at the end would be an eighth of its time.

    `noted`: interrupts that came before there was anybody to answer them.
    """
    gc.disable()
    open_standard_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what the encoding has no sign for is told all the same
            stream.reconfigure(errors="backslashreplace")
    code = run(sys.argv[1:], noted)
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError as error:
        code = code or 1
        with contextlib.suppress(OSError):
            print(f"orchestra: could not write the answer: {error.strerror}", file=sys.stderr, flush=True)
    os._exit(code)


def run(argv: list[str], noted: Sequence[int] = ()) -> int:
    """The one error boundary. Returns the exit status."""
    words, after = split_at_dashes(argv)
    session = Session(after)
    session.argv = words
    session.verb = next((word for word in words if word in VERBS), "")
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # a caller that ignores it would hide our children's ends
    for signum in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(signum) is not signal.SIG_IGN:  # nohup means it
            signal.signal(signum, interrupt)
    try:
        hear_interrupts(noted)
        code = group().main(words, prog_name="orchestra", standalone_mode=False, obj=session)
        return code if isinstance(code, int) else 0
    except click.exceptions.NoArgsIsHelpError as error:
        print(error.format_message(), file=sys.stderr)
        if not session.as_json:
            return USAGE
        return tell(session, words, usage_error("no command was given", "orchestra"), USAGE)
    except click.ClickException as error:
        verb = f"orchestra {session.verb}".strip()
        return tell(session, words, usage_error(error.format_message(), verb), USAGE)
    except OrchestraError as error:
        return tell(session, words, error.to_json(), error.exit_status)
    except (KeyboardInterrupt, click.Abort):
        hint = (
            "nothing was changed"
            if session.verb in ONLY_LOOK
            else "what was started runs on; the next command takes up from here"
        )
        error_json = {"code": "interrupted", "message": "interrupted", "hint": hint}
        return tell(session, words, error_json, INTERRUPTED)
    except BrokenPipeError:
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # the system said no where nobody had thought of it
        problem = Storage.from_os(f"carry out orchestra {session.verb}", error.filename or ".", error)
        return tell(session, words, problem.to_json(), problem.exit_status)
    except MemoryError:
        hint = "raise the limit (ulimit -v) or free some, then make the same call again"
        problem = Storage(f"could not carry out orchestra {session.verb}: out of memory", hint=hint)
        return tell(session, words, problem.to_json(), problem.exit_status)
    except Exception as error:
        import traceback

        traceback.print_exc()
        hint = "this is a bug in orchestra: please report it with the lines on standard error"
        message = f"{type(error).__name__}: {error}"
        return tell(session, words, {"code": "internal", "message": message, "hint": hint}, BUG)


def hear_interrupts(noted: Sequence[int]) -> None:
    """From here on, as Python does, unless it was told to ignore them. Raises KeyboardInterrupt."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if noted:
        raise KeyboardInterrupt


def usage_error(message: str, verb: str) -> dict[str, Any]:
    hint = f"{verb} --help shows how"
    misread = message.startswith(("Got unexpected extra argument", "No such option"))
    if verb.removeprefix("orchestra ") in TAKE_COMMAND and misread:
        hint += "; a worker's command goes behind --, for instance: -- claude -p"
    return {"code": "usage", "message": message, "hint": hint}


def tell(session: Session, words: list[str], error: dict[str, Any], code: int) -> int:
    # The options may not have been read when the error came.
    if session.json is None and ("--json" in words or "--text" in words):
        session.json = "--json" in words
    from orchestra.engine.settings import told_here  # of errors only

    steps = after_error(error, session.verb, session.words, session.options, words, told_here())
    with contextlib.suppress(OSError):  # where it cannot be written, the exit status has to do
        if session.as_json:
            session.line(session.envelope({"error": error}, steps))
        else:
            hint = error.get("hint") or ""
            lines = [f"orchestra: {error['message']}", *([f"  {hint}"] if hint else [])]
            lines += [f"next: {step}" for step in steps if step not in hint]
            print("\n".join(lines), file=sys.stderr)
    return code


def split_at_dashes(argv: list[str]) -> tuple[list[str], list[str] | None]:
    """What stands behind `--` is a worker's command, and no business of the parser."""
    if "--" not in argv:
        return argv, None
    cut = argv.index("--")
    return argv[:cut], argv[cut + 1 :]
