"""kazoo: create, ephemeral, sequential, watches, multi, lock and election recipes on an ensemble."""
import sys
import threading

from kazoo.client import KazooClient
from kazoo.exceptions import BadVersionError, NodeExistsError, NoNodeError
from kazoo.recipe.watchers import ChildrenWatch

servers = sys.argv[1].split(",")
one = KazooClient(servers[0], timeout=10)
other = KazooClient(servers[-1], timeout=10)
one.start(30)
other.start(30)

one.create("/basics", b"root")
try:
    one.create("/basics")
    raise AssertionError("created twice")
except NodeExistsError:
    pass
names = [one.create("/basics/s-", sequence=True) for _ in range(3)]
assert names == [f"/basics/s-{i:010d}" for i in range(3)], names
other.sync("/basics")
assert sorted(other.get_children("/basics")) == [f"s-{i:010d}" for i in range(3)]
stat = one.set("/basics", b"new", version=0)
assert stat.version == 1
try:
    one.set("/basics", b"old", version=0)
    raise AssertionError("an old version was accepted")
except BadVersionError:
    pass

fired = threading.Event()
other.sync("/basics")
data, _ = other.get("/basics", watch=lambda event: fired.set())
assert data == b"new", data
one.set("/basics", b"newer")
assert fired.wait(30), "the data watch did not fire"

seen = []
enough = threading.Event()


def children(now):
    seen.append(sorted(now))
    if "e" in now:
        enough.set()


ChildrenWatch(other, "/basics", children)
one.create("/basics/e", ephemeral=True)
assert enough.wait(30), seen
transaction = one.transaction()
transaction.check("/basics", 2)
transaction.create("/basics/t", b"1")
transaction.set_data("/basics/t", b"2")
assert len(transaction.commit()) == 3
transaction = one.transaction()
transaction.create("/basics/u")
transaction.check("/basics", 99)
transaction.commit()
assert not one.exists("/basics/u"), "a failed transaction left something"

lock = one.Lock("/basics-lock", "one")
assert lock.acquire(timeout=30)
held = other.Lock("/basics-lock", "other")
assert not held.acquire(blocking=False)
lock.release()
assert held.acquire(timeout=30)
held.release()

won = []
election = one.Election("/basics-election", "one")
election.run(lambda: won.append("one"))
other.Election("/basics-election", "other").run(lambda: won.append("other"))
assert won == ["one", "other"], won

gone = threading.Event()
other.sync("/basics/e")
assert other.exists("/basics/e", watch=lambda event: gone.set())
one.stop()
assert gone.wait(30), "the ephemeral outlived its session"
try:
    other.get("/basics/e")
    raise AssertionError("still there")
except NoNodeError:
    pass
other.stop()
print("kazoo: create, sequential, ephemeral, watches, multi, lock, election")
