"""The command line: parse, call, tell errors. `smar.commands` holds what each command takes and does.

Exit codes: 0 done; 1 training or the machine failed; 2 the user's input is wrong (one message, no traceback);
130 stopped by the user.
"""

import os
import sys
from collections.abc import Sequence

from smar.commands.command import call
from smar.commands.parser import COMMANDS, parser
from smar.core.errors import InputError, TrainingError
from smar.core.progress import console, shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = parser().parse_args(arguments)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # else threads that wait take a busy machine's cores
    try:
        call(COMMANDS[options.command], options)
    except InputError as error:
        console.print(f"smar {options.command}: {shown(error)}", style="red", markup=False, soft_wrap=True)
        return 2
    except (TrainingError, OSError, MemoryError) as error:
        console.print(f"smar {options.command} failed: {shown(error)}", style="red", markup=False, soft_wrap=True)
        return 1
    except KeyboardInterrupt:
        console.print(f"smar {options.command}: stopped. The same command goes on where it can.", markup=False)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
