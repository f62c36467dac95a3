"""kazoo's own tests against our coordinators: starts them, and puts them in the place of the Java servers
that kazoo's harness would start.

    kazoo_suite.py COORDINATOR [--servers 1|3] [PYTEST ARGUMENT]...

Prints for each test that does not pass why, from the tables below, and fails on one that is not in them.
"""
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

# The suite looks at these when it is imported. Our servers answer as this version.
os.environ["CI"] = "true"
os.environ["ZOOKEEPER_VERSION"] = "3.9.5"

import kazoo
import pytest
from OpenSSL import crypto
from kazoo.testing import harness

# Its clients outlive its tests, and say so at length.
logging.lastResort = None

READY_SECONDS = 60
# What the suite's super user says is super:test.
SUPER_DIGEST = "super:D/InIHSb7yEEbrWz8b9l71RjZJU="

# Part of a test's name: why it does not pass here.
EXPLAINED = {
    "SASLGSSAPI": "of SASL there is DIGEST-MD5 only; the suite skips it without Kerberos",
    "test_slow_connect": "asks for a host outside that does not answer",
}
# Apache ZooKeeper 3.9.5 alone misses them too.
EXPLAINED_ALONE = {
    "test_update_host_list": "stops one server and goes on with another",
    "TestReadOnlyMode": "stops two servers and reads from the third",
    "TestReconfig": "a server that stands alone has no members",
}


