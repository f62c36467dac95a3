"""What a ZooKeeper server holds, before and after it was imported.

kazoo_import.py fill SERVER FILE     writes a little of everything, then all that is there into FILE, and leaves without closing
kazoo_import.py compare SERVER FILE  fails unless SERVER has the same
"""
import json
import os
import sys

from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError
from kazoo.security import make_acl, make_digest_acl

command, server, file = sys.argv[1:]
client = KazooClient(server, timeout=30, auth_data=[("digest", "user:secret")])
client.start(60)


def walk(path="/"):
    """Every node but the system's: data, access list, and the numbers that clients see."""
    for name in sorted(client.get_children(path)):
        below = path.rstrip("/") + "/" + name
        if below == "/zookeeper":
            continue
        data, stat = client.get(below)
        acls, _ = client.get_acls(below)
        yield below, data.decode(), sorted(map(str, acls)), list(stat)
        yield from walk(below)


def fill():
    client.create("/plain", b"data")
    client.create("/null", b"")
    for i in range(400):
        client.create(f"/many/{i % 7}/n-", b"x" * i, makepath=True, sequence=True)
    for i in range(20):
        client.set("/plain", b"written %d times" % i)
    client.create("/digest", b"secret", acl=[make_digest_acl("user", "secret", all=True)])
    client.create("/read", b"public", acl=[make_acl("world", "anyone", read=True, admin=True)])
    client.set_acls("/many", [make_acl("world", "anyone", all=True), make_acl("ip", "10.0.0.1", read=True)])
    transaction = client.transaction()
    transaction.create("/in-a-multi", b"1")
    transaction.set_data("/plain", b"by a multi")
    transaction.delete("/null")
    assert not [result for result in transaction.commit() if isinstance(result, Exception)]
    transaction = client.transaction()
    transaction.create("/failed")
    transaction.check("/plain", 99)
    transaction.commit()
    for path in ["/many/3", "/many/6"]:
        for name in client.get_children(path)[::3]:
            client.delete(f"{path}/{name}")
    try:
        client.delete("/not/there")
    except NoNodeError:
        pass
    other = KazooClient(server, timeout=30)
    other.start(60)
    other.create("/closed/e", ephemeral=True, makepath=True)
    other.stop()
    client.create("/live/e", b"mine", ephemeral=True, makepath=True)


if command == "fill":
    fill()
    with open(file, "w") as out:
        json.dump(list(walk()), out)
    # Not closed: the session and its ephemeral are what the server's files end with.
    os._exit(0)

with open(file) as source:
    expected = json.load(source)
found = {path: [path, *rest] for path, *rest in walk()}
gone = [path for path, *_ in expected if path not in found]
assert gone == ["/live/e"], gone
assert len(found) == len(expected) - 1, sorted(set(found) - {path for path, *_ in expected})
for wanted in expected:
    path = wanted[0]
    if path == "/live/e":
        continue
    if path == "/live":
        # Its child went with the session: changed children, and no others of its numbers.
        stat = found[path][3]
        assert stat[5] == wanted[3][5] + 1 and stat[9] == 0 and stat[10] > wanted[3][10], (stat, wanted)
        continue
    assert found[path] == wanted, (found[path], wanted)
assert client.create("/plain/after") == "/plain/after"
# Sequence numbers go on where they were.
names = client.get_children("/many/2")
last = max(int(name[2:]) for name in names)
assert int(client.create("/many/2/n-", sequence=True).rsplit("-", 1)[1]) == last + 1
print(f"{len(expected) - 1} znodes are the same, last zxid {client.last_zxid:#x}")
client.stop()
