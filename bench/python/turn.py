# SPDX-License-Identifier: MIT
"""One turn of one contestant, in a fresh interpreter: turn.py FUNCTION CONTESTANT PARAMETERS.

The parameters are a dict as Python writes it; the figures are printed as a JSON object. What
isn't needed by all is imported by those who need it: a pool that imports it at its start is
to pay for that, and spawned workers import this file again.
"""
import sys


def find(name: str):
    """The turn of that name."""
    import turns_start

    if hasattr(turns_start, name):
        return getattr(turns_start, name)
    import turns_life
    import turns_tasks

    return getattr(turns_tasks, name, None) or getattr(turns_life, name)


def main() -> None:
    from contestants import CONTESTANTS

    name, contestant, parameters = sys.argv[1:]
    figures = find(name)(CONTESTANTS[contestant], **eval(parameters, {}))
    import json

    print(json.dumps(figures))


if __name__ == "__main__":
    main()
