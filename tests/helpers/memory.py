"""The most memory that this process has held, which getrusage says of whoever started it as well."""

from pathlib import Path


def forget() -> None:
    """Begin anew with what it holds now."""
    Path("/proc/self/clear_refs").write_text("5")


def most() -> int:
    """Bytes."""
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
