//! The one place that asks for the time.

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix milliseconds; 0 on a clock set before 1970.
#[must_use]
pub fn now_ms() -> i64 {
    #[cfg(feature = "testing")]
    if let Some(now) = crate::testing::virtual_time::now() {
        return now;
    }
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| i64::try_from(d.as_millis()).unwrap_or(i64::MAX))
}
