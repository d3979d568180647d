"""The errors a user can meet, each with the exit status of the process.

    GToolError        1  the user can fix it: file, data, network, checkpoint, device
      DataError       1
      CheckpointError 1
      DeviceError     1
      NetworkError    1
    RecipeError       2  a bad recipe key or value (click reports bad flags with 2 as well)
    GateError         4  ran correctly, a metric missed its gate
    DivergedError     5  training left the finite numbers; the last good state is kept
    InterruptedRunError 130 or 143, after the state has been saved

Anything else that escapes is our bug and exits with 3. A message is one line: what, where, what to do.
"""

import re
from difflib import get_close_matches


class GToolError(Exception):
    """Base of everything that is reported to the user as one line."""

    exit_code = 1


class DataError(GToolError):
    """Images, folders or data sets that cannot be used."""


class CheckpointError(GToolError):
    """Weights, states or run folders that cannot be used."""


class DeviceError(GToolError):
    """A device, precision or process layout that this machine does not have."""


class NetworkError(GToolError):
    """Something that needs the network, which is not there."""


class RecipeError(GToolError):
    """A recipe, `--set` value or combination of them that means nothing."""

    exit_code = 2


class GateError(GToolError):
    """A result that was measured correctly and refused."""

    exit_code = 4


class DivergedError(GToolError):
    """Losses or weights that are no longer finite."""

    exit_code = 5


class InterruptedRunError(GToolError):
    """A run stopped by a signal after saving its state."""

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signum


def did_you_mean(word: str, known: list[str] | tuple[str, ...]) -> str:
    """Return `; did you mean ...?` for the nearest known word, or the list of them when none is near."""
    swapped = [one for one in known if sorted(one) == sorted(word)]
    near = swapped or get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean `{near[0]}`?" if near else f"; known: {', '.join(sorted(known))}"


def printable(text: str) -> str:
    """Return text as one harmless line, whatever names of files are in it.

    Line ends, colours and bytes that are no text are escaped, and so is what begins a command where pipelines read the
    log: `::error`, `##[error]`, `##vso[`.
    """
    line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return re.sub(r"^\s*::|##\w*\[", lambda found: f"{found[0][:-1]}\\x{ord(found[0][-1]):02x}", line)
