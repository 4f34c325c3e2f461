"""Which interpreters take a wheel of a name."""

from pathlib import Path

import pytest
from tests.pythons.interpreters import Version
from tests.wheels.interfaces import VERSIONS
from tests.wheels.names import Name

pytestmark = pytest.mark.one_python


@pytest.mark.parametrize(
    ("name", "interpreters"),
    [
        ("headrace-1.0.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64", ["3.11"]),
        ("headrace-1.0.0-cp312-abi3-win_amd64", ["3.12", "3.13", "3.14", "3.15"]),
        ("headrace-1.0.0-cp314-cp314t-musllinux_1_2_aarch64", ["3.14t"]),
        ("headrace-1.0.0-cp315-abi3t-macosx_11_0_arm64", ["3.15t"]),
        ("headrace-1.0.0-cp315-abi3.abi3t-macosx_11_0_arm64", ["3.15", "3.15t"]),
    ],
)
def test_wheel_fits_the_interpreters_of_its_tags(name: str, interpreters: list[str]) -> None:
    fits = Name.of(Path(f"{name}.whl")).fits
    assert [str(version) for version in VERSIONS if fits(version)] == sorted(interpreters, key=by_kind)


def test_stable_abi_serves_versions_to_come() -> None:
    name = Name.of(Path("headrace-1.0.0-cp312-abi3-win_amd64.whl"))
    assert name.is_stable()
    assert name.fits(Version.parse("3.20"))
    assert not name.fits(Version.parse("3.20t"))


def by_kind(version: str) -> tuple[bool, str]:
    """The free-threaded ones come last."""
    return version.endswith("t"), version
