// kafkajs: two members share a topic, commit, and a third goes on where they were.
const { Kafka, logLevel } = require("kafkajs");

const [bootstrap] = process.argv.slice(2);
const topic = "kafkajs-groups", count = 400, hangMs = 90_000;
const kafka = new Kafka({ clientId: "kafkajs", brokers: bootstrap.split(","), logLevel: logLevel.NOTHING });

async function until(what, holds) {
  const began = Date.now();
  while (!(await holds())) {
    if (Date.now() - began > hangMs) throw new Error(`still waiting for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

function begin(read, owned) {
  const consumer = kafka.consumer({ groupId: "kafkajs", sessionTimeout: 10_000, heartbeatInterval: 500 });
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
    owned.splice(0, owned.length, ...(payload.memberAssignment[topic] || []));
  });
  const run = async () => {
    await consumer.connect();
    await consumer.subscribe({ topics: [topic], fromBeginning: true });
    await consumer.run({ eachMessage: async ({ message }) => void read.push(message.value.toString()) });
  };
  return run().then(() => consumer);
}

async function main() {
  const admin = kafka.admin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic, numPartitions: 4, replicationFactor: 3 }], waitForLeaders: true });
  const producer = kafka.producer();
  await producer.connect();
  const sent = Array.from({ length: count }, (_, i) => `value ${i}`);
  await producer.send({ topic, acks: -1, messages: sent.map((value, i) => ({ value, partition: i % 4 })) });
  const read = [], owned = [[], []];
  const members = [await begin(read, owned[0]), await begin(read, owned[1])];
  await until("all to be read", () => new Set(read).size === count);
  await until("both to share", () => owned.every((one) => one.length === 2));
  for (const member of members) await member.disconnect();
  const stored = async () =>
    (await admin.fetchOffsets({ groupId: "kafkajs", topics: [topic] }))[0].partitions.map((one) => Number(one.offset));
  const offsets = await stored();
  if (offsets.some((offset) => offset !== count / 4)) throw new Error(`committed ${offsets}`);
  await producer.send({ topic, acks: -1, messages: [{ value: "later", partition: 0 }] });
  const seen = [];
  const later = await begin(seen, []);
  await until("the later record", () => seen.length > 0);
  if (seen.length !== 1 || seen[0] !== "later") throw new Error(`read again: ${seen}`);
  await later.disconnect();
  const groups = (await admin.listGroups()).groups.map((group) => group.groupId);
  if (!groups.includes("kafkajs")) throw new Error(`listed ${groups}`);
  await admin.deleteGroups(["kafkajs"]);
  await producer.disconnect();
  await admin.disconnect();
  console.log(`kafkajs: ${count} records shared by two members, a third went on where they were`);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
