"""confluent-kafka (librdkafka): members of a group come, go, are killed and restart; nobody stops who need not.

As a member: BOOTSTRAP member GROUP STRATEGY [INSTANCE]; it tells on standard output what it owns."""
import os
import signal
import subprocess
import sys
import threading
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

TOPIC, PARTITIONS, HANG_S = "confluent-groups", 4, 90


def member(bootstrap, group, strategy, instance=None):
    settings = {
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "partition.assignment.strategy": strategy,
        "auto.offset.reset": "earliest",
        "session.timeout.ms": 6000,
        "heartbeat.interval.ms": 500,
        "enable.auto.commit": False,
    }
    if instance:
        settings["group.instance.id"] = instance
    consumer = Consumer(settings)
    cooperative = strategy == "cooperative-sticky"
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())

    def changed(what, add):
        def callback(consumer, partitions):
            print(what, *sorted(p.partition for p in partitions), flush=True)
            if cooperative:
                (consumer.incremental_assign if add else consumer.incremental_unassign)(partitions)
            elif add:
                consumer.assign(partitions)
            else:
                consumer.unassign()
        return callback

    consumer.subscribe([TOPIC], on_assign=changed("+", True), on_revoke=changed("-", False))
    while not stop.is_set():
        message = consumer.poll(0.1)
        if message is None or message.error() is not None:
            continue
        try:
            consumer.commit(message, asynchronous=False)
        except KafkaException as error:
            # A generation that ended meanwhile: whoever has the partition now reads it again.
            if error.args[0].code() not in (KafkaError.ILLEGAL_GENERATION, KafkaError.REBALANCE_IN_PROGRESS):
                raise
    consumer.close()


class Member:
    """A member in a process of its own, as seen from its output."""

    def __init__(self, *arguments):
        command = [sys.executable, __file__, bootstrap, "member", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.owned, self.events = set(), []
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            what, *partitions = line.split()
            self.events.append(line.strip())
            if what == "+":
                self.owned |= set(map(int, partitions))
            else:
                self.owned -= set(map(int, partitions))

    def end(self, how):
        self.process.send_signal(how)
        self.process.wait(HANG_S)


def wait(what, holds):
    began = time.monotonic()
    while not holds():
        if time.monotonic() - began > HANG_S:
            raise SystemExit(f"still waiting for {what}: {[(m.owned, m.events) for m in members]}")
        time.sleep(0.02)
    return time.monotonic() - began


def shared(*sharing):
    owned = [m.owned for m in sharing]
    return all(owned) and set().union(*owned) == set(range(PARTITIONS)) and sum(map(len, owned)) == PARTITIONS


def eager(group):
    one, two = Member(group, "range"), Member(group, "range")
    members[:] = [one, two]
    wait("two to share", lambda: shared(one, two))
    two.end(signal.SIGKILL)
    print(f"range: killed member's partitions moved after {wait('one to own all', lambda: shared(one)):.1f} s")
    wait("all to be committed", lambda: all_committed(group))
    one.end(signal.SIGTERM)


def cooperative(group):
    one = Member(group, "cooperative-sticky")
    members[:] = [one]
    wait("one to own all", lambda: shared(one))
    two = Member(group, "cooperative-sticky")
    members.append(two)
    moved = wait("two to share", lambda: shared(one, two))
    revoked = {int(p) for line in one.events if line[0] == "-" for p in line.split()[1:]}
    assert revoked == two.owned, f"{one.events}: others were stopped than those that moved to {two.owned}"
    two.end(signal.SIGTERM)
    left = wait("one to own all again", lambda: shared(one))
    wait("all to be committed", lambda: all_committed(group))
    one.end(signal.SIGTERM)
    print(f"cooperative-sticky: moved without a stop after {moved:.1f} s, back {left:.1f} s after a member left")


def static(group):
    one, two = (Member(group, "range", name) for name in ("first", "second"))
    members[:] = [one, two]
    wait("two to share", lambda: shared(one, two))
    before, owned = list(one.events), set(two.owned)
    two.end(signal.SIGKILL)
    again = Member(group, "range", "second")
    members[:] = [one, again]
    back = wait("the restarted member to own what it had", lambda: again.owned == owned)
    assert one.events == before, f"the other member was moved: {before} -> {one.events}"
    wait("all to be committed", lambda: all_committed(group))
    for ending in (one, again):
        ending.end(signal.SIGTERM)
    print(f"static member: restarted after a kill and went on after {back:.1f} s, the other untouched")


def all_committed(group):
    offsets, ends = committed(group)
    return offsets == ends


def committed(group):
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    found = consumer.committed([TopicPartition(TOPIC, p) for p in range(PARTITIONS)], timeout=30)
    ends = [consumer.get_watermark_offsets(TopicPartition(TOPIC, p), timeout=30)[1] for p in range(PARTITIONS)]
    consumer.close()
    return [p.offset for p in found], ends


bootstrap, members = sys.argv[1], []
if sys.argv[2:3] == ["member"]:
    member(bootstrap, *sys.argv[3:])
    sys.exit(0)
admin = AdminClient({"bootstrap.servers": bootstrap})
admin.create_topics([NewTopic(TOPIC, PARTITIONS, 3)])[TOPIC].result(30)
producer = Producer({"bootstrap.servers": bootstrap})
for i in range(40):
    producer.produce(TOPIC, f"value {i}", partition=i % PARTITIONS)
assert producer.flush(60) == 0, "records stayed unanswered"
try:
    for scenario in (eager, cooperative, static):
        scenario(scenario.__name__)
finally:
    for left in members:
        if left.process.poll() is None:
            os.kill(left.process.pid, signal.SIGKILL)
groups = {group.group_id for group in admin.list_consumer_groups().result().valid}
assert {"eager", "cooperative", "static"} <= groups, groups
print("confluent-kafka: groups done")
