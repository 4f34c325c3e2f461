"""One layer: where its servers are, what each of them is like, and whether a message gets through."""

import asyncio
import inspect
import json
import secrets
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from headrace._doctor.findings import Finding, Level, Section, as_mapping, note, ok, problem, shown, warning
from headrace._doctor.link import Link, Refusal, Unreachable
from headrace._doctor.needs import Needs, permissions
from headrace._doctor.probe import other_protocol
from headrace._doctor.server import Facts, Use, judged, look, ping
from headrace._layers.hosts import Endpoint, Host
from headrace._layers.redis_config import RedisConfig
from headrace.layers import RedisChannelLayer

__all__ = ["Target", "diagnose", "examine"]

_SLOTS = 16384
_ROUNDS = 20
_SECONDS = 5.0
"""How long each step may take: a doctor does not wait as long as a layer may."""


@dataclass(frozen=True)
class Target:
    """A layer to look at.

    Attributes:
        title: What it is called.
        config: Its settings, read as those of a `RedisChannelLayer`.
        arguments: What that is made with; None if the project's layer is another, which is not made.
        core: It is channels_redis's core layer, which has commands of its own.
        known: What is known of it without a connection.
        layer_class: What is made with the arguments.
        seen: The servers that answered, once it was examined.
    """

    title: str
    config: RedisConfig
    arguments: Mapping[str, Any] | None
    core: bool = False
    known: list[Finding] = field(default_factory=list)
    layer_class: type[RedisChannelLayer] = RedisChannelLayer
    seen: list[Endpoint] = field(default_factory=list, init=False)

    @property
    def timeout(self) -> float:
        """Seconds that a server has for an answer."""
        return min(self.config.connect_timeout, _SECONDS)


def diagnose(targets: Iterable[Section | Target], say: Callable[[str], object], *, as_json: bool = False) -> int:
    """Look at everything and return the exit code: 1 if something would fail.

    Text is printed section by section as each is looked at, JSON as one object at the end.
    """
    counted: Counter[Level] = Counter()
    told = []
    for section in _sections(targets):
        counted.update(finding.level for finding in section.findings)
        if as_json:
            told.append(as_mapping(section))
        else:
            for line in shown(section):
                say(line)
    problems, warnings = counted[Level.PROBLEM], counted[Level.WARNING]
    if as_json:
        say(json.dumps({"sections": told, "problems": problems, "warnings": warnings}, indent=2))
    else:
        say(f"{_count(problems, 'problem')}, {_count(warnings, 'warning')}")
    return 1 if problems else 0


def _sections(targets: Iterable[Section | Target]) -> Iterator[Section]:
    for target in targets:
        yield from examine(target) if isinstance(target, Target) else [target]


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def examine(target: Target) -> Iterator[Section]:
    """Look at a layer and its servers; each section comes when it is known."""
    config = target.config
    wire = f", wire {config.wire}" if target.arguments is not None else ""
    encrypted = ", encrypted" if config.encryption_keys else ""
    yield Section(f"{target.title}: prefix {config.given_prefix!r}{wire}{encrypted}", target.known)
    failed = warned = False
    for section in _servers(target):
        failed = failed or section.failed
        warned = warned or section.warned
        yield section
    if target.arguments is not None:
        yield Section("through the layer", [_not_tried() if failed else _through(target, warned)], 1)


def _servers(target: Target) -> Iterator[Section]:
    """Look at each server, as the topology has it."""
    config = target.config
    if config.topology in ("cluster", "serverless"):
        yield from _cluster(target, [host.endpoint for host in config.hosts])
        return
    for number, host in enumerate(config.hosts):
        where, section = _find_master(target, host) if host.sentinels else (host.endpoint, None)
        if section:
            yield section
        if where is None:
            continue
        facts, section = _server(target, where, sharded=False)
        # As the layer does it: the first host is asked whether it is part of a cluster.
        whole = config.topology == "auto" and number == 0 and target.arguments is not None
        if whole and facts is not None and facts.mode == "cluster":
            yield from _cluster(target, [each.endpoint for each in config.hosts])
            return
        yield _with_topology(target, section, facts, number)


def _with_topology(target: Target, section: Section, facts: Facts | None, number: int) -> Section:
    config, several = target.config, len(target.config.hosts)
    if facts is None:
        return section
    if facts.mode == "cluster" and target.arguments is None:
        found = problem(
            "it is part of a cluster, which channels_redis cannot use", "use headrace's layer, or another server"
        )
    elif facts.mode == "cluster":
        found = problem(
            f"it is part of a cluster, and topology is {config.topology!r}",
            "set topology to 'cluster', with this server as a seed",
        )
    elif several > 1:
        found = ok(f"topology: shard {number + 1} of {several}; names are spread by the ring {config.ring!r}")
    else:
        found = ok(
            "topology: one server" if not config.hosts[0].sentinels else "topology: the master that Sentinel names"
        )
    return Section(section.title, [found, *section.findings], section.depth)


