"""aiokafka: two members share a topic, commit, and a third goes on where they were."""
import asyncio
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

bootstrap, topic, count, hang_s = sys.argv[1], "aiokafka-groups", 400, 90


def consumer():
    return AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, group_id="aiokafka", auto_offset_reset="earliest",
        enable_auto_commit=False, session_timeout_ms=10000, heartbeat_interval_ms=500,
    )


async def work(member, read):
    while True:
        batches = await member.getmany(timeout_ms=100)
        for records in batches.values():
            read.extend(record.value for record in records)
        if batches:
            await member.commit()


async def until(what, holds):
    for _ in range(hang_s * 20):
        if holds():
            return
        await asyncio.sleep(0.05)
    raise SystemExit(f"still waiting for {what}")


async def main():
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 4, 3)])
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    await producer.start()
    sent = [f"value {i}".encode() for i in range(count)]
    for i, value in enumerate(sent):
        await producer.send_and_wait(topic, value, partition=i % 4)
    members, read = [consumer(), consumer()], []
    for member in members:
        await member.start()
    tasks = [asyncio.create_task(work(member, read)) for member in members]
    await until("all to be read", lambda: set(read) == set(sent))
    await until("both to share", lambda: all(len(member.assignment()) == 2 for member in members))
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for member in members:
        await member.stop()
    later = consumer()
    await later.start()
    await producer.send_and_wait(topic, b"later", partition=0)
    record = await asyncio.wait_for(later.getone(), hang_s)
    assert record.value == b"later", record
    assert await later.committed(TopicPartition(topic, 1)) == count // 4
    await later.stop()
    await producer.stop()
    await admin.close()
    print(f"aiokafka: {count} records shared by two members, a third went on where they were")


asyncio.run(main())
