// A member of a group with kafkajs: BOOTSTRAP GROUP TOPIC SESSION_MS eager.
//
// Tells on standard output what it is given (+), what it gives back (-), and what it reads (r PARTITION OFFSET).
const { writeSync } = require("fs");
const { Kafka, logLevel } = require("kafkajs");

const [bootstrap, groupId, topic, sessionMs] = process.argv.slice(2);
// At once, also into a pipe: a killed process has said all that it did.
const say = (...words) => writeSync(1, `${words.join(" ")}\n`);
const kafka = new Kafka({ clientId: "kafkajs", brokers: bootstrap.split(","), logLevel: logLevel.ERROR });
const consumer = kafka.consumer({
  groupId, sessionTimeout: Number(sessionMs), heartbeatInterval: 500, rebalanceTimeout: 10_000, metadataMaxAge: 1000, maxWaitTimeInMs: 500,
});

let owned = [];
const give = () => {
  say("-", ...owned);
  owned = [];
};
consumer.on(consumer.events.REBALANCING, give);
consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
  give();
  owned = payload.memberAssignment[topic] || [];
  say("+", ...owned);
});

async function main() {
  await consumer.connect();
  await consumer.subscribe({ topics: [topic], fromBeginning: true });
  await consumer.run({
    autoCommitInterval: 200,
    eachMessage: async ({ partition, message }) => say("r", partition, message.offset),
  });
}

process.on("SIGTERM", () => consumer.disconnect().then(() => process.exit(0)));
main().catch((error) => {
  console.error(error);
  process.exit(1);
});
