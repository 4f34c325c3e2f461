"""The app in a project, as its own process: what ``manage.py`` does, and what the settings change."""

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.waiting import SECONDS

if TYPE_CHECKING:
    from tests.django_app.conftest import Environment

WHOSE = """
import django
django.setup()
import channels.consumer
print(channels.consumer.aclose_old_connections.__module__)
"""


def manage(environment: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run ``manage.py`` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "django", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.mark.parametrize(
    ("variables", "whose"),
    [
        ({}, "headrace.django._patch"),
        ({"BANK_PATCH": "false"}, "channels.db"),
        ({"BANK_APPS": '["channels"]'}, "channels.db"),
        ({"BANK_APPS": '["channels", "headrace.django"]'}, "headrace.django._patch"),
    ],
)
def test_the_app_patches_channels_unless_told_not_to(
    environment: "Environment", variables: dict[str, str], whose: str
) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", WHOSE],
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (result.stderr, result.stdout) == ("", f"{whose}\n")


def test_check_finds_nothing_in_a_sound_project(environment: "Environment") -> None:
    result = manage(environment(), "check")
    assert (result.returncode, result.stdout) == (0, "System check identified no issues (0 silenced).\n")


def test_check_reports_what_could_go_wrong(environment: "Environment") -> None:
    layers = {
        "default": {"BACKEND": "channels.layers.InMemoryChannelLayer"},
        "other": {"BACKEND": "not_there.Layer"},
    }
    result = manage(environment(BANK_LAYERS=json.dumps(layers), BANK_PATCH="false"), "check")
    assert result.returncode == 1
    assert "(headrace.W003) CHANNEL_LAYERS['default'] is Channels' layer in memory" in result.stderr
    assert "HINT: Use 'headrace.layers.InMemoryChannelLayer'" in result.stderr
    assert "(headrace.E002) CHANNEL_LAYERS['other']['BACKEND'] is 'not_there.Layer'" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send these to a child")
def test_runworker_delivers_until_it_is_told_to_stop(environment: "Environment", number: signal.Signals) -> None:
    layers = {
        "default": {"BACKEND": "channels.layers.InMemoryChannelLayer"},
        "lines": {"BACKEND": "bank_layer.StdinLayer"},
    }
    variables = environment(BANK_LAYERS=json.dumps(layers))
    manage(variables, "migrate")
    arguments = ["runworker", "--skip-checks", "--layer", "lines", "tellers"]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-m", "django", *arguments], env=variables, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for n in range(3):
            message: dict[str, Any] = {"type": "users.count", "n": n}
            process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()
            assert process.stdout.readline() == f"users {n} 0\n"
        process.send_signal(number)
        out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out, err) == (0, "", "")


def test_runworker_is_headraces_if_the_app_comes_first(environment: "Environment") -> None:
    for apps, whose in (("headrace.django", "headrace.django"), ("channels", "channels")):
        others = {"headrace.django", "channels"} - {apps}
        program = "import django; django.setup(); from django.core.management import get_commands; "
        program += "print(get_commands()['runworker'])"
        result = subprocess.run(
            [sys.executable, "-c", program],
            env=environment(BANK_APPS=json.dumps([apps, *others])),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert (result.stderr, result.stdout) == ("", f"{whose}\n")


def test_runworker_without_a_layer_says_so(environment: "Environment") -> None:
    result = manage(environment(), "runworker", "--layer", "other", "tellers")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "CommandError: You do not have any CHANNEL_LAYERS configured.\n"
