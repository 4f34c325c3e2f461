"""The tests of a copy, run by pytest in a process of its own."""

import os
import subprocess
import sys

from tests.peers.copies import PATIENCE, Sources
from tests.peers.forms import Form, Unchanged
from tests.peers.projects import PLUGINS
from tests.pythons.suite import Outcome, judge

__all__ = ["run"]

# In the place of the project's own configuration, which may ask for what only its developers need.
_INI = "[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n"
_OWN_TESTS = "headrace_tests"
_MINUTES = 20


def run(sources: Sources, form: Form) -> Outcome:
    """Change a copy, and run its tests: the project's own, or ours where there are none."""
    copy = sources.copy(form.name)
    try:
        form.change(copy)
    except Unchanged as unchanged:
        return Outcome(complaint=str(unchanged))
    (copy / "headrace.ini").write_text(_INI)
    words = [sys.executable, "-m", "pytest", "-q", "-c", "headrace.ini", "--rootdir", ".", "--junit-xml=report.xml"]
    words += [f"-p{name}" for name in (*PLUGINS, PATIENCE)]
    if theirs := [name for name in sources.project.tests if (copy / name).exists()]:
        words += [*(f"-p{name}" for name in sources.project.plugins), *sources.project.options, *theirs]
    else:
        words.append(_OWN_TESTS)
    with (copy / "pytest.log").open("w") as log:
        try:
            ended = subprocess.run(
                words,
                cwd=copy,
                env=_environment(sources),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=_MINUTES * 60,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Outcome(complaint=f"did not end in {_MINUTES} minutes; see {log.name}")
    return judge(copy / "report.xml", ended.returncode)


def _environment(sources: Sources) -> dict[str, str]:
    # Of what the developer's environment has only the plugins that are named: they differ from one to the next.
    given = {"PYTHONPATH": str(sources.dependencies), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    if sources.settings is not None:
        given["DJANGO_SETTINGS_MODULE"] = sources.settings
    left = ("PYTEST_ADDOPTS", "DJANGO_SETTINGS_MODULE")
    return {name: value for name, value in os.environ.items() if name not in left} | given
