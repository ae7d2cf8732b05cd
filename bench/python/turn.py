# SPDX-License-Identifier: MIT
"""One turn of one contestant, in a fresh interpreter: turn.py FUNCTION CONTESTANT PARAMETERS.

The parameters are a JSON object; the figures are printed as another. Nothing is imported
here for all: spawned workers import this file again.
"""
import sys


def main() -> None:
    import json

    import turns_life
    import turns_tasks
    from contestants import CONTESTANTS

    name, contestant, parameters = sys.argv[1:]
    function = getattr(turns_tasks, name, None) or getattr(turns_life, name)
    print(json.dumps(function(CONTESTANTS[contestant], **json.loads(parameters))))


if __name__ == "__main__":
    main()
