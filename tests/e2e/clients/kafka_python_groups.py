"""kafka-python: two members share a topic, commit, and a third goes on where they were."""
import sys
import threading
import time

from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient, NewTopic

bootstrap, topic, count, hang_s = sys.argv[1], "kafka-python-groups", 400, 90

admin = KafkaAdminClient(bootstrap_servers=bootstrap)
admin.create_topics([NewTopic(topic, num_partitions=4, replication_factor=3)])
producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all")
sent = {f"value {i}".encode() for i in range(count)}
for i, value in enumerate(sorted(sent)):
    producer.send(topic, value=value, partition=i % 4)
producer.flush(60)

read, assigned, stop, lock = [], {}, threading.Event(), threading.Lock()


def consumer():
    return KafkaConsumer(
        topic, bootstrap_servers=bootstrap, group_id="kafka-python", auto_offset_reset="earliest",
        enable_auto_commit=False, session_timeout_ms=10000, heartbeat_interval_ms=500,
    )


def work(name):
    member = consumer()
    while not stop.is_set():
        for records in member.poll(timeout_ms=100).values():
            with lock:
                read.extend(record.value for record in records)
        member.commit()
        assigned[name] = {partition.partition for partition in member.assignment()}
    member.close()


threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "two")]
for thread in threads:
    thread.start()
began = time.monotonic()
while not (set(read) == sent and len(assigned) == 2 and all(len(owned) == 2 for owned in assigned.values())):
    assert time.monotonic() - began < hang_s, f"{len(set(read))} of {count} read, {assigned}"
    time.sleep(0.05)
assert assigned["one"].isdisjoint(assigned["two"]), assigned
stop.set()
for thread in threads:
    thread.join()

later = consumer()
producer.send(topic, value=b"later", partition=0).get(30)
seen, began = [], time.monotonic()
while b"later" not in seen:
    assert time.monotonic() - began < hang_s, seen
    for records in later.poll(timeout_ms=500).values():
        seen.extend(record.value for record in records)
assert seen == [b"later"], seen
assert later.committed(TopicPartition(topic, 1)) == count // 4
later.close()
described = admin.describe_groups(["kafka-python"])["kafka-python"]
assert (described["group_state"], described["members"], described["error"]) == ("Empty", [], None), described
listed = {group["group_id"]: group["group_state"] for group in admin.list_groups()}
assert listed.get("kafka-python") == "Empty", listed
print(f"kafka-python: {count} records shared by two members, a third went on; the group is listed and described as empty")
