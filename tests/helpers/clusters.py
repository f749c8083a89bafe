"""A cluster to copy: to initialise, start and stop one takes twenty times as long as `cp`."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from service.embedded.cluster import Cluster
from service.embedded.installation import Installation
from service.embedded.places import reachable_directory

Copy = Callable[[Path], Cluster]


@contextmanager
def original_cluster(installation: Installation) -> Iterator[Copy]:
    """Makes clusters: `copy(directory / "postgres")` is one that has been started and stopped, with its owner."""
    with reachable_directory() as directory:
        with Cluster(installation, directory / "postgres", print, durable=False) as cluster:
            pass

        def copy(data_dir: Path) -> Cluster:
            subprocess.run(["cp", "-a", "--reflink=auto", cluster.data_dir, data_dir], check=True)
            return Cluster(installation, data_dir, print, durable=False)

        yield copy
