"""A member of a group with kafka-python: BOOTSTRAP GROUP TOPIC SESSION_MS eager|cooperative [INSTANCE].

Tells on standard output what it is given (+), what it gives back (-), and what it reads (r PARTITION OFFSET)."""
import signal
import sys
import time

from kafka import ConsumerRebalanceListener, KafkaConsumer
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import KafkaError

bootstrap, group, topic, session_ms, strategy, *instance = sys.argv[1:]
COMMIT_EVERY_S = 0.2
stopped = False


def stop(*_):
    global stopped
    stopped = True


def commit():
    try:
        consumer.commit()
    except KafkaError as error:
        # Whoever has the share by now, or the next commit, says it again.
        print("not committed:", repr(error), flush=True)


class Listener(ConsumerRebalanceListener):
    def on_partitions_assigned(self, partitions):
        print("+", *sorted(p.partition for p in partitions), flush=True)

    # Nothing may be waited for in here, so nothing is committed: whoever has them next reads again what was read since the
    # last commit.
    def on_partitions_revoked(self, partitions):
        print("-", *sorted(p.partition for p in partitions), flush=True)

    def on_partitions_lost(self, partitions):
        print("-", *sorted(p.partition for p in partitions), flush=True)


signal.signal(signal.SIGTERM, stop)
consumer = KafkaConsumer(
    bootstrap_servers=bootstrap,
    group_id=group,
    group_instance_id=instance[0] if instance else None,
    partition_assignment_strategy=[
        CooperativeStickyAssignor if strategy == "cooperative" else RangePartitionAssignor
    ],
    auto_offset_reset="earliest",
    enable_auto_commit=False,
    session_timeout_ms=int(session_ms),
    heartbeat_interval_ms=500,
    metadata_max_age_ms=1000,
)
consumer.subscribe([topic], listener=Listener())
committed_at = time.monotonic()
while not stopped:
    for records in consumer.poll(timeout_ms=100).values():
        for record in records:
            print("r", record.partition, record.offset, flush=True)
    if time.monotonic() - committed_at >= COMMIT_EVERY_S:
        commit()
        committed_at = time.monotonic()
commit()
consumer.close()
