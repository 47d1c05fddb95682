//! A single HTTP request, for comparing with what `GET /v1/markets/{id}` says.

use std::fmt::Write;

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// An answer.
#[derive(Debug, Clone)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The head, as it came.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Response {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// If it is none.
    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        serde_json::from_str(&self.body).with_context(|| format!("no JSON: {:.200}", self.body))
    }
}

/// Fetches a path; `headers` are whole lines.
///
/// # Errors
/// If there is no answer.
pub async fn get(address: &str, path: &str, headers: &[&str]) -> anyhow::Result<Response> {
    let mut stream = TcpStream::connect(address).await.with_context(|| format!("connecting to {address}"))?;
    let more: String = headers.iter().map(|h| format!("{h}\r\n")).collect();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{more}\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8(answer)?;
    let Some((head, body)) = answer.split_once("\r\n\r\n") else { bail!("no HTTP answer: {answer:.200}") };
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).context("no status")?;
    let body = if head.to_lowercase().contains("transfer-encoding: chunked") {
        joined(body)?
    } else {
        body.to_owned()
    };
    Ok(Response { status, head: head.to_owned(), body })
}

fn joined(mut chunks: &str) -> anyhow::Result<String> {
    let mut body = String::new();
    loop {
        let (size, rest) = chunks.split_once("\r\n").context("a chunk without its size")?;
        let size = usize::from_str_radix(size, 16)?;
        if size == 0 {
            return Ok(body);
        }
        body.push_str(rest.get(..size).context("a chunk is cut short")?);
        chunks = rest.get(size + 2..).context("a chunk is cut short")?;
    }
}

/// A text as it may stand in a path or a query.
#[must_use]
pub fn encoded(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            safe.push(char::from(byte));
        } else {
            // A text takes whatever is written to it.
            let _ = write!(safe, "%{byte:02X}");
        }
    }
    safe
}
