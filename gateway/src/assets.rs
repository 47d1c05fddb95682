//! Pages: the files of `web/`, embedded in the binary, with strong entity tags and a strict content policy.

use rust_embed::RustEmbed;
use warp::http::{HeaderMap, HeaderValue, StatusCode, header};

#[derive(RustEmbed)]
#[folder = "web/"]
#[exclude = "test/*"]
#[exclude = "browser/*"]
#[exclude = "*.json"]
#[exclude = "*.md"]
struct Web;

const POLICY: &str = "default-src 'self'; connect-src 'self'; img-src 'self' data:; frame-ancestors 'self'; \
                      base-uri 'none'; form-action 'none'";

fn media_type(path: &str) -> &'static str {
    match path.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("js" | "mjs") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        Some("ts") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// The file that a path names; a folder's is its `index.html`.
#[must_use]
pub fn page(path: &str, headers: &HeaderMap) -> warp::reply::Response {
    let name = path.trim_start_matches('/');
    let name =
        if name.is_empty() || name.ends_with('/') { format!("{name}index.html") } else { name.to_owned() };
    let Some(file) = Web::get(&name) else {
        let mut reply = warp::reply::Response::new(
            format!("there is nothing at {path:.100}; the board is at /\n").into(),
        );
        *reply.status_mut() = StatusCode::NOT_FOUND;
        return reply;
    };
    let hash = file.metadata.sha256_hash();
    let etag: String = std::iter::once('"'.to_string())
        .chain(hash[..16].iter().map(|b| format!("{b:02x}")))
        .chain(std::iter::once('"'.to_string()))
        .collect();
    let same = headers.get(header::IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == etag.as_bytes());
    let body = if same { Vec::new() } else { file.data.into_owned() };
    let mut reply = warp::reply::Response::new(body.into());
    if same {
        *reply.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let out = reply.headers_mut();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type(&name)));
    out.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    out.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    out.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        out.insert(header::ETAG, etag);
    }
    reply
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_pages_need_is_embedded() {
        let files: Vec<String> = Web::iter().map(String::from).collect();
        assert!(
            files.iter().any(|f| f == "index.html") && files.iter().any(|f| f == "client/client.js"),
            "{files:?}"
        );
        let foreign =
            |f: &&String| f.starts_with("browser/") || f.starts_with("test/") || f.contains("node_modules");
        assert_eq!(files.iter().find(foreign), None);
    }

    #[test]
    fn a_page_has_its_type_tag_and_policy() {
        let reply = page("/", &HeaderMap::new());
        assert_eq!(reply.status(), StatusCode::OK);
        assert_eq!(reply.headers()[header::CONTENT_TYPE], "text/html; charset=utf-8");
        assert!(
            reply.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().contains("default-src 'self'")
        );
        let mut again = HeaderMap::new();
        again.insert(header::IF_NONE_MATCH, reply.headers()[header::ETAG].clone());
        assert_eq!(page("/", &again).status(), StatusCode::NOT_MODIFIED);
        assert_eq!(page("/../Cargo.toml", &HeaderMap::new()).status(), StatusCode::NOT_FOUND);
    }
}
