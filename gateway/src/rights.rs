//! Rights: what a connection may see. Asked at every subscription, and again when a market joins a scope that the
//! connection follows.

use std::sync::Arc;

/// What a connection may see.
#[derive(Debug, Clone, Default)]
pub enum Rights {
    /// Everything.
    #[default]
    All,
    /// Markets of these events or sports only.
    Only {
        /// Event ids.
        events: Arc<[String]>,
        /// Sports.
        sports: Arc<[String]>,
    },
}

impl Rights {
    /// Whether a market of this event and sport may be seen. Where they are not known yet, only [`Rights::All`] may.
    #[must_use]
    pub fn allows(&self, _market: &str, event: &str, sport: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only { events, sports } => {
                events.iter().any(|e| e == event && !e.is_empty())
                    || sports.iter().any(|s| s == sport && !s.is_empty())
            }
        }
    }
}
