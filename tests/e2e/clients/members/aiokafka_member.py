"""A member of a group with aiokafka: BOOTSTRAP GROUP TOPIC SESSION_MS eager [INSTANCE].

Tells on standard output what it is given (+), what it gives back (-), and what it reads (r PARTITION OFFSET)."""
import asyncio
import signal
import sys
import time

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka.errors import KafkaError

bootstrap, group, topic, session_ms, strategy, *instance = sys.argv[1:]
COMMIT_EVERY_S = 0.2


async def commit(consumer):
    try:
        await consumer.commit()
    except KafkaError as error:
        # Whoever has the share by now, or the next commit, says it again.
        print("not committed:", repr(error), flush=True)


class Listener(ConsumerRebalanceListener):
    def __init__(self, consumer):
        self.consumer = consumer

    async def on_partitions_assigned(self, assigned):
        print("+", *sorted(p.partition for p in assigned), flush=True)

    async def on_partitions_revoked(self, revoked):
        if revoked:
            await commit(self.consumer)
        print("-", *sorted(p.partition for p in revoked), flush=True)


async def main():
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=group,
        group_instance_id=instance[0] if instance else None,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=int(session_ms),
        heartbeat_interval_ms=500,
        metadata_max_age_ms=1000,
    )
    consumer.subscribe([topic], listener=Listener(consumer))
    await consumer.start()
    committed_at = time.monotonic()
    while not stopped.is_set():
        try:
            batches = await consumer.getmany(timeout_ms=100)
        except KafkaError as error:
            print("not read:", repr(error), flush=True)
            batches = {}
        for records in batches.values():
            for record in records:
                print("r", record.partition, record.offset, flush=True)
        if time.monotonic() - committed_at >= COMMIT_EVERY_S:
            await commit(consumer)
            committed_at = time.monotonic()
    await commit(consumer)
    await consumer.stop()


asyncio.run(main())