class Server:
    """One coordinator, as kazoo's harness wants to see a server."""

    def __init__(self, program, folder, index, count):
        self.program, self.folder, self.index, self.count = program, folder, index, count
        self.client_port, self.peer_port = free_port(), free_port()
        self.address = self.secure_address = "127.0.0.1:%d" % self.client_port
        self.host = "127.0.0.1"
        self.process = None

    @property
    def running(self):
        return self.process is not None

    def command(self, servers):
        name = "%s/%d" % (self.folder, self.index + 1)
        settings = {
            "id": self.index + 1,
            "dataDir": name,
            "clientPort": self.client_port,
            "DigestAuthenticationProvider.superDigest": SUPER_DIGEST,
            "saslUsers": self.folder + "/users",
            "ssl.keyStore.location": self.folder + "/server.pem",
            "ssl.trustStore.location": self.folder + "/ca.pem",
            "client.portUnification": "true",
        }
        if self.count > 1:
            settings["peerSecret"] = "only these members know this"
            settings["reconfigEnabled"] = "true"
            settings["readonlymode.enabled"] = "true"
            for server in servers:
                address = "127.0.0.1:%d;127.0.0.1:%d" % (server.peer_port, server.client_port)
                settings["server.%d" % (server.index + 1)] = address
        pairs = (("--set", "%s=%s" % pair) for pair in settings.items())
        return [self.program] + [part for pair in pairs for part in pair]

    def run(self):
        if not self.running:
            log = open("%s/%d.log" % (self.folder, self.index + 1), "ab")
            self.process = subprocess.Popen(
                self.command(CLUSTER), stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def stop(self):
        if self.running:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(READY_SECONDS)
            self.process = None

    def destroy(self):
        pass

    def reset(self):
        pass


class Cluster(list):
    """All of them."""

    def start(self):
        for server in self:
            server.run()
        for server in self:
            wait_ready(server)

    def stop(self):
        for server in self:
            server.stop()

    def terminate(self):
        pass

    def get_logs(self):
        return []

    def get_ssl_client_configuration(self):
        return {name: certificates[name] for name in ("client_key", "client_cert", "ca_cert")}


# The users that the suite proves to be.
USERS = "super:super_secret\njaasuser:jaas_password\n"
certificates = {}


def make_certificates(folder):
    """An authority, a server and a client. The suite's own are of X.509's first version, which rustls refuses."""
    dump_key = lambda key: crypto.dump_privatekey(crypto.FILETYPE_PEM, key)
    dump = lambda certificate: crypto.dump_certificate(crypto.FILETYPE_PEM, certificate)
    authority = None
    for serial, name in enumerate(("ca", "server", "client"), 1):
        key, certificate = crypto.PKey(), crypto.X509()
        key.generate_key(crypto.TYPE_RSA, 2048)
        certificate.set_version(2)
        certificate.set_serial_number(serial)
        certificate.get_subject().CN = name
        certificate.gmtime_adj_notBefore(0)
        certificate.gmtime_adj_notAfter(24 * 60 * 60)
        certificate.set_pubkey(key)
        if authority is None:
            authority = (certificate, key)
            is_authority = crypto.X509Extension(b"basicConstraints", True, b"CA:TRUE")
            certificate.add_extensions([is_authority])
        else:
            hosts = b"DNS:localhost,IP:127.0.0.1"
            certificate.add_extensions([crypto.X509Extension(b"subjectAltName", False, hosts)])
        certificate.set_issuer(authority[0].get_subject())
        certificate.sign(authority[1], "sha256")
        certificates[name + "_key"], certificates[name + "_cert"] = dump_key(key), dump(certificate)
    with open(folder + "/ca.pem", "wb") as file:
        file.write(certificates["ca_cert"])
    with open(folder + "/server.pem", "wb") as file:
        file.write(certificates["server_key"] + certificates["server_cert"])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_ready(server):
    """Until it says what it is: without a quorum it does not."""
    end, said = time.monotonic() + READY_SECONDS, b""
    while b"Mode:" not in said:
        if time.monotonic() > end or server.process.poll() is not None:
            sys.exit("server %d is not ready; it said %r" % (server.index + 1, said))
        try:
            with socket.create_connection(("127.0.0.1", server.client_port), 5) as word:
                word.sendall(b"srvr")
                said = word.recv(4096)
        except OSError as error:
            said = repr(error).encode()
        time.sleep(0.05)


class Report:
    """Counts, and looks up what does not pass."""

    def __init__(self):
        self.passed, self.skipped, self.missed = set(), {}, {}

    def pytest_runtest_logreport(self, report):
        if report.skipped:
            self.skipped[report.nodeid] = str(report.longrepr[-1] if report.longrepr else "")
        elif report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            self.missed[report.nodeid] = crash.message if crash else report.longreprtext
        elif report.when == "call":
            self.passed.add(report.nodeid)

    def print(self, servers):
        self.passed -= set(self.missed)
        unexplained = []
        known = {**EXPLAINED, **(EXPLAINED_ALONE if servers == 1 else {})}
        for name, said in sorted({**self.skipped, **self.missed}.items()):
            word = "missed" if name in self.missed else "skipped"
            reason = next((why for part, why in known.items() if part in name), None)
            if word == "missed" and reason is None:
                unexplained.append(name)
            line = " ".join(said.split())[:120]
            print("%s %s: %s [%s]" % (word, name, reason or "NOT EXPLAINED", line))
        total = len(self.passed) + len(self.skipped) + len(self.missed)
        counts = (len(self.passed), len(self.skipped), len(self.missed), total, servers)
        print("kazoo: %d passed, %d skipped, %d missed of %d, on %d servers" % counts)
        return unexplained


def main():
    program, arguments = os.path.abspath(sys.argv[1]), sys.argv[2:]
    counts = (1, 3)
    if arguments[:1] == ["--servers"]:
        counts, arguments = (int(arguments[1]),), arguments[2:]
    if len(counts) > 1:
        # The suite keeps its servers for as long as the process lives: one process for each number.
        codes = [
            subprocess.call([sys.executable, __file__, program, "--servers", str(count), *arguments])
            for count in counts
        ]
        sys.exit(max(codes))
    if "--pyargs" not in arguments:
        arguments += ["--pyargs", "kazoo.tests"]
    folder = tempfile.mkdtemp(prefix="kazoo-suite-")
    make_certificates(folder)
    with open(folder + "/users", "w") as file:
        file.write(USERS)
    CLUSTER.extend(Server(program, folder, index, counts[0]) for index in range(counts[0]))
    harness.get_global_cluster = lambda: CLUSTER
    report = Report()
    try:
        CLUSTER.start()
        root = os.path.dirname(kazoo.__file__)
        options = ["-q", "--timeout", "120", "--tb=no", "--disable-warnings", "--rootdir", root]
        pytest.main([*options, "-p", "no:cacheprovider", *arguments], [report])
    finally:
        CLUSTER.stop()
    unexplained = report.print(counts[0])
    if unexplained or not report.passed:
        sys.exit("not explained: %s; logs are in %s" % (unexplained or "nothing ran", folder))
    shutil.rmtree(folder)


CLUSTER = Cluster()
if __name__ == "__main__":
    main()
