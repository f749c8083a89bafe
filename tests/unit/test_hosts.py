"""The hosts of a database's URL, each with a URL of its own."""

import asyncpg
import pytest

from service.database.hosts import split


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:p@a:5432/db", {"a:5432": "postgresql://u:p@a:5432/db"}),
        (
            "postgresql://u:p@a:5432,b:5433/db?sslmode=require",
            {
                "a:5432": "postgresql://u:p@a:5432/db?sslmode=require",
                "b:5433": "postgresql://u:p@b:5433/db?sslmode=require",
            },
        ),
        ("postgresql://a,b,c/db", {host: f"postgresql://{host}/db" for host in "abc"}),
        (
            "postgresql://u@a,[2001:db8::1]:5433,[::1]/db",
            {
                "a": "postgresql://u@a/db",
                "[2001:db8::1]:5433": "postgresql://u@[2001:db8::1]:5433/db",
                "[::1]": "postgresql://u@[::1]/db",
            },
        ),
        (
            "postgresql://u:p@/db?host=/run/a,10.0.0.2&port=5432,5433",
            {
                "/run/a:5432": "postgresql://u:p@/db?host=%2Frun%2Fa&port=5432",
                "10.0.0.2:5433": "postgresql://u:p@/db?host=10.0.0.2&port=5433",
            },
        ),
        (
            "postgresql://u@/db?host=a,b&port=6432",
            {
                "a:6432": "postgresql://u@/db?host=a&port=6432",
                "b:6432": "postgresql://u@/db?host=b&port=6432",
            },
        ),
        ("postgresql:///db", {"": "postgresql:///db"}),
    ],
)
def test_each_host_has_a_url(url: str, expected: dict[str, str]) -> None:
    assert split(url) == expected


@pytest.mark.parametrize("ports", ["5432,5433", "1,2,3,4"])
def test_as_many_ports_as_hosts_or_one_for_all(ports: str) -> None:
    with pytest.raises(asyncpg.ClientConfigurationError, match=f"3 hosts and {len(ports.split(','))} ports"):
        split(f"postgresql:///db?host=a,b,c&port={ports}")
