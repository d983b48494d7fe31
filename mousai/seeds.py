"""Where randomness comes from: every draw follows from named parts such as (seed, step), never from a global state."""

import hashlib


def seed_of(*parts: int | str) -> int:
    """A seed in [0, 2^63) for these parts; other parts, or another order, give an unrelated one."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
