//! One request on its way through the file of its API, and how that file answers.
//!
//! Called by: every API's file. Invariant: an answer carries the correlation id and version of its
//! request. Does not know any API.

use std::future::Future;
use std::net::SocketAddr;

use client_protocol::api::Scope;
use client_protocol::messages::Message;
use client_protocol::{CorrelationId, EncodedFrame, RequestHeader, encode_response};
use tracing::error;

use crate::response::{Answer, Dispatch, Piece, Response};

/// What is known of one connection.
pub struct Session {
    /// Who connected.
    pub peer: SocketAddr,
    /// To which address of ours.
    pub local: SocketAddr,
    /// Clients' listener or brokers'.
    pub scope: Scope,
}

/// One request.
pub struct Call<'a> {
    /// The connection it came by.
    pub session: &'a Session,
    /// The version that it and its answer have.
    pub version: i16,
    /// What the client calls itself; a stranger's text.
    pub client_id: Option<&'a str>,
    correlation_id: CorrelationId,
}

/// What an answer needs of its request once the request is gone.
#[derive(Clone, Copy, Debug)]
pub struct ReplyTo {
    version: i16,
    correlation_id: CorrelationId,
}

impl<'a> Call<'a> {
    /// The request with `header` on `session`.
    pub fn new(session: &'a Session, header: &'a RequestHeader) -> Self {
        Self {
            session,
            version: header.version,
            client_id: header.client_id.as_deref(),
            correlation_id: header.correlation_id,
        }
    }

    /// Where the answer goes.
    pub fn reply_to(&self) -> ReplyTo {
        ReplyTo { version: self.version, correlation_id: self.correlation_id }
    }

    /// Answers at once.
    pub fn respond<M: Message>(&self, response: &M) -> Dispatch {
        Dispatch::Now(self.reply_to().answer(response))
    }

    /// Answers when `response` is ready; later requests of the connection are taken in meanwhile.
    pub fn respond_later<M, F>(&self, response: F) -> Dispatch
    where
        M: Message + Send,
        F: Future<Output = M> + Send + 'static,
    {
        let reply_to = self.reply_to();
        Dispatch::Later(Box::pin(async move { reply_to.answer(&response.await) }))
    }
}

impl ReplyTo {
    /// The answer that carries `response`, which holds no records of the caller's.
    pub fn answer<M: Message>(self, response: &M) -> Answer {
        match self.encode(response) {
            Some(frame) => Answer::Respond(Response::from_bytes(frame.bytes)),
            None => Answer::Close("the answer does not fit the version"),
        }
    }

    /// The answer that carries `response` with `records` at its splice points, in their order.
    /// Each item of `records` is the run of pieces of one splice.
    pub fn answer_spliced<M: Message>(
        self,
        response: &M,
        records: impl IntoIterator<Item = Vec<Piece>>,
    ) -> Answer {
        let Some(frame) = self.encode(response) else {
            return Answer::Close("the answer does not fit the version");
        };
        let mut rest = frame.bytes;
        let mut taken = 0;
        let mut pieces = Vec::with_capacity(2 * frame.splices.len() + 1);
        for (splice, run) in frame.splices.iter().zip(records) {
            let length: usize = run.iter().map(Piece::length).sum();
            assert_eq!(length, splice.length, "records differ from what the header says");
            pieces.push(Piece::Bytes(rest.split_to(splice.position - taken)));
            taken = splice.position;
            pieces.extend(run);
        }
        pieces.push(Piece::Bytes(rest));
        Answer::Respond(Response::from_pieces(pieces))
    }

    fn encode<M: Message>(self, response: &M) -> Option<EncodedFrame> {
        encode_response(self.correlation_id, self.version, response)
            .inspect_err(|error| {
                error!(api = M::KEY.name(), version = self.version, "cannot encode: {error}");
            })
            .ok()
    }
}
