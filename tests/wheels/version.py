"""Whether a tag is that of the version: ``python -m tests.wheels.version v1.2.3``."""

import argparse
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def versions() -> dict[str, str]:
    """Read the version from each manifest."""
    manifests = {name: tomllib.loads((ROOT / name).read_text()) for name in ("Cargo.toml", "pyproject.toml")}
    return {
        "Cargo.toml": manifests["Cargo.toml"]["workspace"]["package"]["version"],
        "pyproject.toml": manifests["pyproject.toml"]["project"]["version"],
    }


def main() -> int:
    """Return 1, with a sentence for each manifest that has another version, if the tag is not theirs."""
    parser = argparse.ArgumentParser(prog="python -m tests.wheels.version", description=__doc__)
    parser.add_argument("tag", help="the tag, such as v1.2.3")
    tag = parser.parse_args().tag
    others = {name: version for name, version in versions().items() if tag != f"v{version}"}
    for name, version in others.items():
        print(f"the tag is {tag}, and {name} has version {version}, of which the tag is v{version}", file=sys.stderr)
    return int(bool(others))


if __name__ == "__main__":
    sys.exit(main())
