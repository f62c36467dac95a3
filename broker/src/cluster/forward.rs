//! Requests to the controller, wherever it is: this broker, another one, or for a moment nobody.
//!
//! Called by: `handle`, `alters`. Calls: `peers`, the loop in `office`.
//! Invariant: within its time limit a request is tried until a controller has taken it; one that may
//! have been taken is repeated only if doing it twice is doing it once.

use std::sync::Arc;
use std::time::Duration;

use broker_core::controller::Answer;
use broker_core::ids::BrokerId;
use broker_core::image::Image;
use client_protocol::ErrorCode;
use client_protocol::messages::{
    AlterPartitionRequest, ControlledShutdownRequest, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteTopicsRequest, ElectLeadersRequest, Request as WireRequest,
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, timeout};

use super::office::Request;
use super::peers::{AskError, Asking, Peers};
use super::requests::{self, Ask};

/// Between two attempts while there is no controller.
const PAUSE: Duration = Duration::from_millis(50);

/// A request that the controller answers, and how it is asked and answered here.
pub(super) trait ForController: WireRequest + Clone + Send + Sync + 'static {
    /// The version between brokers.
    const VERSION: i16;
    /// Doing it twice is doing it once.
    const IS_REPEATABLE: bool;

    /// Asks the loop of this broker.
    fn ask(&self, image: &Image) -> Result<Ask, ErrorCode>;

    /// The loop's answer; `None`: it gave none.
    fn respond(&self, image: &Image, answer: Option<Answer>) -> Self::Response;

    /// All of it is refused.
    fn refuse(&self, image: &Image, error: ErrorCode) -> Self::Response;

    /// The broker that was asked is not the controller: nothing of the request was done.
    fn is_not_controller(response: &Self::Response) -> bool;
}

/// The way to the controller.
#[derive(Clone)]
pub(super) struct Forward {
    pub(super) broker: BrokerId,
    pub(super) images: watch::Receiver<Arc<Image>>,
    pub(super) office: mpsc::Sender<Request>,
    pub(super) peers: Arc<Peers>,
}

impl Forward {
    /// Asks the controller within `limit`.
    pub(super) async fn ask<R: ForController>(self, request: R, limit: Duration) -> R::Response {
        let deadline = Instant::now() + limit;
        loop {
            let image = Arc::clone(&self.images.borrow());
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return request.refuse(&image, ErrorCode::RequestTimedOut);
            }
            if let Some(response) = self.ask_once(&request, &image, left).await
                && !R::is_not_controller(&response)
            {
                return response;
            }
            sleep(PAUSE.min(left)).await;
        }
    }

    /// `None`: nothing was done, or repeating does no harm.
    async fn ask_once<R: ForController>(
        &self,
        request: &R,
        image: &Arc<Image>,
        left: Duration,
    ) -> Option<R::Response> {
        let controller = image.controller()?.broker;
        if controller == self.broker {
            let asked = timeout(left, self.ask_here(request, image)).await;
            return match asked {
                Ok(response) => Some(response),
                Err(_) => Some(request.refuse(image, ErrorCode::RequestTimedOut)),
            };
        }
        let asking = match R::IS_REPEATABLE {
            true => Asking::again(request, R::VERSION),
            false => Asking::once(request, R::VERSION),
        };
        match self.peers.ask(image, controller, asking, left).await {
            Ok(response) => Some(response),
            Err(AskError::NoAnswer(error)) if !R::IS_REPEATABLE => {
                tracing::warn!(%controller, %error, "the controller did not answer");
                Some(request.refuse(image, ErrorCode::RequestTimedOut))
            }
            Err(error) => {
                tracing::debug!(%controller, %error, "the controller did not answer");
                None
            }
        }
    }

    /// Asks the loop of this broker, which answers NOT_CONTROLLER if it is not in office.
    pub(super) async fn ask_here<R: ForController>(
        &self,
        request: &R,
        image: &Image,
    ) -> R::Response {
        let ask = match request.ask(image) {
            Ok(ask) => ask,
            Err(error) => return request.refuse(image, error),
        };
        let (answer, answered) = oneshot::channel();
        match self.office.try_send(Request { ask, answer }) {
            Ok(()) => match answered.await {
                // The session ended while it was under way.
                Err(_) if !R::IS_REPEATABLE => request.refuse(image, ErrorCode::RequestTimedOut),
                answer => request.respond(image, answer.ok()),
            },
            Err(_) => request.refuse(image, ErrorCode::NotController),
        }
    }
}

