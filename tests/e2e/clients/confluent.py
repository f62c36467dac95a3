"""confluent-kafka (librdkafka): admin, an idempotent producer, a consumer without a group."""
import sys

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic

bootstrap, topic, count = sys.argv[1], "confluent", 1000

admin = AdminClient({"bootstrap.servers": bootstrap})
admin.create_topics([NewTopic(topic, 3, 3, config={"retention.ms": "86400000"})])[topic].result(30)
resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
described = admin.describe_configs([resource])[resource].result(30)
assert described["retention.ms"].value == "86400000", described["retention.ms"]

acknowledged = {}


def delivered(error, message):
    assert error is None, error
    acknowledged[message.value()] = (message.partition(), message.offset())


producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
for i in range(count):
    producer.produce(topic, f"value {i}", key=f"key {i}", headers=[("h", "1"), ("h", "2")], on_delivery=delivered)
    producer.poll(0)
assert producer.flush(60) == 0, "records stayed unanswered"
assert len(acknowledged) == count

consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "none", "enable.auto.commit": False})
consumer.assign([TopicPartition(topic, p, 0) for p in range(3)])
read = {}
while len(read) < count:
    message = consumer.poll(30)
    assert message is not None, f"nothing for 30 s after {len(read)} records"
    assert message.error() is None, message.error()
    assert message.headers() == [("h", b"1"), ("h", b"2")], message.headers()
    assert message.value() not in read, "read twice"
    read[message.value()] = (message.partition(), message.offset())
consumer.close()
assert read == acknowledged, "records are not where the producer was told"
print(f"confluent-kafka: {count} records written and read back, {len(described)} topic settings described")
