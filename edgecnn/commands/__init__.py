"""The commands, one module each: ``HELP``, ``arguments(parser)`` and ``run(options) -> exit status``.

Options in, exit status out. Tables go to stderr, or to stdout where they
are the answer; ``--json`` documents to stdout.
A module is imported to build the parser, so what is heavy (numpy, torch, a runtime) is imported inside ``run``.
"""

COMMANDS = (
    "export",
    "validate",
    "compare",
    "benchmark",
    "inspect",
    "train",
    "scale",
    "study",
    "models",
    "targets",
    "devices",
    "recipes",
    "doctor",
)
"""In the order in which ``edgecnn --help`` lists them."""
