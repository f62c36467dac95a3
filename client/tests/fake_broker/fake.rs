//! A broker of one's own making: speaks the real wire on a real socket, says what the test tells it to.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::{Bytes, BytesMut};
use client::protocol::frame::{FRAME_BYTES_MAX, FRAME_BYTES_MIN, split_frame};
use client::protocol::messages::api_versions::ApiVersionRange;
use client::protocol::messages::metadata::{MetadataBroker, MetadataPartition, MetadataTopic};
use client::protocol::messages::{ApiVersionsResponse, InitProducerIdResponse, MetadataResponse};
use client::protocol::{
    ApiKey, BrokerId, ErrorCode, HeaderError, LeaderEpoch, Message, PartitionId, ProducerEpoch,
    ProducerId, Reader, RequestHeader, Scope, decode_request_header, encode_response,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// One request as it came in.
#[derive(Clone, Debug)]
pub struct Received {
    pub header: RequestHeader,
    pub frame: Bytes,
    body_at: usize,
}

impl Received {
    pub fn body<M: Message>(&self) -> M {
        let mut reader = Reader::new(&self.frame);
        // Past the header, so that positions count from the frame's first byte.
        reader.take(self.body_at).unwrap();
        M::decode(&mut reader, self.header.version).unwrap()
    }

    pub fn answer<M: Message>(&self, response: &M) -> Action {
        let answer = encode_response(self.header.correlation_id, self.header.version, response);
        Action::Send(answer.unwrap().bytes)
    }
}

/// What the broker does about a request.
pub enum Action {
    /// Sends these bytes.
    Send(Bytes),
    /// Says nothing, now or later.
    Silence,
    /// Keeps the answer until the next one is sent, then sends both, this one first.
    Hold(Bytes),
    /// Hangs up.
    HangUp,
    /// Sends these bytes, then hangs up.
    Last(Bytes),
}

type Script = Box<dyn FnMut(&Received) -> Option<Action> + Send>;

struct Shared {
    script: Script,
    received: Vec<Received>,
    topic: MetadataTopic,
    port: i32,
}

/// The broker; ends with the value.
pub struct FakeBroker {
    pub address: String,
    shared: Arc<Mutex<Shared>>,
    task: JoinHandle<()>,
}

impl Drop for FakeBroker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeBroker {
    /// Starts a broker that leads all `partitions` of topic `t`. The script sees each request first; what it leaves
    /// alone (`None`) of ApiVersions, Metadata and InitProducerId is answered as a healthy broker would.
    pub async fn start(
        partitions: i32,
        script: impl FnMut(&Received) -> Option<Action> + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Mutex::new(Shared {
            script: Box::new(script),
            received: Vec::new(),
            topic: topic(partitions),
            port: i32::from(address.port()),
        }));
        let task = tokio::spawn({
            let shared = shared.clone();
            async move {
                let mut connections = tokio::task::JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    connections.spawn(serve(stream, shared.clone()));
                }
            }
        });
        Self { address: address.to_string(), shared, task }
    }

    /// Requests of one API so far.
    pub fn received(&self, key: ApiKey) -> Vec<Received> {
        let shared = self.shared.lock().unwrap();
        shared.received.iter().filter(|received| received.header.key == key).cloned().collect()
    }
}

fn topic(partitions: i32) -> MetadataTopic {
    let partition = |index: i32| MetadataPartition {
        partition_index: PartitionId::new(index),
        leader_id: Some(BrokerId::new(1)),
        leader_epoch: Some(LeaderEpoch::new(5)),
        replica_nodes: vec![BrokerId::new(1)],
        isr_nodes: vec![BrokerId::new(1)],
        ..MetadataPartition::default()
    };
    MetadataTopic {
        name: Some("t".to_owned()),
        partitions: (0..partitions).map(partition).collect(),
        ..MetadataTopic::default()
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Mutex<Shared>>) {
    let mut received = BytesMut::new();
    let mut held = VecDeque::new();
    loop {
        while let Some(frame) =
            split_frame(&mut received, FRAME_BYTES_MIN, FRAME_BYTES_MAX).unwrap()
        {
            let action = shared.lock().unwrap().act(frame.freeze());
            match action {
                Action::Send(bytes) => held.push_back(bytes),
                Action::Silence => continue,
                Action::Hold(bytes) => {
                    held.push_back(bytes);
                    continue;
                }
                Action::HangUp => return,
                Action::Last(bytes) => {
                    stream.write_all(&bytes).await.unwrap();
                    return;
                }
            }
            for bytes in held.drain(..) {
                stream.write_all(&bytes).await.unwrap();
            }
        }
        if !matches!(stream.read_buf(&mut received).await, Ok(1..)) {
            return;
        }
    }
}

impl Shared {
    fn act(&mut self, frame: Bytes) -> Action {
        let mut reader = Reader::new(&frame);
        let header = match decode_request_header(&mut reader) {
            Ok(header) => header,
            Err(HeaderError::UnsupportedVersion { .. } | HeaderError::UnknownApi(_)) => {
                return Action::HangUp;
            }
            Err(HeaderError::Decode(error)) => panic!("{error}"),
        };
        let received = Received { header, body_at: reader.position(), frame: frame.clone() };
        self.received.push(received.clone());
        if let Some(action) = (self.script)(&received) {
            return action;
        }
        match received.header.key {
            ApiKey::ApiVersions => received.answer(&api_versions()),
            ApiKey::Metadata => received.answer(&self.metadata()),
            ApiKey::InitProducerId => received.answer(&InitProducerIdResponse {
                producer_id: Some(ProducerId::new(4000)),
                producer_epoch: ProducerEpoch::new(0),
                ..InitProducerIdResponse::default()
            }),
            key => panic!("the script leaves {key:?} unanswered"),
        }
    }

    fn metadata(&self) -> MetadataResponse {
        MetadataResponse {
            brokers: vec![MetadataBroker {
                node_id: BrokerId::new(1),
                host: "127.0.0.1".to_owned(),
                port: self.port,
                rack: None,
            }],
            controller_id: Some(BrokerId::new(1)),
            topics: vec![self.topic.clone()],
            ..MetadataResponse::default()
        }
    }
}

/// All that the codec speaks.
pub fn api_versions() -> ApiVersionsResponse {
    let table = client::protocol::api::API_TABLE.iter();
    let api_keys = table.filter_map(|entry| {
        let range = entry.key.advertised(Scope::Public)?;
        let (min_version, max_version) = (*range.start(), *range.end());
        Some(ApiVersionRange { api_key: entry.key.code(), min_version, max_version })
    });
    ApiVersionsResponse {
        error_code: ErrorCode::None,
        api_keys: api_keys.collect(),
        ..ApiVersionsResponse::default()
    }
}

/// Options that give up soon.
pub fn hasty() -> client::ClientOptions {
    let seconds = std::time::Duration::from_secs;
    client::ClientOptions {
        connect_timeout: seconds(2),
        request_timeout: seconds(5),
        retry_timeout: seconds(5),
        retry_backoff: std::time::Duration::from_millis(1),
        ..client::ClientOptions::default()
    }
}
