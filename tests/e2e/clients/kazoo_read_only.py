"""kazoo reads where there is no quorum, and comes back in its session: kazoo_read_only.py SERVERS.

Says `kill` when only the first server is to be left and `start` when the others may come back, and reads a line each time.
"""
import sys
import threading
import time

from kazoo.client import KazooClient
from kazoo.exceptions import NotReadOnlyCallError
from kazoo.protocol.states import KeeperState

servers = sys.argv[1].split(",")
# The test waits 60 s for each line; what is missing is better said here.
GUARD_S = 50
told = time.monotonic()


def left():
    """Seconds until this step takes too long."""
    return max(1, told + GUARD_S - time.monotonic())


# Who does not ask for it is served by a quorum only.
plain = KazooClient(",".join(servers), timeout=20)
plain.start(left())
client = KazooClient(",".join(servers), timeout=20, read_only=True)
client.start(left())
client.create("/read", b"only")
client.create("/read/here", ephemeral=True)
session = client.client_id[0]
# The one that is left has all that the clients have seen.
first = KazooClient(servers[0], timeout=20)
first.start(left())
first.sync("/")
first.stop()

reading, whole, stays_away = threading.Event(), threading.Event(), threading.Event()


@client.add_listener
def listen(state):
    if client.client_state == KeeperState.CONNECTED_RO:
        reading.set()
    elif client.client_state == KeeperState.CONNECTED and reading.is_set():
        whole.set()


@plain.add_listener
def listen_plain(state):
    stays_away.set()


def have(what):
    global told
    print(what, flush=True)
    sys.stdin.readline()
    told = time.monotonic()


have("kill")
assert reading.wait(left()), client.client_state
assert client.client_id[0] == session
assert client.get("/read")[0] == b"only"
assert client.get_children("/read") == ["here"]
for write in [lambda: client.set("/read", b"x"), lambda: client.create("/never"), lambda: client.sync("/")]:
    try:
        write()
        raise AssertionError("a write was taken")
    except NotReadOnlyCallError:
        pass
assert stays_away.wait(left()) and plain.client_state == KeeperState.CONNECTING, plain.client_state
have("start")
assert whole.wait(left()), client.client_state
assert client.client_id[0] == session, "it is another session"
assert client.exists("/read/here").ephemeralOwner == session
client.retry(client.set, "/read", b"and written")
assert plain.retry(plain.get, "/read")[0] == b"and written"
client.stop()
plain.stop()
print("kazoo read without a quorum and wrote with one")
