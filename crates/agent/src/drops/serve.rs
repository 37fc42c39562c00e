//! Readers on the socket: an answer, then a line for each event as long as they read.

use std::time::Duration;

use flows::Line;
use pods::cni::{CniError, code};
use pods::wire::Answer;
use serde::Serialize;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::{Drops, lock};

/// Events written at once.
const AT_ONCE: usize = 256;
/// A reader that takes nothing for so long is cut off.
const PATIENCE: Duration = Duration::from_secs(60);
/// An empty line is written when nothing has happened for so long: a reader that is gone is
/// noticed, and its place is free for another.
const QUIET: Duration = Duration::from_secs(1);

impl Drops {
    /// Tells a reader of events until it goes away: those from `place` on (the run and number of
    /// the next event it wants), else all that are kept where it wants the past, else new ones.
    pub(crate) async fn serve(
        &self,
        stream: &mut UnixStream,
        place: Option<(u64, u64)>,
        past: bool,
    ) -> std::io::Result<()> {
        let Ok(_reader) = self.readers.try_acquire() else {
            let error = CniError::new(code::TRY_AGAIN, "too many read events already");
            return write(stream, &[Answer::Error(error)]).await;
        };
        let problem = lock(&self.problem).clone();
        let answer = json!({ "node": self.node, "run": self.run, "problem": problem });
        write(stream, &[Answer::Ok(answer)]).await?;
        let mut wanted = match place {
            Some((run, number)) if run == self.run => number,
            // Numbers of another run say nothing: all of this one is new to the reader.
            Some(_) => 0,
            None if past => 0,
            None => lock(&self.ring).next(),
        };
        // What was pushed out before the reader came is no loss to one that never was here.
        if place.is_none() {
            wanted = lock(&self.ring).from(wanted, 0).first;
        }
        let mut next = self.next.subscribe();
        let mut live = false;
        loop {
            next.borrow_and_update();
            let batch = lock(&self.ring).from(wanted, AT_ONCE);
            wanted = batch.next();
            let mut lines = Vec::with_capacity(batch.events.len() + 1);
            lines.extend((batch.missed > 0).then_some(Line::Missed(batch.missed)));
            for (number, event) in (batch.first..).zip(&batch.events) {
                let event = (**event).clone();
                lines.push(Line::Event { number, event });
            }
            if !lines.is_empty() {
                write(stream, &lines).await?;
            } else if !live {
                live = true;
                write(stream, &[Line::Live]).await?;
            } else {
                match timeout(QUIET, next.changed()).await {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return Ok(()),
                    Err(_) => patiently(stream, b"\n").await?,
                }
            }
        }
    }
}

async fn write<T: Serialize>(stream: &mut UnixStream, lines: &[T]) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut bytes, line)?;
        bytes.push(b'\n');
    }
    patiently(stream, &bytes).await
}

async fn patiently(stream: &mut UnixStream, bytes: &[u8]) -> std::io::Result<()> {
    timeout(PATIENCE, stream.write_all(bytes))
        .await
        .map_err(|_| std::io::ErrorKind::TimedOut)?
}
