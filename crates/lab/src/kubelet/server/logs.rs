//! Container logs: CRI files in, what `kubectl logs` prints out.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::mpsc;

use super::{Answer, Query, text};
use crate::kubelet::{PodView, Shared, launch};

/// How long a follower waits for more at the end of the file.
const POLL: Duration = Duration::from_millis(100);
/// Bytes read at once.
const CHUNK: usize = 64 << 10;
/// A longer line is given out in pieces.
const MAX_LINE: usize = 256 << 10;

/// What of a log is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    follow: bool,
    previous: bool,
    timestamps: bool,
    tail: Option<u64>,
    since: Option<Timestamp>,
    limit: Option<u64>,
    stream: Option<String>,
}

impl Wanted {
    /// Reads the query of a log request.
    pub fn parse(query: &Query, now: Timestamp) -> Result<Self, String> {
        let number = |name: &str| match query.get(name).filter(|text| !text.is_empty()) {
            None => Ok(None),
            Some(text) => text
                .parse::<u64>()
                .map(Some)
                .map_err(|_| format!("{name}: {text:?} is not a non-negative number")),
        };
        let seconds = number("sinceSeconds")?;
        let since = match (
            seconds,
            query.get("sinceTime").filter(|text| !text.is_empty()),
        ) {
            (Some(seconds), _) => {
                let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
                now.checked_sub(SignedDuration::from_secs(seconds)).ok()
            }
            (None, Some(time)) => Some(
                time.parse()
                    .map_err(|error| format!("sinceTime: {time:?}: {error}"))?,
            ),
            (None, None) => None,
        };
        let stream = query.get("stream").map(str::to_lowercase);
        Ok(Self {
            follow: query.is_set("follow"),
            previous: query.is_set("previous"),
            timestamps: query.is_set("timestamps"),
            tail: number("tailLines")?,
            since,
            limit: number("limitBytes")?,
            stream: stream.filter(|stream| stream == "stdout" || stream == "stderr"),
        })
    }
}

/// Answers a log request.
pub async fn answer(
    shared: &Arc<Shared>,
    view: &PodView,
    container: &str,
    query: &Query,
) -> Answer {
    let bad = |message: String| text(StatusCode::BAD_REQUEST, message);
    let wanted = match Wanted::parse(query, Timestamp::now()) {
        Ok(wanted) => wanted,
        Err(message) => return bad(message),
    };
    let pod = view.pod.metadata.name.clone().unwrap_or_default();
    if super::super::state::find(&view.pod, container).is_none() {
        return bad(format!("container {container} is not valid for pod {pod}"));
    }
    let attempts = view
        .containers
        .get(container)
        .map_or(0, |(attempts, _)| *attempts);
    let attempt = if wanted.previous {
        attempts.checked_sub(2)
    } else {
        attempts.checked_sub(1)
    };
    let Some(attempt) = attempt else {
        return bad(match wanted.previous {
            true => format!("previous terminated container {container:?} in pod {pod:?} not found"),
            false => format!(
                "container {container:?} in pod {pod:?} is waiting to start: {}",
                waiting(view, container)
            ),
        });
    };
    let path = launch::log(&view.dir, container, attempt);
    let file = match std::fs::File::open(&path) {
        Ok(file) => file,
        Err(error) => {
            return bad(format!(
                "unable to retrieve container logs of {container:?} in pod {pod:?}: {error}"
            ));
        }
    };
    let (sender, receiver) = mpsc::channel::<Bytes>(4);
    let (shared, key) = (shared.clone(), super::super::key(&view.pod));
    let (uid, container) = (view.pod.metadata.uid.clone(), container.to_owned());
    let alive = move || {
        shared.pod(&key.0, &key.1).is_some_and(|view| {
            let now = view.containers.get(&container);
            view.pod.metadata.uid == uid && now == Some(&(attempt + 1, true))
        })
    };
    tokio::spawn(async move {
        if let Err(error) = send(file, wanted, alive, sender).await {
            tracing::debug!(%error, path = %path.display(), "reading a log");
        }
    });
    let frames = futures::stream::unfold(receiver, |mut receiver| async {
        let bytes = receiver.recv().await?;
        Some((Ok::<_, io::Error>(Frame::data(bytes)), receiver))
    });
    let mut answer = Response::new(StreamBody::new(frames).boxed_unsync());
    let plain = http::HeaderValue::from_static("text/plain");
    answer
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, plain);
    answer
}

