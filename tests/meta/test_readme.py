"""The README's claims that a program can check."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def test_the_first_example_prints_what_the_readme_says() -> None:
    """The ten lines run as printed, in a process of their own."""
    example = re.search(r"```python\n(.*?)```\n\nIt prints `(.*?)`\.", README, re.DOTALL)
    assert example is not None
    program, printed = example.groups()
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, printed + "\n", "")


def test_the_first_screen_has_the_two_commands_and_the_example() -> None:
    """A reader finds what to type without scrolling far."""
    assert README.index("```python") < README.index("$ make demo") < README.index("$ make test")
    assert README[: README.index("$ make test")].count("\n") < 45


def test_every_link_to_a_file_leads_somewhere() -> None:
    """No link of the README is broken."""
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert targets
    missing = [target for target in targets if not (ROOT / target).exists()]
    assert missing == []


def test_every_make_target_that_the_readme_names_exists() -> None:
    """No command of the README is invented."""
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`?make ([a-z-]+)", README):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
