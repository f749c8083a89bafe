"""The server's settings: what Linkbeat's load, a small machine and durability ask for."""

import os
from pathlib import Path

MEGABYTE = 1024 * 1024


def settings_text(*, socket_directory: Path, port: int, tcp: bool, memory_bytes: int, durable: bool) -> str:
    """linkbeat.conf, included by postgresql.conf and written again at every start.

    port        of 127.0.0.1 if `tcp`; in any case a part of the socket's name.
    durable     off only for a throwaway cluster: survives kill -9, not a power cut.
    """
    switch = "on" if durable else "off"
    settings: dict[str, str | int] = {
        "listen_addresses": "127.0.0.1" if tcp else "",
        "port": port,
        "unix_socket_directories": str(socket_directory),
        # The directory is closed to others; this holds even if somebody opens it.
        "unix_socket_permissions": "0700",
        # Workers times pool size, and analysts; each idle one costs about 2 MB.
        "max_connections": 100,
        "shared_preload_libraries": "timescaledb",
        "timescaledb.telemetry_level": "off",
        # One a database for the scheduler, the rest for jobs: too few, and policies never run.
        "timescaledb.max_background_workers": 16,
        "max_worker_processes": 32,
        # A query over a year of chunks locks each of them; the default 64 fails with "out of shared memory".
        "max_locks_per_transaction": 256,
        # The prefix has no LLVM: with jit on, large queries fail.
        "jit": "off",
        "shared_buffers": f"{shared_buffers_bytes(memory_bytes) // MEGABYTE}MB",
        "effective_cache_size": f"{memory_bytes // 2 // MEGABYTE}MB",
        "maintenance_work_mem": "64MB",
        "work_mem": "8MB",
        # Parallel queries take this first: /dev/shm is 64 MB in a container, and systemd empties
        # it when an ordinary user logs out.
        "min_dynamic_shared_memory": f"{shared_buffers_bytes(memory_bytes) // 8 // MEGABYTE}MB",
        "fsync": switch,
        "synchronous_commit": "on",
        "full_page_writes": switch,
        # After a checkpoint the log has each page whole that a heartbeat changes; pglz costs more than it saves.
        "wal_compression": "lz4",
        # A throwaway cluster may lie in memory, and so does its log.
        "max_wal_size": "1GB" if durable else "256MB",
        "checkpoint_timeout": "15min",
        # Flash storage, as nearly everywhere: an index scan is not four times a sequential one.
        "random_page_cost": "1.1",
        "timezone": time_zone(),
        "log_timezone": time_zone(),
        # A week of logs at most, each day's file overwritten by the next week's.
        "logging_collector": "on",
        "log_directory": "log",
        "log_filename": "postgresql-%a.log",
        "log_rotation_age": "1d",
        "log_rotation_size": 0,
        "log_truncate_on_rotation": "on",
        "log_line_prefix": "%m [%p] %u@%d ",
    }
    lines = ["# Written by Linkbeat at every start. Put your own settings into local.conf.", ""]
    lines += [f"{name} = {_quoted(str(value))}" for name, value in settings.items()]
    return "\n".join(lines) + "\n"


def shared_buffers_bytes(memory_bytes: int) -> int:
    """256 MB, or an eighth of a small machine's memory, at least 32 MB."""
    return max(32 * MEGABYTE, min(256 * MEGABYTE, memory_bytes // 8))


def machine_memory_bytes() -> int:
    """The memory that is ours to use: the machine's, or a container's limit if that is lower."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            memory = min(memory, int(Path(limit).read_text(encoding="ascii")))
        except (OSError, ValueError):  # absent, or the word "max"
            continue
    return memory


def time_zone() -> str:
    """UTC. Debian's PostgreSQL reads the host's zone files; without them only this spelling works."""
    return "UTC" if Path("/usr/share/zoneinfo/UTC").exists() else "UTC0"


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"
