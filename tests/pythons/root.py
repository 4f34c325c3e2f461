"""A root of Debian sid in a folder, for the interpreters and the servers that this machine is too old for.

It is entered by chroot, in a mount namespace of its own: what is mounted for a command is gone with it.
"""

import os
import re
import shlex
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from tests.pythons.interpreters import Interpreter, NotHad, Version, answers
from tests.pythons.steps import Failed, Steps

# What dependencies without a wheel are built with, and the servers that the tests start.
PACKAGES = ("ca-certificates", "gcc", "g++", "libc6-dev", "make", "procps", "redis-server", "valkey-server")
# What CPython itself is built with: the parts of its library that the tests import, and the pip of new environments.
SOURCE_PACKAGES = (
    *("dpkg-dev", "libbz2-dev", "libffi-dev", "liblzma-dev", "libsqlite3-dev", "libssl-dev", "zlib1g-dev"),
    "python3-pip-whl",
)
WHEELS = "/usr/share/python-wheels"
# How names are looked up and which certificates are trusted is taken from this machine, as pip's configuration is.
_SHARED = ("/etc/resolv.conf", "/etc/hosts", "/etc/ssl/certs/ca-certificates.crt", "/etc/pip.conf")
# Of the caller's environment: what leads to a Python or a make of the machine.
_NOT_INHERITED = re.compile(r"PYTHON|PYENV|VIRTUAL_ENV|CONDA|MAKE|MFLAGS|TMPDIR")


