//! The gRPC client, as generated from the public .proto file.

use chronos_server::api;
use chronos_server::api::subscribe_request::{Ack, Open, Request, open::Start};
use std::net::SocketAddr;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

/// A client of the service `Events`.
pub type Events = api::events_client::EventsClient<Channel>;

/// Connects one.
pub async fn events(http: SocketAddr) -> Result<Events, Status> {
    let unavailable = |e: tonic::transport::Error| Status::unavailable(e.to_string());
    let endpoint = Endpoint::from_shared(format!("http://{http}")).map_err(unavailable)?;
    Ok(Events::new(endpoint.connect().await.map_err(unavailable)?))
}

/// An open subscription. Each acknowledgement gives its credit back.
pub struct Subscriber {
    requests: mpsc::Sender<api::SubscribeRequest>,
    responses: tonic::Streaming<api::SubscribeResponse>,
}

impl Subscriber {
    /// Opens one from the first event on; without a group if `group` is empty.
    pub async fn open(http: SocketAddr, topic: &str, group: &str, credit: u32) -> Result<Subscriber, Status> {
        let mut client = events(http).await?;
        let (requests, queue) = mpsc::channel(16);
        let start = Some(Start::Earliest(true));
        let (topic, group) = (topic.to_owned(), group.to_owned());
        // Short, so that what a killed subscriber held comes again within the test.
        let open = Open { topic, group, start, credit, ack_timeout_ms: 1000, ..Open::default() };
        let first = api::SubscribeRequest { request: Some(Request::Open(open)) };
        requests.send(first).await.map_err(|_| Status::unavailable("closed"))?;
        let stream = ReceiverStream::new(queue);
        let responses = client.subscribe(stream).await?.into_inner();
        Ok(Subscriber { requests, responses })
    }

    /// The next event.
    pub async fn next(&mut self) -> Result<api::Delivered, Status> {
        use api::subscribe_response::Response;
        loop {
            let message = self.responses.message().await?;
            let message = message.ok_or_else(|| Status::unavailable("the stream ended"))?;
            if let Some(Response::Event(event)) = message.response {
                return Ok(event);
            }
        }
    }

    /// Acknowledges an event, and takes one more.
    pub async fn ack(&mut self, event: &api::Delivered) -> Result<(), Status> {
        let positions = event.position.into_iter().collect();
        self.send(Request::Ack(Ack { positions })).await?;
        self.send(Request::Credit(1)).await
    }

    async fn send(&mut self, request: Request) -> Result<(), Status> {
        let request = api::SubscribeRequest { request: Some(request) };
        self.requests.send(request).await.map_err(|_| Status::unavailable("the stream ended"))
    }
}
