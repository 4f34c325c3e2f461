"""A release has the tag of its version."""

import pytest
from tests.wheels import version

pytestmark = pytest.mark.one_python


def test_the_manifests_have_one_version() -> None:
    assert len(set(version.versions().values())) == 1


def test_the_tag_of_the_version_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    (current,) = set(version.versions().values())
    monkeypatch.setattr("sys.argv", ["version", f"v{current}"])
    assert version.main() == 0


def test_another_tag_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(version, "versions", lambda: {"Cargo.toml": "1.2.3", "pyproject.toml": "1.2.4"})
    monkeypatch.setattr("sys.argv", ["version", "v1.2.4"])
    assert version.main() == 1
    assert (
        capsys.readouterr().err == "the tag is v1.2.4, and Cargo.toml has version 1.2.3, of which the tag is v1.2.3\n"
    )
