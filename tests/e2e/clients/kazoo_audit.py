"""kazoo changes things, and is not let, for the audit log: kazoo_audit.py SERVER."""
import sys

from kazoo.client import KazooClient
from kazoo.exceptions import NoAuthError
from kazoo.security import make_digest_acl

server = sys.argv[1]
bob = KazooClient(server, auth_data=[("digest", "bob:secret")])
bob.start(30)
bob.create("/mine", b"1")
bob.create("/here", ephemeral=True)
bob.create("/list-", sequence=True)
bob.set_acls("/mine", [make_digest_acl("bob", "secret", all=True)])
good = bob.transaction()
good.create("/short")
good.delete("/short")
assert good.commit() == ["/short", True]
bad = bob.transaction()
bad.create("/never")
bad.check("/mine", 99)
bad.commit()
eve = KazooClient(server)
eve.start(30)
for act in [lambda: eve.get("/mine"), lambda: eve.set("/mine", b"2")]:
    try:
        act()
        raise AssertionError("eve was let")
    except NoAuthError:
        pass
eve.stop()
bob.stop()
