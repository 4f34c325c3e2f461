"""The projects whose tests are run, and what their source distributions have and lack.

A checkout of a project, given by ``--source``, has all its tests, and settings of its own.
"""

from dataclasses import dataclass

# What every project is run with; the versions are those that its own metadata asks for.
NEEDS = ("channels", "django", "pytest", "pytest-django", "pytest-asyncio")
PLUGINS = ("pytest_django.plugin", "pytest_asyncio.plugin")


@dataclass(frozen=True)
class Project:
    """A project on Channels.

    Attributes:
        name: That of its distribution.
        version: Which one is fetched. Our own files fit its tests.
        lacks: What its source distribution lacks of its tests, and what is run in the place of that.
        tests: Which of its own tests are run, as arguments of pytest, if they are there.
        needs: What these tests need beyond NEEDS.
        plugins: Plugins of pytest that they need.
        options: More arguments of pytest for them.
        settings: The module of Django's settings in a checkout, or None if its conftest has them.
    """

    name: str
    version: str
    lacks: str
    tests: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    plugins: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    settings: str | None = None

    @property
    def ours(self) -> str:
        """Name the folder of our own files for it."""
        return self.name.replace("-", "_")


PROJECTS = (
    Project(
        "strawberry-graphql",
        version="0.341.*",
        lacks="no tests: ours are run; give a checkout by --source for its own",
        tests=("tests/channels", "tests/http", "tests/websockets"),
        needs=(
            "httpx2",
            "inline-snapshot",
            "libcst",
            "pytest-emoji",
            "pytest-mock",
            "pytest-snapshot",
            "rich",
            "urllib3",
        ),
        plugins=("pytest_emoji.plugin", "pytest_mock", "pytest_snapshot.plugin", "inline_snapshot.pytest_plugin"),
        options=("-m", "channels"),
        settings="tests.django.django_settings",
    ),
    Project(
        "djangochannelsrestframework",
        version="1.3.*",
        lacks="no conftest.py, models.py and communicator.py of its tests: ours are used",
        tests=("tests",),
    ),
    Project(
        "channelsmultiplexer",
        version="0.0.3",
        lacks="no tests but a migration: ours are run",
    ),
)

KNOWN: dict[tuple[str, str], dict[str, str]] = {}
"""What a form is known to fail, by project and form: the test and the reason. One that passes is an error."""
