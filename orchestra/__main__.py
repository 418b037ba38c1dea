"""`python -m orchestra`, and the console script."""

import signal


def main() -> None:
    """A ^C while the command line is still being imported is noted, and answered like any other."""
    noted: list[int] = []
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda signum, _: noted.append(signum))
    from orchestra.cli.main import main as command_line

    command_line(noted)


if __name__ == "__main__":
    main()