impl ForController for CreateTopicsRequest {
    const VERSION: i16 = 7;
    const IS_REPEATABLE: bool = false;

    fn ask(&self, _: &Image) -> Result<Ask, ErrorCode> {
        requests::new_topics(self).map_err(|_| ErrorCode::UnknownServerError)
    }

    fn respond(&self, _: &Image, answer: Option<Answer>) -> Self::Response {
        requests::created(self, answer)
    }

    fn refuse(&self, _: &Image, error: ErrorCode) -> Self::Response {
        requests::none_created(self, error, error.message())
    }

    fn is_not_controller(response: &Self::Response) -> bool {
        response.topics.iter().any(|topic| topic.error_code == ErrorCode::NotController)
    }
}

impl ForController for CreatePartitionsRequest {
    const VERSION: i16 = 3;
    const IS_REPEATABLE: bool = false;

    fn ask(&self, _: &Image) -> Result<Ask, ErrorCode> {
        Ok(requests::more_partitions(self))
    }

    fn respond(&self, _: &Image, answer: Option<Answer>) -> Self::Response {
        requests::grown(self, answer)
    }

    fn refuse(&self, _: &Image, error: ErrorCode) -> Self::Response {
        let mut response = requests::grown(self, None);
        for result in &mut response.results {
            result.error_code = error;
            result.error_message = Some(error.message().to_owned());
        }
        response
    }

    fn is_not_controller(response: &Self::Response) -> bool {
        response.results.iter().any(|topic| topic.error_code == ErrorCode::NotController)
    }
}

impl ForController for ElectLeadersRequest {
    const VERSION: i16 = 2;
    const IS_REPEATABLE: bool = true;

    fn ask(&self, _: &Image) -> Result<Ask, ErrorCode> {
        requests::elections(self)
    }

    fn respond(&self, _: &Image, answer: Option<Answer>) -> Self::Response {
        requests::elected(answer)
    }

    fn refuse(&self, _: &Image, error: ErrorCode) -> Self::Response {
        requests::not_elected(error)
    }

    fn is_not_controller(response: &Self::Response) -> bool {
        response.error_code == ErrorCode::NotController
    }
}

impl ForController for DeleteTopicsRequest {
    const VERSION: i16 = 6;
    const IS_REPEATABLE: bool = false;

    fn ask(&self, image: &Image) -> Result<Ask, ErrorCode> {
        Ok(requests::deletions(&requests::named(self, image)))
    }

    fn respond(&self, image: &Image, answer: Option<Answer>) -> Self::Response {
        requests::deleted(requests::named(self, image), answer)
    }

    fn refuse(&self, image: &Image, error: ErrorCode) -> Self::Response {
        let mut response = requests::deleted(requests::named(self, image), None);
        for result in &mut response.responses {
            result.error_code = error;
            result.error_message = Some(error.message().to_owned());
        }
        response
    }

    fn is_not_controller(response: &Self::Response) -> bool {
        response.responses.iter().any(|topic| topic.error_code == ErrorCode::NotController)
    }
}

impl ForController for AlterPartitionRequest {
    const VERSION: i16 = 3;
    const IS_REPEATABLE: bool = true;

    fn ask(&self, _: &Image) -> Result<Ask, ErrorCode> {
        Ok(requests::alter(self))
    }

    fn respond(&self, _: &Image, answer: Option<Answer>) -> Self::Response {
        requests::altered(answer)
    }

    fn refuse(&self, _: &Image, error: ErrorCode) -> Self::Response {
        requests::not_altered(error)
    }

    fn is_not_controller(response: &Self::Response) -> bool {
        response.error_code == ErrorCode::NotController
    }
}

impl ForController for ControlledShutdownRequest {
    const VERSION: i16 = 3;
    const IS_REPEATABLE: bool = true;

    fn ask(&self, _: &Image) -> Result<Ask, ErrorCode> {
        let epoch = broker_core::ids::BrokerEpoch::new(self.broker_epoch);
        Ok(Ask::ShutDown { broker: self.broker_id, epoch })
    }

    fn respond(&self, _: &Image, answer: Option<Answer>) -> Self::Response {
        requests::shut_down(answer)
    }

    fn refuse(&self, _: &Image, error: ErrorCode) -> Self::Response {
        requests::shut_down(Some(Answer::ShutDown(Err(error))))
    }

    fn is_not_controller(response: &Self::Response) -> bool {
        response.error_code == ErrorCode::NotController
    }
}

#[cfg(test)]
mod tests;
