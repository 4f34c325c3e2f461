"""What the steps of the migration change in a text."""

from pathlib import Path

import pytest
from tests.peers.forms import BASELINE, FORMS, Form, Unchanged

pytestmark = pytest.mark.one_python

FORM = {form.name: form for form in FORMS}


def changed(form: Form, folder: Path, text: str) -> str:
    path = folder / "module.py"
    path.write_text(text)
    form.change(folder)
    return path.read_text()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("from channels.db import x", "from headrace.db import x"),
        ("    from channels.testing import x", "    from headrace.testing import x"),
        ("import channels.layers", "import headrace.layers"),
        ("import channels", "import headrace"),
        ("from channels import DEFAULT_CHANNEL_LAYER", "from headrace import DEFAULT_CHANNEL_LAYER"),
        ("channels.layers.get_channel_layer()", "headrace.layers.get_channel_layer()"),
    ],
)
def test_the_root_of_an_import_is_changed(tmp_path: Path, before: str, after: str) -> None:
    assert changed(FORM["imports"], tmp_path, before) == after


@pytest.mark.parametrize(
    "kept",
    [
        "from channels.auth import AuthMiddlewareStack",
        "from channels import auth",
        "from channels.sessions import SessionMiddleware",
        "from strawberry.channels import GraphQLWSConsumer",
        "from mychannels.db import x",
        "import channels_redis",
        'BACKEND = "channels.layers.InMemoryChannelLayer"',
        'INSTALLED_APPS = ["channels"]',
    ],
)
def test_what_stays_channels_is_kept(tmp_path: Path, kept: str) -> None:
    assert changed(FORM["imports"], tmp_path, f"import channels.db\n{kept}") == f"import headrace.db\n{kept}"


def test_the_layer_is_swapped_in_the_settings(tmp_path: Path) -> None:
    settings = 'CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}}'
    assert changed(FORM["layer"], tmp_path, settings) == settings.replace("channels.layers", "headrace.layers")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('INSTALLED_APPS = ["a"]', 'INSTALLED_APPS = ["headrace.django", "a"]'),
        ('INSTALLED_APPS=("a")', 'INSTALLED_APPS=("headrace.django", "a")'),
        ('INSTALLED_APPS = (\n "a")', 'INSTALLED_APPS = ("headrace.django", \n "a")'),
    ],
)
def test_the_app_goes_before_all_others(tmp_path: Path, before: str, after: str) -> None:
    assert changed(FORM["app"], tmp_path, before) == after


def test_all_steps_are_taken_by_the_last_form(tmp_path: Path) -> None:
    text = 'import channels.db\nINSTALLED_APPS = ["channels"]\nB = "channels.layers.InMemoryChannelLayer"\n'
    assert changed(FORM["all"], tmp_path, text).splitlines() == [
        "import headrace.db",
        'INSTALLED_APPS = ["headrace.django", "channels"]',
        'B = "headrace.layers.InMemoryChannelLayer"',
    ]


def test_the_baseline_changes_nothing(tmp_path: Path) -> None:
    assert changed(BASELINE, tmp_path, "import channels.db") == "import channels.db"


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_form_that_finds_nothing_to_change_says_so(tmp_path: Path, form: Form) -> None:
    with pytest.raises(Unchanged, match=form.name):
        changed(form, tmp_path, "import django")
