"""What tests of the history share."""

import time


def until_heard(store):
    """Instances move when every gateway has heard of them, and a partition notes about once a second how far each is."""
    end = time.monotonic() + 60
    while min(store.positions().values(), default=store.seq) < store.seq:
        assert time.monotonic() < end, (store.positions(), store.seq)
        time.sleep(0.05)