def _server(target: Target, endpoint: Endpoint, *, sharded: bool) -> tuple[Facts | None, Section]:
    """Look at one server."""
    config = target.config
    findings: list[Finding] = []
    facts = None
    try:
        with Link(endpoint, target.timeout) as link:
            target.seen.append(endpoint)
            facts = look(link)
            sharded = sharded and link.protocol == 3
            findings += judged(facts, _use(target, endpoint, sharded))
            findings.append(_latency(link))
        if not target.core and facts.role != "slave":
            raw = config.wire == "channels_redis"
            history = bool(config.local.history)
            needs = Needs(config.prefix, sharded, raw, endpoint.database, history)
            findings += permissions(endpoint, target.timeout, needs, facts.user)
    except Unreachable as why:
        findings.append(_unreachable(why, endpoint, target.timeout))
    return facts, Section(f"server {endpoint}", findings, 1)


def _use(target: Target, endpoint: Endpoint, sharded: bool) -> Use:
    return Use(
        queues=target.config.wire == "headrace" and not target.core,
        topics=not target.core,
        sharded=sharded,
        tells=target.arguments is not None,
        largest=target.config.max_message_bytes,
        database=0 if target.core else endpoint.database,
    )


def _latency(link: Link) -> Finding:
    try:
        return ok(f"PING is answered after {ping(link):.3f} ms (median of {_ROUNDS})")
    except Refusal as refusal:
        return problem(f"PING is refused: {refusal}", "allow it: by it a lost connection is found out")


def _unreachable(why: Unreachable, endpoint: Endpoint, timeout: float) -> Finding:
    if "refuses the user" in str(why):
        return problem(str(why), "correct 'username' and 'password', or ACL SETUSER on the server")
    if endpoint.database and "cluster" in str(why):
        advice = f"leave the database's number {endpoint.database} out, and give each project a prefix of its own"
        return problem("it is part of a cluster, which has database 0 alone", advice)
    if endpoint.database and "DB index" in str(why):
        advice = (
            "use a lower number: 'databases' in its configuration, in a cluster of Valkey 'cluster-databases', says "
            "how many there are, 0 is the first"
        )
        return problem(f"it has no database {endpoint.database}", advice)
    if other := other_protocol(endpoint, timeout):
        return problem(*other)
    checks = ["that it runs", "address and port", "firewalls between here and there"]
    checks += ["certificates" if endpoint.tls else "whether it expects TLS (rediss://)"]
    return problem(f"it cannot be used: {why}", f"check {', '.join(checks)}")


def _find_master(target: Target, host: Host) -> tuple[Endpoint | None, Section]:
    """Ask the sentinels where the master is."""
    findings: list[Finding] = []
    named: list[tuple[str, int]] = []
    for sentinel in host.sentinels:
        try:
            with Link(sentinel, target.timeout) as link:
                answer = link.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", str(host.master_name))
                quorum = _quorum(link, str(host.master_name))
        except Unreachable as why:
            text, advice = other_protocol(sentinel, target.timeout) or (why, "start it, or take it out of 'sentinels'")
            findings.append(warning(f"sentinel {sentinel} cannot be asked: {text}", advice))
            continue
        except Refusal as refusal:
            findings.append(_sentinel_refuses(sentinel, refusal))
            continue
        if not answer:
            advice = "correct 'master_name', or tell the sentinel of it"
            findings.append(warning(f"sentinel {sentinel} knows no master {host.master_name!r}", advice))
            continue
        named.append((str(answer[0]), int(answer[1])))
        findings.append(ok(f"sentinel {sentinel} names {answer[0]}:{answer[1]}"))
        findings += quorum
    if not named:
        findings.append(problem("no sentinel names a master", "the layer cannot connect until one does"))
    elif len(set(named)) > 1:
        findings.append(
            warning("the sentinels name different masters", "wait until a failover is over, and look again")
        )
    title = f"Sentinel, master {host.master_name!r}"
    if not named:
        return None, Section(title, findings, 1)
    address, port = max(named, key=named.count)
    return replace(host.endpoint, host=address, port=port), Section(title, findings, 1)


def _sentinel_refuses(sentinel: Endpoint, refusal: Refusal) -> Finding:
    if "unknown command" in str(refusal):
        return warning(
            f"{sentinel} is a server and no sentinel",
            "give it in 'hosts' without 'sentinels', or give a sentinel, whose port is 26379 unless it was changed",
        )
    return warning(f"sentinel {sentinel} refuses: {refusal}", "allow its user +sentinel|get-master-addr-by-name")


def _quorum(link: Link, master: str) -> list[Finding]:
    """Say whether a failover could be begun and agreed upon, if the sentinel may be asked that."""
    try:
        link.ask("SENTINEL", "CKQUORUM", master)
    except Refusal as refusal:
        if "NOQUORUM" in str(refusal):
            return [warning(f"it could not begin a failover: {refusal}", "start the sentinels that are missing")]
    return []


@dataclass(frozen=True)
class _Range:
    """Some slots, their master and how many replicas it has."""

    first: int
    last: int
    master: tuple[str, int]
    replicas: int