/// Why a container has not started, as its status says.
fn waiting(view: &PodView, container: &str) -> String {
    let status = view.pod.status.as_ref();
    let statuses = status.into_iter().flat_map(|status| {
        let init = status.init_container_statuses.iter().flatten();
        init.chain(status.container_statuses.iter().flatten())
    });
    let mut named = statuses.filter(|status| status.name == container);
    let reason = named
        .next()
        .and_then(|status| status.state.as_ref()?.waiting.as_ref()?.reason.clone());
    reason.unwrap_or_else(|| "ContainerCreating".to_owned())
}

/// Reads a log to its end, or for as long as `alive` where it is followed.
async fn send(
    mut file: std::fs::File,
    wanted: Wanted,
    alive: impl Fn() -> bool,
    sender: mpsc::Sender<Bytes>,
) -> io::Result<()> {
    if let Some(tail) = wanted.tail {
        let start = tail_start(&mut file, tail)?;
        file.seek(SeekFrom::Start(start))?;
    }
    let mut left = wanted.limit.unwrap_or(u64::MAX);
    let mut lines = Lines::default();
    let mut chunk = vec![0; CHUNK];
    loop {
        // Asked before the read, so that nothing written before the end is missed.
        let more_may_come = wanted.follow && alive();
        let count = file.read(&mut chunk)?;
        let mut out = Vec::new();
        lines.take(&chunk[..count], &wanted, &mut out);
        if !out.is_empty() {
            out.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            left -= out.len() as u64;
            if sender.send(out.into()).await.is_err() {
                return Ok(());
            }
        }
        if left == 0 || (count == 0 && !more_may_come) {
            return Ok(());
        }
        if count == 0 {
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = sender.closed() => return Ok(()),
            }
        }
    }
}

/// Where the last `count` lines of a file begin.
fn tail_start(file: &mut std::fs::File, count: u64) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let size = end;
    let mut left = count;
    let mut block = vec![0; CHUNK];
    while end > 0 {
        let start = end.saturating_sub(CHUNK as u64);
        let length = usize::try_from(end - start).unwrap_or(CHUNK);
        let block = &mut block[..length];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(block)?;
        for (at, byte) in block.iter().enumerate().rev() {
            let position = start + at as u64;
            if *byte == b'\n' && position + 1 != size {
                if left <= 1 {
                    return Ok(if left == 0 { size } else { position + 1 });
                }
                left -= 1;
            }
        }
        end = start;
    }
    Ok(if count == 0 { size } else { 0 })
}

/// Cuts CRI lines and keeps what was not a whole line yet.
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    fn take(&mut self, bytes: &[u8], wanted: &Wanted, out: &mut Vec<u8>) {
        self.rest.extend_from_slice(bytes);
        let mut begin = 0;
        while let Some(length) = self.rest[begin..].iter().position(|byte| *byte == b'\n') {
            write_line(&self.rest[begin..begin + length], wanted, out);
            begin += length + 1;
        }
        self.rest.drain(..begin);
        if self.rest.len() > MAX_LINE {
            out.append(&mut self.rest);
        }
    }
}

/// One CRI line, `TIME STREAM FLAGS CONTENT`, as it is printed; a line that is none is skipped.
fn write_line(line: &[u8], wanted: &Wanted, out: &mut Vec<u8>) {
    let mut parts = line.splitn(4, |byte| *byte == b' ');
    let (Some(time), Some(stream), Some(flags)) = (parts.next(), parts.next(), parts.next()) else {
        return;
    };
    let content = parts.next().unwrap_or_default();
    let time = String::from_utf8_lossy(time);
    if let Some(since) = wanted.since
        && time.parse::<Timestamp>().is_ok_and(|time| time < since)
    {
        return;
    }
    if wanted
        .stream
        .as_ref()
        .is_some_and(|wanted| wanted.as_bytes() != stream)
    {
        return;
    }
    if wanted.timestamps {
        out.extend_from_slice(time.as_bytes());
        out.push(b' ');
    }
    out.extend_from_slice(content);
    if flags.split(|byte| *byte == b':').next() != Some(b"P") {
        out.push(b'\n');
    }
}

