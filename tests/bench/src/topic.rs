//! Makes and removes topics on any server of Kafka's protocol.
//!
//! Called by: `throughput`, `latency`, `failover`. Calls: librdkafka's admin client.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};

/// A hang guard: no server may take this long for a topic.
const LIMIT: Duration = Duration::from_secs(60);

/// A topic that is removed by [`Topic::remove`].
pub struct Topic {
    bootstrap: String,
    /// Its name.
    pub name: String,
}

impl Topic {
    /// Makes a topic and returns when each partition has a leader and all its replicas in sync.
    ///
    /// # Errors
    /// When the server refuses it or the hang guard passes.
    pub fn create(
        bootstrap: &str,
        name: &str,
        (partitions, replicas): (i32, i32),
        config: &[(&str, &str)],
    ) -> Result<Topic> {
        let mut wanted = NewTopic::new(name, partitions, TopicReplication::Fixed(replicas));
        for (key, value) in config {
            wanted = wanted.set(key, value);
        }
        let admin = admin(bootstrap)?;
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
        let made = block_on(admin.create_topics([&wanted], &options))?;
        if let Some(Err((name, code))) = made.into_iter().next() {
            bail!("{bootstrap} refuses topic {name}: {code}");
        }
        let topic = Topic { bootstrap: bootstrap.to_string(), name: name.to_string() };
        topic.wait_led(partitions, replicas)?;
        Ok(topic)
    }

    fn wait_led(&self, partitions: i32, replicas: i32) -> Result<()> {
        let client: BaseConsumer =
            ClientConfig::new().set("bootstrap.servers", &self.bootstrap).create()?;
        let began = Instant::now();
        loop {
            let seen = client.fetch_metadata(Some(&self.name), Duration::from_secs(5));
            let led = seen.as_ref().is_ok_and(|metadata| {
                metadata.topics().iter().all(|topic| {
                    topic.partitions().len() == usize::try_from(partitions).unwrap_or_default()
                        && topic.partitions().iter().all(|partition| {
                            let in_sync = i32::try_from(partition.isr().len()).unwrap_or_default();
                            partition.leader() >= 0 && in_sync == replicas
                        })
                })
            });
            if led {
                return Ok(());
            }
            if began.elapsed() > LIMIT {
                let error = seen.err().map(|error| error.to_string()).unwrap_or_default();
                bail!("topic {} has no leaders after {LIMIT:?} {error}", self.name);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Removes it.
    ///
    /// # Errors
    /// When the server refuses.
    pub fn remove(self) -> Result<()> {
        let admin = admin(&self.bootstrap)?;
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
        block_on(admin.delete_topics(&[&self.name], &options))?;
        Ok(())
    }
}

fn admin(bootstrap: &str) -> Result<AdminClient<DefaultClientContext>> {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .create()
        .context("librdkafka's admin client")
}

fn block_on<T>(future: impl Future<Output = rdkafka::error::KafkaResult<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    Ok(runtime.block_on(future)?)
}
