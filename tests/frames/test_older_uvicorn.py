"""The same on the oldest uvicorn that headrace.uvicorn takes, which is installed beside the newer one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OLDER = Path(sys.prefix, "uvicorn40")


@pytest.mark.skipif(not OLDER.exists(), reason=f"there is no {OLDER}; make test installs it")
def test_the_tests_pass_on_the_oldest_uvicorn() -> None:
    paths = os.pathsep.join([str(OLDER), *filter(None, [os.environ.get("PYTHONPATH")])])
    version = "import uvicorn; print(uvicorn.__version__)"
    tests = ["tests/frames/test_uvicorn.py", "tests/frames/test_deflate.py", "tests/frames/test_shape.py"]
    environment = {**os.environ, "PYTHONPATH": paths}
    asked = subprocess.run([sys.executable, "-c", version], env=environment, capture_output=True, text=True, check=True)
    assert asked.stdout.startswith("0.40.")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "asyncio", *tests]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=150, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