class Root:
    """A root of Debian sid.

    Args:
        cache: The folder that has it, in ``sid``, or gets it.
        steps: Runs what makes it.
        shared: Folders that are seen inside as they are outside.
    """

    name = "Debian sid"
    target = "target/sid"

    def __init__(self, cache: Path, steps: Steps, shared: Iterable[Path]) -> None:
        self._folder = cache / "sid"
        self._steps = steps
        self._toolchain: Path | None = None
        self._shared = list(shared)
        self._ready = False

    def command(self, words: Iterable[str | Path], folder: Path) -> list[str]:
        """Mount what is shared, change into the root and there to the folder."""
        binds = [*self._shared, *self._rust(), *filter(Path.exists, map(Path, _SHARED))]
        script = ["set -e", *(f"mount --rbind {name} {self._quoted(name)}" for name in ("/dev", "/proc", "/sys"))]
        for path in binds:
            if path.is_dir():
                script.append(f"mkdir -p {self._quoted(path)}")
            else:
                script.append(f"mkdir -p {self._quoted(path.parent)}; touch {self._quoted(path)}")
            script.append(f"mount --bind {shlex.quote(str(path))} {self._quoted(path)}")
        unset = [f"--unset={name}" for name in os.environ if _NOT_INHERITED.match(name)]
        search = f"PATH={self._sysroot() / 'bin'}:/usr/sbin:/usr/bin:/sbin:/bin"
        inside = ["chroot", self._folder, "env", *unset, f"--chdir={folder}", search, "LANG=C.UTF-8", *words]
        script.append(f"exec {shlex.join(map(str, inside))}")
        return ["unshare", "--mount", "sh", "-c", "\n".join(script)]

    def interpreter(self, version: Version) -> Interpreter:
        """Install the interpreter there, or build it.

        Raises:
            NotHad: the machine cannot make such a root, or Debian has no such Python.
        """
        try:
            self._make()
            path = self._built(version) if version.free_threaded else self._installed(version)
        except Failed as failed:
            raise NotHad(f"Debian sid: {failed}") from failed
        if not answers(self, path, version):
            raise NotHad(f"Debian sid: {path} is not CPython {version}")
        return Interpreter(version, self, path)

    def _make(self) -> None:
        """Make the root where there is none yet, once for all interpreters."""
        if self._ready:
            return
        if os.geteuid() != 0:
            raise NotHad("neither on the PATH nor in pyenv, and only root can make a root of Debian sid for it")
        if not self._folder.exists():
            self._bootstrap()
        self._apt("update", "-qq")
        self._install(*PACKAGES)
        self._ready = True

    def _bootstrap(self) -> None:
        if shutil.which("debootstrap") is None:
            if shutil.which("apt-get") is None:
                raise NotHad("neither on the PATH nor in pyenv, and there is no debootstrap for a root of Debian sid")
            self._steps.run(["apt-get", "update", "-qq"])
            self._steps.run(["apt-get", "install", "-y", "-qq", "debootstrap"])
        unfinished = self._folder.with_name("sid.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        self._steps.say("making a root of Debian sid")
        # What it mounts is gone with it, even if it is interrupted.
        bootstrap: list[str | Path] = [
            "debootstrap",
            "--variant=minbase",
            "--include=ca-certificates",
            "sid",
            unfinished,
        ]
        self._steps.run(["unshare", "--mount", *bootstrap])
        # A mirror may lag behind: what it says of itself then counts as expired.
        (unfinished / "etc/apt/apt.conf.d/90late").write_text('Acquire::Check-Valid-Until "false";\n')
        # The servers are started by the tests, not by their packages.
        policy = unfinished / "usr/sbin/policy-rc.d"
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
        binary = (unfinished / "etc/apt/sources.list").read_text()
        (unfinished / "etc/apt/sources.list.d/source.list").write_text(re.sub(r"(?m)^deb ", "deb-src ", binary))
        unfinished.rename(self._folder)

    def _installed(self, version: Version) -> Path:
        self._steps.say(f"{version}: from Debian sid")
        self._install(f"python{version}-dev", f"python{version}-venv")
        return Path(f"/usr/bin/python{version}")

    def _built(self, version: Version) -> Path:
        """Build it from Debian's source package: there is no package of a free-threaded Python."""
        prefix = Path(f"/opt/python{version}")
        path = prefix / "bin" / f"python{version}"
        if (self._folder / path.relative_to("/")).exists():
            return path
        self._install(*SOURCE_PACKAGES)
        self._steps.say(f"{version}: building it from Debian's source package")
        source = self._unpack(f"python3.{version.minor}")
        options = [f"--prefix={prefix}", "--disable-gil", "--without-ensurepip", f"--with-wheel-pkg-dir={WHEELS}"]
        staged = source / "staged"
        self._steps.run(self.command(["nice", "./configure", "-q", *options], source))
        self._steps.run(self.command(["nice", "make", "-s", f"-j{os.cpu_count()}"], source))
        self._steps.run(self.command(["make", "-s", "altinstall", f"DESTDIR={staged}"], source))
        # Moved as a whole: an interpreter that is there is complete.
        self._steps.run(self.command(["mv", f"{staged}{prefix}", prefix.parent], source))
        return path

    def _unpack(self, package: str) -> Path:
        """Give the folder of the newest source that the mirror has: its index may name files that are not there."""
        folder = Path("/usr/src", package)
        inside = self._folder / folder.relative_to("/")
        shutil.rmtree(inside, ignore_errors=True)
        inside.mkdir(parents=True)
        showed = self._steps.output(self.command(["apt-cache", "showsrc", package], folder))
        versions = re.findall(r"(?m)^Version: (\S+)$", showed)
        for number in reversed(versions):
            try:
                self._steps.run(self.command(["apt-get", "source", "-qq", f"{package}={number}"], folder))
            except Failed:
                continue
            return next(folder / path.name for path in inside.iterdir() if path.is_dir())
        named = " and ".join(reversed(versions))
        if (older := self._original(package, versions, inside)) is not None:
            self._steps.say(f"the mirror has no source of {package} {named}, which it lists: {older.name} is taken")
            return folder / older.name
        raise NotHad(
            f"Debian sid: the mirror has no source of {package}" + (f", though it lists {named}" if named else "")
        )

    def _original(self, package: str, versions: Iterable[str], inside: Path) -> Path | None:
        """Give the folder of the newest earlier source that the mirror still has, as CPython released it.

        It is no longer listed, so that only the mirror vouches for it.
        """
        sources = (self._folder / "etc/apt/sources.list").read_text()
        mirror = re.search(r"(?m)^deb (?:\[[^]]*\] )?(\S+?)/? ", sources)
        if mirror is None:
            return None
        newest = max((int(number.split("-")[0].split(".")[2]) for number in versions), default=-1)
        for patch in range(newest, -1, -1):
            file = inside / f"{package}_{package.removeprefix('python')}.{patch}.orig.tar.xz"
            try:
                with urlopen(f"{mirror[1]}/pool/main/p/{package}/{file.name}", timeout=60) as found:
                    file.write_bytes(found.read())
                # The command "tar" needs the program xz, which a machine may lack.
                with tarfile.open(file) as archive:
                    archive.extractall(inside, filter="data")
            except HTTPError as error:
                error.close()
                continue
            except (OSError, ValueError, tarfile.TarError):
                continue
            return next(path for path in inside.iterdir() if path.is_dir())
        return None

    def _install(self, *packages: str) -> None:
        self._apt("install", "-y", "-qq", "--no-install-recommends", *packages)

    def _apt(self, *words: str) -> None:
        command = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get", *words]
        self._steps.run(self.command(command, Path("/")))

    def _rust(self) -> list[Path]:
        """Name the folders of this machine's Rust: the toolchain, and what cargo keeps for all builds."""
        cargo = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
        return [self._sysroot(), cargo]

    def _sysroot(self) -> Path:
        if self._toolchain is None:
            self._toolchain = Path(self._steps.output(["rustc", "--print", "sysroot"]).strip())
            if self._toolchain == Path("/usr"):
                raise NotHad(
                    "Rust is part of this machine's system and cannot be shared with a root; install it by rustup"
                )
        return self._toolchain

    def _quoted(self, path: Path | str) -> str:
        return shlex.quote(f"{self._folder}{path}")
