//! Values that are more than a number or a name.

/// The address of a gateway, `host:port`.
///
/// # Errors
/// If none was given, or one that is not `ws://host:port`.
pub fn address(url: Option<&str>) -> Result<String, String> {
    let Some(url) = url else {
        return Err(
            "no gateway: give it as ws://host:port, on the command line or as `url` in the file".into()
        );
    };
    if url.starts_with("wss://") || url.starts_with("https://") {
        return Err(format!(
            "{url}: these clients speak no TLS; give what stands behind it, as ws://host:port"
        ));
    }
    let address = url.strip_prefix("ws://").map(|rest| rest.trim_end_matches('/'));
    let port = address.and_then(|address| address.rsplit_once(':')).map(|(_, port)| port.parse::<u16>());
    match (address, port) {
        (Some(address), Some(Ok(_))) => Ok(address.to_owned()),
        _ => Err(format!("{url}: give the gateway as ws://host:port")),
    }
}

/// Bytes a second, from such as `2KB/s`.
///
/// # Errors
/// If it is something else.
pub fn rate(text: &str) -> Result<u64, String> {
    let wrong = || "give bytes a second, such as 500B/s, 2KB/s or 1MB/s".to_owned();
    let amount = text.trim().strip_suffix("/s").ok_or_else(wrong)?.trim();
    let unit = amount.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
    let (number, unit) = amount.split_at(unit);
    let factor = match unit.trim().to_ascii_lowercase().as_str() {
        "b" => 1.0,
        "kb" => 1e3,
        "mb" => 1e6,
        _ => return Err(wrong()),
    };
    let bytes = number.parse::<f64>().map_err(|_| wrong())? * factor;
    if (1.0..=1e10).contains(&bytes) { Ok(bytes.round() as u64) } else { Err(wrong()) }
}
