//! The keys and types of messages: numbers in MessagePack, names in JSON.

macro_rules! table {
    ($(#[$doc:meta])* $name:ident: $int:ty { $($(#[$vdoc:meta])* $variant:ident = $code:literal $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr($int)]
        pub enum $name { $($(#[$vdoc])* $variant = $code,)* }

        impl $name {
            /// All.
            pub const ALL: &[Self] = &[$(Self::$variant),*];
            /// The number.
            #[must_use]
            pub fn code(self) -> $int { self as $int }
            /// The name.
            #[must_use]
            pub fn name(self) -> &'static str { match self { $(Self::$variant => $text),* } }
            /// The one with this number.
            #[must_use]
            pub fn from_code(code: i64) -> Option<Self> {
                Self::ALL.iter().copied().find(|k| i64::from(k.code()) == code)
            }
            /// The one with this name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|k| k.name() == name)
            }
        }
    };
}

table! {
    /// A key of a message. `PROTOCOL.md` says what each holds.
    Key: u8 {
        /// Message type.
        Type = 0 "t",
        /// Market id.
        Market = 1 "m",
        /// View.
        View = 2 "w",
        /// Epoch.
        Epoch = 3 "e",
        /// The seq that a delta starts from.
        Prev = 4 "p",
        /// The seq that it ends at.
        Seq = 5 "s",
        /// Times by hop.
        Times = 6 "ts",
        /// Fields of the market.
        Fields = 7 "d",
        /// Selections.
        Selections = 8 "r",
        /// Selections that leave.
        Removed = 9 "x",
        /// The last stop.
        Stop = 10 "st",
        /// Shard.
        Shard = 11 "sh",
        /// Feed state.
        Feed = 12 "f",
        /// Source.
        Source = 13 "src",
        /// Code of an error or a close.
        Code = 14 "code",
        /// Text for people.
        Why = 15 "why",
        /// Milliseconds to wait.
        Retry = 16 "retry",
        /// Whether trying again is useless.
        Fatal = 17 "fatal",
        /// Request number.
        Id = 18 "id",
        /// Where to resume from.
        From = 19 "from",
        /// Position reached.
        To = 20 "to",
        /// Gateway's clock.
        Now = 21 "now",
        /// The ping's time.
        Echo = 22 "echo",
        /// Subscriptions behind.
        Behind = 23 "behind",
        /// Oldest sign of life.
        AsOf = 24 "as",
        /// Digest.
        Digest = 25 "dg",
        /// Checksum.
        Checksum = 26 "c",
        /// Protocol version.
        Version = 27 "v",
        /// Connection id.
        Connection = 28 "conn",
        /// Heartbeat interval.
        Heartbeat = 29 "hb",
        /// Limits.
        Limits = 30 "limits",
        /// Conflation.
        Conflate = 31 "conflate",
        /// Markets.
        Markets = 32 "markets",
        /// Event.
        Event = 33 "event",
        /// Sport.
        Sport = 34 "sport",
        /// Token.
        Auth = 35 "auth",
        /// How a subscription starts.
        How = 36 "how",
        /// Whether a catalogue replaces.
        Full = 37 "full",
        /// Markets that left.
        Gone = 38 "gone",
        /// The client's clock.
        Time = 39 "time",
        /// Positions by shard.
        Shards = 40 "shards",
    }
}

table! {
    /// The type of a message.
    MessageType: u8 {
        /// Up: opens.
        Hello = 0 "hello",
        /// Up: subscribe.
        Sub = 1 "sub",
        /// Up: unsubscribe.
        Unsub = 2 "unsub",
        /// Up: a snapshot, please.
        Snapshot = 3 "snapshot",
        /// Up: ping.
        Ping = 4 "ping",
        /// Down: first message.
        Welcome = 16 "welcome",
        /// Down: subscribed.
        Ok = 17 "ok",
        /// Down: refused.
        Err = 18 "err",
        /// Down: a view of a book.
        Snap = 19 "snap",
        /// Down: a change of it.
        Delta = 20 "delta",
        /// Down: not tradable before a position.
        Stop = 21 "stop",
        /// Down: a feed's state.
        Feed = 22 "feed",
        /// Down: continuity lost.
        Gap = 23 "gap",
        /// Down: the market ended.
        Gone = 24 "gone",
        /// Down: what there is.
        Catalogue = 25 "catalogue",
        /// Down: checksum.
        Crc = 26 "crc",
        /// Down: heartbeat.
        Hb = 27 "hb",
        /// Down: about to close.
        Bye = 28 "bye",
    }
}

table! {
    /// How a subscription starts.
    How: u8 {
        /// With a snapshot.
        Snap = 0 "snap",
        /// With one delta from where the client stood.
        Delta = 1 "delta",
        /// With nothing: the client stands where the market does.
        Exact = 2 "exact",
    }
}

table! {
    /// Why something was refused.
    ErrorCode: u8 {
        /// Not readable.
        BadMessage = 0 "bad_message",
        /// Readable, but asks for what does not exist.
        BadRequest = 1 "bad_request",
        /// No such market.
        UnknownMarket = 2 "unknown_market",
        /// Not allowed.
        Forbidden = 3 "forbidden",
        /// More than the limit.
        TooManySubscriptions = 4 "too_many_subscriptions",
        /// Too often.
        RateLimited = 5 "rate_limited",
        /// The feed is not there yet.
        NotReady = 6 "not_ready",
    }
}

table! {
    /// Why a connection closes. Each has a client action in `PROTOCOL.md`.
    CloseCode: u16 {
        /// Done.
        Normal = 1000 "normal",
        /// WebSocket protocol error.
        Protocol = 1002 "protocol error",
        /// Text that is not UTF-8.
        InvalidText = 1007 "invalid text",
        /// The gateway restarts.
        Restart = 1012 "restart",
        /// The gateway is full.
        Overload = 1013 "overload",
        /// A message that can't be read, again and again.
        BadMessage = 4400 "bad message",
        /// No valid token.
        Unauthorised = 4401 "unauthorised",
        /// Origin not allowed.
        Origin = 4403 "origin",
        /// Nothing was heard.
        Idle = 4408 "idle",
        /// Another connection took over.
        Superseded = 4409 "superseded",
        /// Message too big.
        TooBig = 4413 "too big",
        /// Too many messages.
        Rate = 4429 "rate",
        /// The client could not keep up.
        Slow = 4290 "slow consumer",
    }
}

/// The names of message types by number, for codecs that write them.
pub(super) const TYPE_NAMES: &[&str] = &[
    "hello",
    "sub",
    "unsub",
    "snapshot",
    "ping",
    "",
    "",
    "",
    "",
    "",
    "",
    "",
    "",
    "",
    "",
    "",
    "welcome",
    "ok",
    "err",
    "snap",
    "delta",
    "stop",
    "feed",
    "gap",
    "gone",
    "catalogue",
    "crc",
    "hb",
    "bye",
];

/// The names of [`How`] by number.
pub(super) const HOW_NAMES: &[&str] = &["snap", "delta", "exact"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_agree() {
        for kind in MessageType::ALL {
            assert_eq!(TYPE_NAMES[usize::from(kind.code())], kind.name());
        }
        for how in How::ALL {
            assert_eq!(HOW_NAMES[usize::from(how.code())], how.name());
        }
    }

    #[test]
    fn the_protocol_document_lists_every_key_and_type() {
        let document = include_str!("../../PROTOCOL.md");
        for key in Key::ALL {
            let row = format!("| `{}` | {} |", key.name(), key.code());
            assert!(document.contains(&row), "PROTOCOL.md lacks {row}");
        }
        for kind in MessageType::ALL {
            let item = format!("`{}` {}", kind.name(), kind.code());
            assert!(
                document.contains(&item)
                    || document.contains(&format!("`{}` {}\n", kind.name(), kind.code()))
            );
        }
        for code in CloseCode::ALL {
            assert!(
                document.contains(&code.code().to_string()),
                "PROTOCOL.md lacks close code {}",
                code.code()
            );
        }
        for code in ErrorCode::ALL {
            assert!(document.contains(&format!("`{}`", code.name())), "PROTOCOL.md lacks {}", code.name());
        }
    }
}
