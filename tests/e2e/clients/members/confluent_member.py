"""A member of a group with confluent-kafka (librdkafka): BOOTSTRAP GROUP TOPIC SESSION_MS eager|cooperative [INSTANCE].

Tells on standard output what it is given (+), what it gives back (-), and what it reads (r PARTITION OFFSET)."""
import signal
import sys
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

bootstrap, group, topic, session_ms, strategy, *instance = sys.argv[1:]
COMMIT_EVERY_S = 0.2
cooperative = strategy == "cooperative"
# Of another generation than the group's: whoever has the partition now reads from the last commit.
PASSING = (KafkaError.ILLEGAL_GENERATION, KafkaError.REBALANCE_IN_PROGRESS, KafkaError.UNKNOWN_MEMBER_ID)
settings = {
    "bootstrap.servers": bootstrap,
    "group.id": group,
    "partition.assignment.strategy": "cooperative-sticky" if cooperative else "range",
    "auto.offset.reset": "earliest",
    "session.timeout.ms": int(session_ms),
    "heartbeat.interval.ms": 500,
    "topic.metadata.refresh.interval.ms": 1000,
    "enable.auto.commit": False,
}
if instance:
    settings["group.instance.id"] = instance[0]
consumer = Consumer(settings)
stopped, told = False, {}


def stop(*_):
    global stopped
    stopped = True


def commit(partitions):
    """Tells the group how far these were read."""
    offsets = [TopicPartition(topic, p, told.pop(p)) for p in sorted(partitions) if p in told]
    try:
        if offsets:
            for p in consumer.commit(offsets=offsets, asynchronous=False):
                if p.error is not None:
                    raise KafkaException(p.error)
    except KafkaException as error:
        print("not committed:", error, flush=True)
        if error.args[0].code() in PASSING:
            return
        # The group coordinator moves: the next commit says it again, unless more is read by then.
        for p in offsets:
            told.setdefault(p.partition, p.offset)


def assigned(consumer, partitions):
    print("+", *sorted(p.partition for p in partitions), flush=True)
    (consumer.incremental_assign if cooperative else consumer.assign)(partitions)


def revoked(consumer, partitions):
    commit({p.partition for p in partitions})
    print("-", *sorted(p.partition for p in partitions), flush=True)
    if cooperative:
        consumer.incremental_unassign(partitions)
    else:
        consumer.unassign()


def lost(consumer, partitions):
    for p in partitions:
        told.pop(p.partition, None)
    print("-", *sorted(p.partition for p in partitions), flush=True)


signal.signal(signal.SIGTERM, stop)
consumer.subscribe([topic], on_assign=assigned, on_revoke=revoked, on_lost=lost)
committed_at = time.monotonic()
while not stopped:
    message = consumer.poll(0.1)
    if message is not None and message.error() is None:
        print("r", message.partition(), message.offset(), flush=True)
        told[message.partition()] = message.offset() + 1
    if time.monotonic() - committed_at >= COMMIT_EVERY_S:
        commit(set(told))
        committed_at = time.monotonic()
commit(set(told))
consumer.close()
