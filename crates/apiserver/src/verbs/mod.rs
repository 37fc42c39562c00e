//! The verbs of the API on any kind.

pub mod decode;
pub mod delete;
pub mod meta;
pub mod patch;
pub mod pods;
pub mod read;
pub mod scale;
pub mod watch;
pub mod write;

use std::sync::Arc;

use bytes::Bytes;
use objects::{Kind, Object, Status};

use crate::accept::Form;
use crate::auth::User;
use crate::context::Ctx;
use crate::failure::Failure;
use crate::output::{self, Answer, Include};
use crate::request::{Info, Query};

/// One request for a kind.
pub struct Call {
    /// The server.
    pub ctx: Ctx,
    /// What is asked.
    pub info: Info,
    /// Its query.
    pub query: Query,
    /// Its kind.
    pub kind: Arc<Kind>,
    /// Who asks.
    pub user: User,
    /// Form of the answer.
    pub form: Form,
    /// Table rows carry this much.
    pub include: Include,
    /// Line breaks in the answer.
    pub pretty: bool,
    /// `Content-Type`, without parameters.
    pub content_type: String,
    /// `User-Agent`.
    pub user_agent: String,
    /// The body.
    pub body: Bytes,
}

/// The result of a call.
pub type Reply = Result<Answer, Failure>;

impl Call {
    /// 404 of the object asked for.
    pub fn not_found(&self) -> Status {
        Status::not_found(&self.info.group, &self.info.resource, &self.info.name)
    }

    /// Name of the field manager: as given, or from the user agent.
    pub fn manager(&self) -> String {
        let given = self.query.get("fieldManager");
        if given.is_empty() {
            let program = self.user_agent.split('/').next().unwrap_or_default();
            if program.is_empty() {
                "unknown".into()
            } else {
                program.to_owned()
            }
        } else {
            given.to_owned()
        }
    }

    /// True for `dryRun=All`.
    pub fn dry_run(&self) -> Result<bool, Status> {
        match self.query.all("dryRun") {
            [] => Ok(false),
            values if values.iter().all(|v| v == "All") => Ok(true),
            values => Err(Status::bad_request(format!(
                "invalid dryRun value {values:?}: only \"All\" is known"
            ))),
        }
    }

    /// The object in the form asked for.
    pub fn answer(&self, code: u16, object: &Object) -> Reply {
        let shown = output::one(&self.kind, object, self.form, self.include)?;
        Ok(output::value(code, &shown, self.pretty))
    }
}
