"""The platforms that headrace has wheels for, and what a machine needs to build for each."""

import importlib.util
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Platform:
    """What a wheel is built for.

    Attributes:
        tag: What the wheel's name ends with.
        target: What rustc calls it.
        system: The system that it is built on, as ``platform.system()`` calls it.
        machine: The processor that it runs on, as ``platform.machine()`` calls it.
        zig: Whether zig links it, against a C library as old as the tag says.
    """

    tag: str
    target: str
    system: str
    machine: str
    zig: bool = False

    def options(self) -> list[str]:
        """Give maturin's options for it."""
        old = ["--zig", "--compatibility", self.tag.removesuffix(f"_{self.machine}")]
        return ["--target", self.target, *(old if self.zig else [])]

    def lacking(self) -> str | None:
        """Say why this machine cannot build for it; None if it can."""
        if platform.system() != self.system:
            return f"it is built on {self.system}, and this is {platform.system()}"
        if not self._has_target():
            return f"the Rust of this machine has no target {self.target} (`rustup target add {self.target}`)"
        if self.zig and importlib.util.find_spec("ziglang") is None:
            return "ziglang is not installed (`pip install --group wheels`)"
        return None

    def is_here(self) -> bool:
        """Whether this machine can install it."""
        musl = self.system == "Linux" and platform.libc_ver()[0] != "glibc"
        return (platform.system(), platform.machine()) == (self.system, self.machine) and musl == ("musl" in self.tag)

    def _has_target(self) -> bool:
        ask = ["rustc", "--print", "target-libdir", "--target", self.target]
        try:
            said = subprocess.run(ask, capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError):
            return False
        return any(Path(said.strip()).glob("libstd-*"))


PLATFORMS = (
    Platform("manylinux_2_17_x86_64", "x86_64-unknown-linux-gnu", "Linux", "x86_64", zig=True),
    Platform("manylinux_2_17_aarch64", "aarch64-unknown-linux-gnu", "Linux", "aarch64", zig=True),
    Platform("musllinux_1_2_x86_64", "x86_64-unknown-linux-musl", "Linux", "x86_64", zig=True),
    Platform("musllinux_1_2_aarch64", "aarch64-unknown-linux-musl", "Linux", "aarch64", zig=True),
    Platform("macosx_11_0_arm64", "aarch64-apple-darwin", "Darwin", "arm64"),
    Platform("macosx_10_12_x86_64", "x86_64-apple-darwin", "Darwin", "x86_64"),
    Platform("win_amd64", "x86_64-pc-windows-msvc", "Windows", "AMD64"),
)
