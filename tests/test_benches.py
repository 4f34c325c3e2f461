"""The benches run, and their results have the shape that readers rely on; what they measure is not judged here."""

import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

# One of those that are compared, with no build for a free-threaded interpreter.
pytest.importorskip("django_sockets", exc_type=ImportError)

pytestmark = [pytest.mark.timeout(600), pytest.mark.one_python]

of_results = pytest.mark.xdist_group("compare")

ROOT = Path(__file__).parent.parent
CASES = {
    "ready send + receive",
    "the same among 10,000 live channels",
    "fan-out to 100 tasks, receive",
    "fan-out to 100 tasks, async for",
    "fan-out to 10 tasks, receive",
    "group_send to 10 consumers",
    "the same, Channels' consumers",
    "the same, Channels' consumers, headrace.django",
    "echo through one consumer",
    "worst echo beside a busy consumer",
    "the same, worst echo, headrace.django",
    "connected AsyncWebsocketConsumer, idle",
    "connected WebsocketConsumer, idle",
    "2,000 messages from a thread, each",
    "the call alone, nobody receives",
    "one message from a thread to an idle loop",
    "idle channel with a waiting receiver",
    "history, a group_send to nobody",
    "history, a delivery to one of 100 tasks that wait",
    "history, a resume of 100 messages",
    "history, 2,000 clients resume 50 messages each",
    "history, a kept message",
    "Redis, history, group_send to one waiting receiver",
    "Valkey, history, group_send to one waiting receiver",
    "Redis, history, 200 concurrent group_sends, each",
    "Redis, history, one of 1,000 messages of 200 bytes",
    "Redis, group_send to one waiting receiver",
    "Redis, broadcast to 200 local members, each",
    "Redis, 200 concurrent group_sends, each",
    "Redis, group_send_sync from a thread",
    "Redis, 200 consumers connect and join one group, each",
    "the same, commands to Redis for each",
    "Redis, 2 processes of 200 members, each delivery",
    "Redis, idle member of a group",
    "Redis, a second of 500 idle members, processor time",
    "Redis, 5 socket servers on a topic, each delivery",
    "Redis, 20 socket servers on a topic, each delivery",
    "Redis, connections of a process with 20 socket servers",
    "Redis, Broadcaster(hosts=...).broadcast() in plain code",
    "Redis, broadcast() of a kept Broadcaster in plain code",
    "Redis, making a Broadcaster in plain code",
    "Redis, subscribed socket server, idle",
    "Redis, a second of 100 idle socket servers, processor time",
}


def run(*arguments: str) -> str:
    """Run a module of the benches at the root of the repository, and return what it prints."""
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def loops(request: pytest.FixtureRequest) -> list[str]:
    """Say what the comparison runs on: each loop with ``--deep``, else one, because it takes a minute on each."""
    return ["asyncio", "uvloop"] if request.config.getoption("--deep", False) else ["asyncio"]