def _cluster(target: Target, seeds: list[Endpoint]) -> Iterator[Section]:
    """Ask the seeds for the map of the cluster, and look at each master."""
    findings: list[Finding] = []
    for seed in seeds:
        try:
            with Link(seed, target.timeout) as link:
                ranges = [_range(entry, seed) for entry in link.ask("CLUSTER", "SLOTS")]
        except Unreachable as why:
            findings.append(_unreachable(why, seed, target.timeout) if len(seeds) == 1 else _seed_lost(seed, str(why)))
            continue
        except Refusal as refusal:
            findings.append(problem(f"{seed} does not say which slots there are: {refusal}", _no_cluster(target)))
            continue
        yield Section(f"cluster, by {seed}", [*findings, *_map(ranges)], 1)
        for master in sorted({each.master for each in ranges}):
            at = replace(seed, host=master[0], port=master[1])
            yield _server(target, at, sharded=True)[1]
        return
    findings.append(problem("no host tells the map of the cluster", "the layer cannot connect until one does"))
    yield Section("cluster", findings, 1)


def _seed_lost(seed: Endpoint, why: str) -> Finding:
    return warning(f"{seed} cannot be asked: {why}", "start it, or take it out of 'hosts'; one that answers is enough")


def _no_cluster(target: Target) -> str:
    return f"if it is no cluster, topology must not be {target.config.topology!r}; else allow +cluster|slots"


def _range(entry: Any, asked: Endpoint) -> _Range:
    first, last, master, *replicas = entry
    # A node that does not know its own name is the one that was asked.
    return _Range(int(first), int(last), (str(master[0] or asked.host), int(master[1])), len(replicas))


def _map(ranges: list[_Range]) -> Iterator[Finding]:
    masters = {each.master for each in ranges}
    replicas = sum(max(each.replicas for each in ranges if each.master == master) for master in masters)
    slots = sum(each.last - each.first + 1 for each in ranges)
    yield ok(
        f"topology: a cluster of {len(masters)} masters and {replicas} replicas; {slots} of {_SLOTS} slots are served"
    )
    if slots < _SLOTS:
        yield problem(
            f"{_SLOTS - slots} slots have no master: what belongs to them cannot be sent",
            "CLUSTER NODES tells which; start their master, or give the slots to another",
        )
    alone = [f"{host}:{port}" for host, port in sorted(masters) if not _has_replica((host, port), ranges)]
    if alone and len(masters) > 1:
        yield warning(
            f"no replica stands by for {', '.join(alone)}: if a master is lost, so are its slots", "give each a replica"
        )


def _has_replica(master: tuple[str, int], ranges: list[_Range]) -> bool:
    return any(each.replicas for each in ranges if each.master == master)


def _not_tried() -> Finding:
    return note("nothing was sent, because of what is said above", "mend it and look again")


def _through(target: Target, warned: bool) -> Finding:
    """Send a few messages through the layer itself."""
    advice = "mend what is warned of above, and look again"
    if not warned:
        advice = "if these words do not say what to do, please report them, with what is said above"
    name = f"headrace-doctor-{secrets.token_hex(8)}"
    try:
        group, queue = asyncio.run(_round_trips(target, name))
    except TimeoutError:
        return problem(f"a message that was sent did not arrive within {_SECONDS:g} s", advice)
    except Exception as error:  # whatever goes wrong here would go wrong in the project
        return problem(f"it does not work: {type(error).__name__}: {error}", advice)
    finally:
        _forget(target, name)
    rounds = f"median of {_ROUNDS}"
    return ok(
        f"a group_send arrives after {group:.3f} ms, a message to a plain channel after {queue:.3f} ms ({rounds})"
    )


def _forget(target: Target, queue: str) -> None:
    """Take a queue's name out of the layer's index of this hour, which would keep it for a while, for flush()."""
    for endpoint in target.seen:
        with suppress(Unreachable), Link.plain(endpoint, target.timeout) as link:
            hour = int((link.asked("TIME") or [time.time()])[0]) // 3600
            for each in (hour - 1, hour):
                link.asked("SREM", f"{target.config.prefix}:i:{each}", queue)


async def _round_trips(target: Target, name: str) -> tuple[float, float]:
    quiet: dict[str, Any] = {"on_disconnect": None, "on_reconnect": None, "on_gap": None, "gap": None}
    quiet["send_timeout"] = min(target.config.send_timeout, _SECONDS)
    # A constructor of the project's own may have no such argument.
    takes = inspect.signature(target.layer_class).parameters
    more = {name: value for name, value in quiet.items() if name in takes}
    layer = target.layer_class(**{**(target.arguments or {}), **more})
    try:
        async with layer.subscription(name) as inbox:
            group = await _median(layer.group_send, name, lambda: anext(inbox))
        queue = await _median(layer.send, name, lambda: layer.receive(name))
        layer.close_channel(name)
    finally:
        await layer.close()
    return group, queue


async def _median(send: Any, name: str, receive: Any) -> float:
    times = []
    for number in range(_ROUNDS):
        began = time.perf_counter()
        async with asyncio.timeout(_SECONDS):
            await send(name, {"type": "headrace.doctor", "number": number})
            await receive()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000
