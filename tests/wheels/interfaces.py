"""The binary interfaces of Python that a wheel is built for."""

from dataclasses import dataclass

from tests.pythons.interpreters import Version


@dataclass(frozen=True)
class Interface:
    """What a wheel is built for.

    Attributes:
        name: What the command line calls it.
        version: The interpreter that it is built by.
        features: The features of PyO3 that it takes.
    """

    name: str
    version: Version
    features: tuple[str, ...] = ()

    def options(self) -> list[str]:
        """Give maturin's options for it, but for the interpreter."""
        return ["--features", ",".join(self.features)] if self.features else []


# That of each supported version; and the stable one, which serves those to come. Why they are these is told in
# docs/explanation/decisions/0005-stable-abi.md.
VERSIONS = tuple(map(Version.parse, ("3.11", "3.12", "3.13", "3.14", "3.15", "3.14t", "3.15t")))
STABLE = Interface("stable", Version.parse("3.15"), ("pyo3/abi3t-py315",))
INTERFACES = (*(Interface(str(version), version) for version in VERSIONS), STABLE)
