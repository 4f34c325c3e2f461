"""What the name of a wheel says."""

from dataclasses import dataclass
from pathlib import Path

from tests.pythons.interpreters import Version


@dataclass(frozen=True)
class Name:
    """The name of a wheel for CPython 3.

    Attributes:
        minor: The least version of Python, or with no stable ABI the only one.
        abis: The binary interfaces that it keeps to.
        platforms: The systems that it is for.
    """

    minor: int
    abis: frozenset[str]
    platforms: frozenset[str]

    @classmethod
    def of(cls, wheel: Path) -> "Name":
        """Read the name of a file."""
        *_, python, abi, platform = wheel.stem.split("-")
        return cls(int(python.removeprefix("cp3")), frozenset(abi.split(".")), frozenset(platform.split(".")))

    def fits(self, version: Version) -> bool:
        """Whether that interpreter would take it."""
        own, stable = f"cp3{version.minor}", "abi3"
        if version.free_threaded:
            own, stable = f"{own}t", f"{stable}t"
        return own in self.abis or (stable in self.abis and version.minor >= self.minor)

    def is_stable(self) -> bool:
        """Whether it keeps to a stable ABI."""
        return bool(self.abis & {"abi3", "abi3t"})
