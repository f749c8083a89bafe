"""How this program was started: as `linkbeat` from the wheel, or as `python -m service` in a checkout.

Messages name the command that works here, and child processes import the same modules.
"""

import sys

# In a checkout, the packages are at the top: service, agent. In the wheel they are below one: linkbeat.service.
PREFIX = __name__.partition("service.")[0]
INSTALLED = PREFIX != ""
COMMAND = "linkbeat" if INSTALLED else "python -m service"


def python_module(name: str, *arguments: str) -> list[str]:
    """The command that starts a package of Linkbeat ("service", "agent") in a new process.

    -P: python -m searches the current directory first, and a folder `linkbeat` in the one where someone types the
    command is not this package. In a checkout, that directory is where the packages are.
    """
    return [sys.executable, *(["-P"] if INSTALLED else []), "-m", f"{PREFIX}{name}", *arguments]