/// The end of a log, for termination messages: at most so many lines and bytes.
pub fn last_lines(path: &Path, lines: u64, bytes: usize) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        let start = tail_start(&mut file, lines)?;
        file.seek(SeekFrom::Start(start))?;
        let mut raw = Vec::new();
        file.take(1 << 20).read_to_end(&mut raw)?;
        let mut out = Vec::new();
        Lines::default().take(&raw, &Wanted::default(), &mut out);
        Ok(out)
    };
    let out = read().unwrap_or_default();
    let start = out.len().saturating_sub(bytes);
    String::from_utf8_lossy(&out[start..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
2026-01-01T00:00:00.000000001Z stdout F one\n\
2026-01-01T00:00:01Z stderr F two\n\
2026-01-01T00:00:02Z stdout P thr\n\
2026-01-01T00:00:02Z stdout F ee\n\
2026-01-01T00:00:03Z stdout F \n";

    async fn printed(query: &str) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, LOG).unwrap();
        let now = "2026-01-01T00:00:04Z".parse().unwrap();
        let wanted = Wanted::parse(&Query::parse(Some(query)), now).unwrap();
        let (sender, mut receiver) = mpsc::channel(4);
        let file = std::fs::File::open(&path).unwrap();
        tokio::spawn(send(file, wanted, || false, sender));
        let mut out = Vec::new();
        while let Some(bytes) = receiver.recv().await {
            out.extend(bytes);
        }
        String::from_utf8(out).unwrap()
    }

    #[tokio::test]
    async fn logs_are_cut_as_asked() {
        for (query, want) in [
            ("", "one\ntwo\nthree\n\n"),
            ("tailLines=0", ""),
            ("tailLines=2", "ee\n\n"),
            ("tailLines=100", "one\ntwo\nthree\n\n"),
            ("limitBytes=5", "one\nt"),
            ("sinceSeconds=3", "two\nthree\n\n"),
            ("sinceTime=2026-01-01T00:00:03Z", "\n"),
            ("stream=Stderr", "two\n"),
            ("timestamps=true&tailLines=1", "2026-01-01T00:00:03Z \n"),
        ] {
            assert_eq!(printed(query).await, want, "{query}");
        }
    }

    #[tokio::test]
    async fn a_follower_gets_what_comes_and_the_end() {
        use std::io::Write;
        use std::sync::atomic::{AtomicBool, Ordering};
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        let mut log = std::fs::File::create(&path).unwrap();
        let alive = Arc::new(AtomicBool::new(true));
        let wanted = Wanted {
            follow: true,
            ..Wanted::default()
        };
        let (sender, mut receiver) = mpsc::channel(4);
        let file = std::fs::File::open(&path).unwrap();
        let seen = alive.clone();
        tokio::spawn(send(
            file,
            wanted,
            move || seen.load(Ordering::Relaxed),
            sender,
        ));
        log.write_all(b"2026-01-01T00:00:00Z stdout F late\n")
            .unwrap();
        assert_eq!(&receiver.recv().await.unwrap()[..], b"late\n");
        alive.store(false, Ordering::Relaxed);
        assert!(receiver.recv().await.is_none());
    }

    #[test]
    fn bad_numbers_are_refused() {
        let refused = Wanted::parse(&Query::parse(Some("tailLines=x")), Timestamp::now());
        assert_eq!(
            refused.unwrap_err(),
            "tailLines: \"x\" is not a non-negative number"
        );
    }

    #[test]
    fn the_end_of_a_log_stands_for_a_missing_message() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        std::fs::write(&path, LOG).unwrap();
        assert_eq!(last_lines(&path, 80, 6), "hree\n\n");
        assert_eq!(last_lines(&dir.path().join("none"), 80, 6), "");
    }
}
