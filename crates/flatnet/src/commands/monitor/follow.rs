//! One node's agent, read for as long as there is one.

use std::path::{Path, PathBuf};
use std::time::Duration;

use flows::Line;
use pods::wire::{Answer, Request};
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::mpsc::Sender;
use tokio::time::{sleep, timeout};

/// How often an agent that is away is asked for.
const AGAIN: Duration = Duration::from_millis(300);
/// An agent writes something at least so often.
const QUIET: Duration = Duration::from_secs(60);

/// What an agent tells, or what becomes of it.
#[derive(Debug)]
pub(super) enum Told {
    /// A line.
    Line(Line),
    /// It answers, and why it sees nothing, where that is so.
    Here(Option<String>),
    /// It does not answer any more.
    Away(String),
    /// It answers again.
    Back,
}

/// What an agent answers before the lines.
#[derive(Deserialize)]
struct Begin {
    run: u64,
    problem: Option<String>,
}

/// Follows one agent through its restarts until nobody listens, from what it keeps of the past on.
pub(super) async fn follow(node: String, socket: PathBuf, tell: Sender<(String, Told)>) {
    let mut reader = Reader {
        node,
        socket,
        place: None,
        away: false,
        tell,
    };
    loop {
        let Err(why) = reader.read().await else {
            return;
        };
        if !reader.away {
            reader.away = true;
            if !reader.tell(Told::Away(why)).await {
                return;
            }
        }
        sleep(AGAIN).await;
    }
}

struct Reader {
    node: String,
    socket: PathBuf,
    /// The agent's run, and the number of the event that is wanted next.
    place: Option<(u64, u64)>,
    away: bool,
    tell: Sender<(String, Told)>,
}

impl Reader {
    /// False where nobody listens.
    async fn tell(&self, told: Told) -> bool {
        self.tell.send((self.node.clone(), told)).await.is_ok()
    }

    /// Reads until nobody listens; the error says why the agent is away.
    async fn read(&mut self) -> Result<(), String> {
        let mut lines = BufReader::new(ask(&self.socket, self.place).await?);
        let mut line = Vec::new();
        next(&mut lines, &mut line).await?;
        let begin = match serde_json::from_slice(&line).map_err(not_understood)? {
            Answer::Ok(begin) => serde_json::from_value::<Begin>(begin).map_err(not_understood)?,
            Answer::Error(error) => return Err(error.to_string()),
        };
        if self.place.is_none_or(|(run, _)| run != begin.run) {
            self.place = Some((begin.run, 0));
        }
        if std::mem::take(&mut self.away) && !self.tell(Told::Back).await {
            return Ok(());
        }
        if !self.tell(Told::Here(begin.problem)).await {
            return Ok(());
        }
        loop {
            next(&mut lines, &mut line).await?;
            if line.is_empty() {
                continue;
            }
            let line: Line = serde_json::from_slice(&line).map_err(not_understood)?;
            if let Line::Event { number, .. } = &line {
                self.place = Some((begin.run, number + 1));
            }
            if !self.tell(Told::Line(line)).await {
                return Ok(());
            }
        }
    }
}

async fn ask(socket: &Path, place: Option<(u64, u64)>) -> Result<UnixStream, String> {
    let away = |error: std::io::Error| format!("its agent does not answer: {error}");
    let mut stream = UnixStream::connect(socket).await.map_err(away)?;
    let request =
        serde_json::to_vec(&Request::Drops { place, past: true }).map_err(not_understood)?;
    stream.write_all(&request).await.map_err(away)?;
    stream.shutdown().await.map_err(away)?;
    Ok(stream)
}

/// The next line, without its end.
async fn next(lines: &mut BufReader<UnixStream>, line: &mut Vec<u8>) -> Result<(), String> {
    line.clear();
    match timeout(QUIET, lines.read_until(b'\n', line)).await {
        Ok(Ok(_)) if line.ends_with(b"\n") => {
            line.pop();
            Ok(())
        }
        Ok(Ok(_)) => Err("its agent has ended".to_owned()),
        Ok(Err(error)) => Err(format!("its agent has ended: {error}")),
        Err(_) => Err("its agent says nothing".to_owned()),
    }
}

fn not_understood(error: serde_json::Error) -> String {
    format!("its agent is not understood: {error}")
}
