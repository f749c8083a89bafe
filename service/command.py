"""How this program was started: as `linkbeat`, which the wheel installs, or as `python -m service` in a checkout.

What is printed names the command that can be typed; what is started finds the same modules.
"""

import sys
from pathlib import Path

INSTALLED = Path(sys.argv[0]).name == "linkbeat"
COMMAND = "linkbeat" if INSTALLED else "python -m service"


def python_module(name: str, *arguments: str) -> list[str]:
    """The command that starts a module of ours in a process of its own.

    -P: python -m looks for modules in the current directory first, and a folder `service` in the one where someone
    types `linkbeat` is none of ours. In a checkout, that directory is where the modules are.
    """
    return [sys.executable, *(["-P"] if INSTALLED else []), "-m", name, *arguments]
