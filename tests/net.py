"""Hosts of their own on this machine: network namespaces that one bridge joins, and links that a test can cut."""

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

CLONE_NEWNET: Final = 0x40000000
LEAST: Final = ("ip", "netns", "list")


class Net:
    """A bridge with an address in this process's own network, and hosts. Needs root."""

    def __init__(self) -> None:
        number = os.getpid() % 65_536
        self._name, self._subnet = f"dl{number:x}", f"10.{200 + number // 256 % 50}.{number % 256}"
        self._hosts: dict[str, str] = {}  # their addresses
        _ip("link", "add", self._name, "type", "bridge")
        _ip("addr", "add", f"{self._subnet}.1/24", "dev", self._name)
        _ip("link", "set", self._name, "up")
        # An engine of containers on this machine may have closed all bridges but its own.
        self._rule = ("FORWARD", "-i", self._name, "-o", self._name, "-j", "ACCEPT")
        self._opened = shutil.which("iptables") is not None and _run("iptables", "-I", *self._rule)

    def host(self, name: str) -> str:
        """Return a host's address; it is made where there is none of this name."""
        if name in self._hosts:
            return self._hosts[name]
        address = self._hosts[name] = f"{self._subnet}.{len(self._hosts) + 2}"
        inside, outside = self.namespace(name), self._link(name)
        _ip("netns", "add", inside)
        _ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", inside)
        _ip("link", "set", outside, "master", self._name, "up")
        for command in (("link", "set", "lo", "up"), ("link", "set", "eth0", "up")):
            _ip("-n", inside, *command)
        _ip("-n", inside, "addr", "add", f"{address}/24", "dev", "eth0")
        return address

    def namespace(self, name: str) -> str:
        """Return the name of a host's namespace."""
        return f"{self._name}-{name}"

    def cut(self, name: str) -> None:
        """Take a host's link down."""
        _ip("link", "set", self._link(name), "down")

    def mend(self, name: str) -> None:
        """Have it up again."""
        _ip("link", "set", self._link(name), "up")

    def close(self) -> None:
        """Take all away."""
        for name in self._hosts:
            _ip("netns", "del", self.namespace(name))
        _ip("link", "del", self._name)
        if self._opened:
            _run("iptables", "-D", *self._rule)

    def _link(self, name: str) -> str:
        return f"{self._name}{name}"


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=30)


def _run(*command: str) -> bool:
    return subprocess.run(command, check=False, capture_output=True, timeout=30).returncode == 0


@contextmanager
def net() -> Iterator[Net]:
    """Give a net; where none can be made the test is skipped."""
    if os.geteuid() != 0 or shutil.which("ip") is None or not _run(*LEAST):
        pytest.skip("network namespaces need root and iproute2")
    try:
        made = Net()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespace can be made here: {error.stderr.decode(errors='replace').strip()}")
    try:
        yield made
    finally:
        made.close()


def enter(namespace: str) -> None:
    """Have this process be on a host."""
    with (Path("/var/run/netns") / namespace).open() as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
