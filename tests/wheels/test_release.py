"""What gets into the folder of a release: what was built and found good, and nothing else."""

import json
import platform
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest
from tests.pythons.interpreters import Interpreter, Machine, Version
from tests.pythons.steps import Failed, Steps
from tests.wheels.interfaces import INTERFACES, STABLE, Interface
from tests.wheels.interpreters import Interpreters
from tests.wheels.platforms import Platform
from tests.wheels.release import Release
from tests.wheels.report import Entry

pytestmark = pytest.mark.one_python

ELSEWHERE = Platform("manylinux_2_17_s390x", "s390x-unknown-linux-gnu", platform.system(), "s390x", zig=True)
WHEEL = "headrace-1.0.0-cp311-cp311-manylinux_2_17_s390x.whl"
STABLE_WHEEL = WHEEL.replace("cp311-cp311", "cp315-abi3.abi3t")


class Pretended(Steps):
    """Builds a wheel of nothing, of which auditwheel finds what it is told to find."""

    def __init__(self, log: Path, found: str, outside: Sequence[str] = ()) -> None:
        super().__init__(log)
        self.found, self.outside = found, outside
        self.words: list[Sequence[str | Path]] = []
        self.targets: list[str] = []

    def run(self, words: Sequence[str | Path], environment: dict[str, str] | None = None) -> None:
        self.words.append(words)
        self.targets.append((environment or {})["CARGO_TARGET_DIR"])
        if "sdist" in words:
            (Path(words[-1]) / "headrace-1.0.0.tar.gz").touch()
        if "build" in words or "wheel" in words:
            (Path(words[-1]) / self.found).touch()

    def output(
        self,
        words: Sequence[str | Path],
        environment: dict[str, str] | None = None,
        statuses: Collection[int] = (0,),
    ) -> str:
        if "auditwheel" in words:
            return json.dumps({"overall_tag": "manylinux_2_17_s390x"})
        if 1 not in statuses:
            raise Failed("abi3audit, which takes PyModExport__core for a violation, ended with status 1")
        found = {
            "is_abi3_baseline_compatible": True,
            "baseline": "3.15",
            "computed": "3.15",
            "non_abi3_symbols": ["PyModExport__core", *self.outside],
            "future_abi3_objects": {},
        }
        return json.dumps({"specs": {"a wheel": {"wheel": [{"name": "_core.so", "result": found}]}}})


def release_of(tmp_path: Path, steps: Pretended) -> Release:
    """One whose folder is ``out``."""
    out, temporary = tmp_path / "out", tmp_path / "temporary"
    out.mkdir()
    temporary.mkdir()
    return Release(out, temporary, Interpreters(tmp_path, temporary, steps, ()), steps)


def taken(tmp_path: Path) -> list[str]:
    """What is in the folder of the release."""
    return [path.name for path in (tmp_path / "out").iterdir()]


def wheel(tmp_path: Path, steps: Pretended, interface: Interface = INTERFACES[0]) -> tuple[Entry, list[str]]:
    """Build one for a machine elsewhere; return its entry, and what is in the folder then."""
    entry = release_of(tmp_path, steps).wheel(ELSEWHERE, interface)
    return entry, taken(tmp_path)


def test_a_good_wheel_is_taken_and_what_was_not_done_is_told(tmp_path: Path) -> None:
    steps = Pretended(tmp_path / "log", WHEEL)
    entry, files = wheel(tmp_path, steps)
    assert files == [entry.name] == [WHEEL]
    assert entry.good[1:] == ["auditwheel finds manylinux_2_17_s390x"]
    assert entry.lacking == ["the installation: this machine takes no manylinux_2_17_s390x"]
    (build,) = steps.words
    assert " ".join(map(str, build[3:-1])) == (
        "build --release --locked --target s390x-unknown-linux-gnu --zig --compatibility manylinux_2_17"
        " --interpreter 3.11 --out"
    )


def test_a_wheel_that_promises_too_much_is_not_taken(tmp_path: Path) -> None:
    name = WHEEL.replace("2_17", "2_12")
    entry, files = wheel(tmp_path, Pretended(tmp_path / "log", name))
    assert (entry.failed, files) == (["auditwheel finds manylinux_2_17_s390x"], [])


def test_a_wheel_that_leaves_the_stable_abi_is_not_taken(tmp_path: Path) -> None:
    steps = Pretended(tmp_path / "log", STABLE_WHEEL, outside=["_PyDict_Next"])
    entry, files = wheel(tmp_path, steps, STABLE)
    assert [failed.partition(":")[0] for failed in entry.failed] == ["abi3audit finds more than the stable ABI of 3.15"]
    assert files == []


def test_a_wheel_of_the_stable_abi_is_taken(tmp_path: Path) -> None:
    steps = Pretended(tmp_path / "log", STABLE_WHEEL)
    entry, files = wheel(tmp_path, steps, STABLE)
    assert (entry.failed, files) == ([], [STABLE_WHEEL])
    assert entry.good[-1] == "abi3audit finds the stable ABI of 3.15"
    (build,) = steps.words
    assert " ".join(map(str, build[-6:])).startswith("--features pyo3/abi3t-py315 --interpreter 3.15 --out /")


def test_the_source_distribution_is_compiled_from_nothing(tmp_path: Path) -> None:
    """Its files are dated long ago, so that cargo would take what is compiled for the newest."""
    unknown = WHEEL.replace("cp311", "cp399")
    steps = Pretended(tmp_path / "log", unknown)
    entry = release_of(tmp_path, steps).sdist()
    assert (entry.name, entry.good, entry.failed) == ("headrace-1.0.0.tar.gz", [f"{unknown} is built from it"], [])
    assert taken(tmp_path) == ["headrace-1.0.0.tar.gz"]
    *_, target = steps.targets
    assert list(Path(target).iterdir()) == []


def test_a_python_that_is_needed_and_not_here_fails(tmp_path: Path) -> None:
    missing = Version.parse("3.99")
    interpreters = Interpreters(tmp_path, tmp_path, Steps(tmp_path / "log"), [missing])
    with pytest.raises(Failed, match=r"^CPython 3\.99 is needed: it is not on this machine$"):
        interpreters.get(missing)


def test_a_python_that_is_needed_may_be_in_the_root_of_debian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = Interpreter(Version.parse("3.99"), Machine(), Path("/usr/bin/python3.99"))
    (tmp_path / "sid").mkdir()
    monkeypatch.setattr("tests.pythons.root.Root.interpreter", lambda _root, _version: there)
    interpreters = Interpreters(tmp_path, tmp_path, Steps(tmp_path / "log"), [there.version])
    assert interpreters.get(there.version) is there
