//! What an operator asks.

use super::{Services, api};
use crate::http::{describe, warnings};
use chronos_sql::{SqlError, SqlState};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl api::admin_server::Admin for Services {
    async fn status(
        &self,
        request: Request<api::StatusRequest>,
    ) -> Result<Response<api::StatusResponse>, Status> {
        self.role(&request)?;
        let status = self.gateway.status().await;
        let status = status.ok_or_else(|| {
            super::status(SqlError::new(SqlState::CANNOT_CONNECT_NOW, "the node has stopped"))
        })?;
        let json = describe(&status, self.gateway.is_ready(), &self.auth);
        Ok(Response::new(api::StatusResponse {
            role: status.role.to_string(),
            term: status.term,
            applied_index: status.engine.groups.first().map_or(0, |group| group.applied),
            timers_pending: status.engine.timers_pending,
            ready: json["ready"] == true,
            warnings: warnings(&status, &self.auth),
            json: json.to_string(),
        }))
    }
}
