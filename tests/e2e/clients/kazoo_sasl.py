"""kazoo with SASL DIGEST-MD5: kazoo_sasl.py SERVER; the server's users are bob, eve and root, root is the super user."""
import sys

from kazoo.client import KazooClient
from kazoo.exceptions import AuthFailedError, NoAuthError
from kazoo.security import make_acl

server = sys.argv[1]


def connect(user, password):
    options = {"mechanism": "DIGEST-MD5", "username": user, "password": password}
    client = KazooClient(server, timeout=10, sasl_options=options)
    client.start(30)
    return client


bob = connect("bob", "bob's secret")
bob.create("/bobs", b"private", acl=[make_acl("sasl", "bob", all=True)])
assert bob.get("/bobs")[0] == b"private"
for name, client in [("eve", connect("eve", "eve's secret")), ("nobody", KazooClient(server))]:
    client.start(30)
    try:
        client.get("/bobs")
        raise AssertionError(f"{name} read what is bob's")
    except NoAuthError:
        pass
    client.stop()
root = connect("root", "root's secret")
assert root.get("/bobs")[0] == b"private"
try:
    # A client starts before it hears whether it is believed.
    connect("bob", "guess").get_children("/")
    raise AssertionError("a wrong password was accepted")
except AuthFailedError:
    pass
bob.stop()
root.stop()
print("kazoo proved bob's, eve's and root's passwords; a wrong one was refused")