@pytest.fixture(scope="module")
def results(loops: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Run a quick comparison, and return its table and where its files are."""
    out = tmp_path_factory.mktemp("results")
    return run("benches.compare", "--quick", "--loops", *loops, "--out", str(out)), out


@of_results
def test_compare_measures_every_case_on_each_loop(results: tuple[str, Path], loops: list[str]) -> None:
    """Every case has a row for each loop, and each is in the table."""
    table, out = results
    rows = json.loads((out / "compare.json").read_text())["rows"]
    for loop in loops:
        assert {row["case"] for row in rows if row["loop"] == loop} >= CASES
        sockets = {row["case"] for row in rows if row["case"].startswith("uvicorn") and row["loop"] == loop}
        framed = "forward, headrace.uvicorn"
        ways = ("handler", "forward", "handler, headrace.uvicorn", framed)
        kinds = ("", ", 4 KiB", ", deflate", ", 4 KiB, deflate")
        expected = {f"uvicorn, {number} clients{kind}, {way}" for number in (20, 50) for kind in kinds for way in ways}
        expected |= {f"uvicorn, 50 clients beside 20, {framed}"}
        assert sockets == expected | {
            f"uvicorn, 20 clients, {way}" for way in ("echo of a consumer", "echo of a consumer, headrace.uvicorn")
        }
    assert {row["case"] for row in rows if not row["loop"]} == {"membership", "20,000 memberships, each"}
    assert all(row["case"] in table for row in rows)


@of_results
def test_compare_judges_the_rows_that_have_an_aim(results: tuple[str, Path]) -> None:
    """A row with a limit says whether it was met; a row without says nothing."""
    rows = json.loads((results[1] / "compare.json").read_text())["rows"]
    assert all(row["ours"]["median"] > 0 for row in rows if row["unit"] != "commands")
    assert all((row["met"] is None) == (row["limit"] is None) for row in rows)
    assert all(row["verdict"].startswith("met" if row["met"] else "missed by") for row in rows if row["limit"])


@of_results
def test_compare_tells_what_it_ran_on(results: tuple[str, Path]) -> None:
    """Machine, versions, commit, date and command stand in the file, and no path of this machine."""
    text = (results[1] / "compare.json").read_text()
    about = json.loads(text)
    assert about.keys() == {"machine", "versions", "commit", "date", "server", "command", "rows"}
    assert about["versions"].keys() >= {"python", "headrace", "channels", "channels_redis", "uvloop", "uvicorn"}
    assert str(ROOT) not in text


@of_results
def test_compare_draws_the_fan_out(results: tuple[str, Path]) -> None:
    """The plot is well-formed, has a curve for each way to a task and to a consumer, and colours for light and dark."""
    text = (results[1] / "fanout.svg").read_text()
    words = [element.text or "" for element in ElementTree.fromstring(text).iter("{http://www.w3.org/2000/svg}text")]
    for name in ("headrace", "in-memory layer", "asyncio.Future", "Channels' consumers on", "headrace.django"):
        assert any(name in word for word in words)
    assert "prefers-color-scheme: dark" in text


@of_results
def test_compare_prints_what_it_writes(results: tuple[str, Path]) -> None:
    """The table on the terminal stands in a file too, under what it was measured on."""
    table, out = results
    assert (out / "compare.txt").read_text().endswith(table)


def test_compare_writes_the_table_of_a_part(tmp_path: Path) -> None:
    """What was asked for alone can be kept: its table, below what it was measured on."""
    file = tmp_path / "ready.txt"
    asked = ("benches.compare", "--quick", "--only", "ready", "--loops", "asyncio", "--table", str(file))
    table = run(*asked)
    text = file.read_text()
    assert text.endswith(table)
    assert text.startswith("machine: ")
    assert "\ncommand: python -m benches.compare --quick --only ready " in text
    assert list(tmp_path.iterdir()) == [file]


@of_results
def test_compare_has_no_loss_where_socket_servers_get_broadcasts(results: tuple[str, Path], loops: list[str]) -> None:
    """Every socket server of every way gets all broadcasts; ours have as many connections, however many they are."""
    rows = json.loads((results[1] / "compare.json").read_text())["rows"]
    notes = [row["note"] for row in rows if "socket servers on a topic" in row["case"]]
    assert notes
    assert not any("lost" in note for note in notes)
    connections = [row["ours"]["median"] for row in rows if row["unit"] == "connections"]
    assert len(connections) == 2 * 2 * len(loops)
    assert len(set(connections)) == 1


def test_every_bench_of_single_operations_runs() -> None:
    """pytest-benchmark runs each bench once, untimed."""
    printed = run("pytest", "-c", "benches/python/pytest.ini", "benches/python", "--benchmark-disable", "-q")
    assert "passed" in printed


@pytest.mark.parametrize(
    "path",
    [
        "ready send + receive",
        "asyncio.Queue put + get",
        "send_sync",
        "group_add + group_discard",
        "fan-out to 100 tasks, each",
    ],
)
def test_every_path_whose_instructions_are_counted_runs(path: str) -> None:
    """The program that callgrind runs does, without callgrind."""
    assert run("benches.instructions.paths", path, "100") == ""


def test_the_memory_around_a_peak_is_printed_for_each_way_in_which_it_ends() -> None:
    """Each line has the size before the peak, at it, after it, and when the allocator has returned what it can."""
    head, *lines = run("benches.peak", "--channels", "2000", "--lasting", "1").splitlines()
    assert head.split() == ["MB", "before", "at", "after", "trimmed"]
    assert [line[:20].strip() for line in lines] == ["receive and leave", "flush", "expire"]
    assert all(int(size) > 0 for line in lines for size in line[20:].split())


def test_a_room_that_never_reads_is_measured() -> None:
    lines = run("benches.never_reading", "--clients", "5", "--texts", "3", "--size", "100000").splitlines()
    assert lines[0] == "5 clients that never read, 3 texts of 100000 bytes"
    assert re.fullmatch(r"the server: \d+ MiB before, \d+ MiB more at most; 5 allowed", lines[1])
    echoes = r"echo (without texts|beside them): median \d+\.\d ms, worst \d+\.\d ms of \d+"
    assert [bool(re.fullmatch(echoes, line)) for line in lines[2:]] == [True, True]


def test_what_layers_cost_a_sentinel_is_measured() -> None:
    _versions, *lines = run("benches.sentinel", "--seconds", "1").splitlines()
    line = r" ?(\d+) layers: \d+ connections, \d+ made, \d+\.\d+ commands/s, all at the new master after \d+ ms"
    matches = [re.fullmatch(line, each) for each in lines]
    assert [match and match[1] for match in matches] == ["1", "4", "16"]


def test_what_a_join_costs_is_measured() -> None:
    lines = run("benches.joins", "--most", "1000").splitlines()[1:]
    line = r" *[\d,]+ groups: +\d+ us in the loop, +\d+ us beside it"
    sizes = [re.fullmatch(line, each) is not None for each in lines]
    assert sizes == [False, True, True, False, True, True]


def test_what_messages_cost_that_wait_for_a_server_is_measured() -> None:
    lines = run("benches.outage", "--most", "10000", "--seconds", "0.5").splitlines()[1:]
    line = r" *[\d,]+ messages wait: \d+\.\d% of a core, \d+\.\d% while 200 more are sent"
    assert [re.fullmatch(line, each) is not None for each in lines[:-1]] == [True, True]
    assert lines[-1] == "given up: 0"


def test_what_a_change_of_members_costs_is_printed_for_each_round() -> None:
    """The figures are whole numbers, and the hash is not read for each change."""
    head, *lines = run("benches.members", "--layers", "3", "--changes", "30").splitlines()
    assert head.endswith("; 3 layers")
    rounds = [re.fullmatch(r"(\d+) members: HGETALL (\d+), (\d+) bytes for each change", line) for line in lines]
    assert [found and int(found[1]) for found in rounds] == [30, 60, 90, 120]
    assert sum(int(found[2]) for found in rounds if found) < 30
