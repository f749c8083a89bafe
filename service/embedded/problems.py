"""What can go wrong on the way to a database, each with what to do about it."""


class EmbeddedError(Exception):
    """No database of our own could be brought up.

    what    the failure, in words that name the path, host or program concerned.
    remedy  what the reader can do now, an imperative sentence.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what + remedy if what.endswith("\n") else f"{what.rstrip('.')}. {remedy}")
        self.what = what
        self.remedy = remedy


class UnsupportedHostError(EmbeddedError):
    """This machine's distribution, architecture or tools cannot carry the embedded database."""


class MirrorError(EmbeddedError):
    """apt could not fetch from, or did not trust, the machine's own Debian mirror."""


class PrefixError(EmbeddedError):
    """The packages arrived but do not make a PostgreSQL that runs."""


class NoSpaceError(EmbeddedError):
    """The disk cannot hold the packages or the cluster."""


class UnreachableDirectoryError(EmbeddedError):
    """The account that runs PostgreSQL cannot enter or own a directory that it needs."""


class ClusterError(EmbeddedError):
    """PostgreSQL did not start, did not stop, or its data belongs to another version."""


class NoDatabase(EmbeddedError):
    """Every step of the order of choice was tried in vain; the message lists each with its remedy."""
