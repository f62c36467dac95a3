"""kafka-python: infers a release from ApiVersions; what it then offers has to work."""
import sys
import time

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic

bootstrap, topic, count = sys.argv[1].split(","), "kafka-python", 1000

admin = KafkaAdminClient(bootstrap_servers=bootstrap)
admin.create_topics([NewTopic(topic, 3, 3)])
assert topic in admin.list_topics()
assert len(admin.describe_cluster()["brokers"]) == 3
assert admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])

producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all")
sent = [producer.send(topic, b"value %d" % i, key=b"key %d" % i) for i in range(count)]
acknowledged = {}
for i, future in enumerate(sent):
    placed = future.get(60)
    acknowledged[b"value %d" % i] = (placed.partition, placed.offset)
producer.close()

consumer = KafkaConsumer(bootstrap_servers=bootstrap, consumer_timeout_ms=30000, enable_auto_commit=False)
partitions = [TopicPartition(topic, p) for p in range(3)]
consumer.assign(partitions)
consumer.seek_to_beginning()
ends = consumer.end_offsets(partitions)
assert sum(ends.values()) == count, ends
assert all(offset == 0 for offset in consumer.beginning_offsets(partitions).values())
assert consumer.offsets_for_times({partitions[0]: 0})[partitions[0]].offset == 0
read = {}
for record in consumer:
    assert record.value not in read, "read twice"
    read[record.value] = (record.partition, record.offset)
    if len(read) == count:
        break
assert read == acknowledged, "records are not where the producer was told"
consumer.close()

admin.delete_topics([topic])
gone = time.monotonic() + 30
while topic in admin.list_topics():
    assert time.monotonic() < gone, "the deleted topic is still listed"
admin.close()
print(f"kafka-python: {count} records written and read back, offsets by time, topic deleted")
