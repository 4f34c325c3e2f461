"""The interpreters that wheels are installed by."""

import sys
import sysconfig
from collections.abc import Collection
from pathlib import Path

from tests.pythons.interpreters import Interpreter, Machine, NotHad, Version, find
from tests.pythons.root import Root
from tests.pythons.steps import Failed, Steps

ROOT = Path(__file__).parents[2]


def local(version: Version) -> Interpreter | None:
    """Find an interpreter outside any root: the one that runs this, before any other."""
    own = Version(sys.version_info.minor, bool(sysconfig.get_config_var("Py_GIL_DISABLED")))
    return Interpreter(version, Machine(), Path(sys.executable)) if own == version else find(version)


class Interpreters:
    """What this machine has: on the PATH, in pyenv, or in a root of Debian sid that `make test-pythons` has made.

    Args:
        cache: The folder in which that would be.
        shared: A folder that is to be seen in it.
        steps: Runs its commands.
        needed: Which must be there.
    """

    def __init__(self, cache: Path, shared: Path, steps: Steps, needed: Collection[Version]) -> None:
        self._needed = needed
        self._root = Root(cache, steps, shared=[ROOT, shared]) if (cache / "sid").exists() else None

    def get(self, version: Version) -> Interpreter:
        """Find one.

        Raises:
            NotHad: There is none.
            Failed: There is none, and it is needed.
        """
        if found := local(version):
            return found
        try:
            return self._in_root(version)
        except NotHad as reason:
            if version in self._needed:
                raise Failed(f"CPython {version} is needed: {reason}") from reason
            raise

    def _in_root(self, version: Version) -> Interpreter:
        if self._root is None:
            raise NotHad("it is not on this machine")
        return self._root.interpreter(version)
