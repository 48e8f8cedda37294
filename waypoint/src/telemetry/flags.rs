//! Envoy's response flags: why an answer was not simply the upstream's. Short names stand in access
//! logs and metrics, so that people's queries go on working.

use std::ops::{BitOr, BitOrAssign};

/// A set of response flags.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Flags(u32);

macro_rules! flags {
    ($($(#[$doc:meta])+ $name:ident = $bit:literal, $short:literal;)+) => {
        impl Flags {
            $($(#[$doc])+ pub const $name: Self = Self(1 << $bit);)+

            const SHORT: &[(Self, &'static str)] = &[$((Self::$name, $short),)+];
        }
    };
}

// In the order in which they are written. Envoy writes them in the order in which it noticed them, and
// the limit of retries is noticed before the last attempt's failure is told.
flags! {
    /// It would have been tried again, but not so often.
    RETRY_LIMIT = 15, "URX";
    /// No healthy endpoint.
    NO_HEALTHY_UPSTREAM = 1, "UH";
    /// The upstream took too long.
    UPSTREAM_TIMEOUT = 2, "UT";
    /// We reset the upstream's stream.
    LOCAL_RESET = 3, "LR";
    /// The upstream reset the stream.
    UPSTREAM_RESET = 4, "UR";
    /// No connection to the upstream could be made.
    UPSTREAM_CONNECT_FAILURE = 5, "UF";
    /// The upstream's connection ended.
    UPSTREAM_CLOSED = 6, "UC";
    /// A limit of the cluster was reached.
    UPSTREAM_OVERFLOW = 7, "UO";
    /// No route.
    NO_ROUTE = 8, "NR";
    /// The request was held up on purpose.
    DELAY_INJECTED = 9, "DI";
    /// The request was answered on purpose.
    FAULT_INJECTED = 10, "FI";
    /// A rate limit was reached.
    RATE_LIMITED = 11, "RL";
    /// Policy denied it: a connection, or by an external service.
    UNAUTHORIZED = 12, "UAEX";
    /// The client went away.
    DOWNSTREAM_CLOSED = 14, "DC";
    /// Nothing moved for too long.
    IDLE_TIMEOUT = 16, "SI";
    /// The client broke the protocol.
    DOWNSTREAM_PROTOCOL_ERROR = 18, "DPE";
    /// The stream lasted longer than the route allows.
    MAX_DURATION = 19, "UMSDR";
    /// Its filter chain's configuration can't be served.
    NO_FILTER_CONFIG = 21, "NFCF";
    /// The request took too long as a whole.
    DURATION_TIMEOUT = 22, "DT";
    /// The upstream broke the protocol.
    UPSTREAM_PROTOCOL_ERROR = 23, "UPE";
    /// The route's cluster doesn't exist.
    NO_CLUSTER = 24, "NC";
    /// The proxy has too much to do.
    OVERLOAD = 25, "OM";
    /// A host name could not be resolved.
    DNS_FAILURE = 26, "DF";
    /// The control plane asked for such requests to be dropped.
    DROPPED = 27, "DO";
    /// The client reset the stream.
    DOWNSTREAM_RESET = 28, "DR";
}

impl Flags {
    /// None.
    pub const NONE: Self = Self(0);

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of these are there.
    #[must_use]
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// As Envoy numbers them, in `response.flags` of expressions.
    #[must_use]
    pub fn bits(self) -> u32 {
        self.0
    }

    /// The flag of a short name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        let known = Self::SHORT.iter().find(|(_, short)| *short == name);
        known.map(|(flag, _)| *flag)
    }

    /// Appends the short names, with commas; `-` where there is none.
    pub fn write(self, out: &mut String) {
        let start = out.len();
        for (flag, short) in Self::SHORT {
            if self.contains(*flag) {
                if out.len() > start {
                    out.push(',');
                }
                out.push_str(short);
            }
        }
        if out.len() == start {
            out.push('-');
        }
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Flags {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl std::fmt::Display for Flags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text = String::new();
        self.write(&mut text);
        f.write_str(&text)
    }
}
