"""One cluster of three nodes for all drills of high availability: to make it takes longer than most of them."""

from collections.abc import Iterator

import pytest

from tests.helpers.ha.cluster import HaCluster

# Patroni's shortest; deploy/ha/patroni.yml has 30, 10 and 10.
QUICK = {"ttl": 20, "loop_wait": 5, "retry_timeout": 5}


@pytest.fixture(scope="session")
def ha() -> Iterator[HaCluster]:
    with HaCluster.made(**QUICK) as cluster:
        yield cluster
