//! Envoy's response flags: why an answer was not simply the upstream's. Short names stand in access
//! logs and metrics, so that people's queries go on working.

use std::ops::{BitOr, BitOrAssign};

/// A set of response flags.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Flags(u32);

macro_rules! flags {
    ($($(#[$doc:meta])+ $name:ident = $bit:literal, $short:literal, $long:literal;)+) => {
        impl Flags {
            $($(#[$doc])+ pub const $name: Self = Self(1 << $bit);)+

            /// Each with its short and its long name.
            const NAMES: &[(Self, &'static str, &'static str)] =
                &[$((Self::$name, $short, $long),)+];
        }
    };
}

// In the order in which they are written. Envoy writes them in the order in which it noticed them, and
// limits are noticed before the last attempt's failure is told.
flags! {
    /// It would have been tried again, but not so often.
    RETRY_LIMIT = 15, "URX", "UpstreamRetryLimitExceeded";
    /// A limit of the cluster was reached, which may be that of retries.
    UPSTREAM_OVERFLOW = 7, "UO", "UpstreamOverflow";
    /// No healthy endpoint.
    NO_HEALTHY_UPSTREAM = 1, "UH", "NoHealthyUpstream";
    /// The upstream took too long.
    UPSTREAM_TIMEOUT = 2, "UT", "UpstreamRequestTimeout";
    /// We reset the upstream's stream.
    LOCAL_RESET = 3, "LR", "LocalReset";
    /// The upstream reset the stream.
    UPSTREAM_RESET = 4, "UR", "UpstreamRemoteReset";
    /// No connection to the upstream could be made.
    UPSTREAM_CONNECT_FAILURE = 5, "UF", "UpstreamConnectionFailure";
    /// The upstream's connection ended.
    UPSTREAM_CLOSED = 6, "UC", "UpstreamConnectionTermination";
    /// No route.
    NO_ROUTE = 8, "NR", "NoRouteFound";
    /// The request was held up on purpose.
    DELAY_INJECTED = 9, "DI", "DelayInjected";
    /// The request was answered on purpose.
    FAULT_INJECTED = 10, "FI", "FaultInjected";
    /// A rate limit was reached.
    RATE_LIMITED = 11, "RL", "RateLimited";
    /// Policy denied it: a connection, or by an external service.
    UNAUTHORIZED = 12, "UAEX", "UnauthorizedExternalService";
    /// The client went away.
    DOWNSTREAM_CLOSED = 14, "DC", "DownstreamConnectionTermination";
    /// Nothing moved for too long.
    IDLE_TIMEOUT = 16, "SI", "StreamIdleTimeout";
    /// The client broke the protocol.
    DOWNSTREAM_PROTOCOL_ERROR = 18, "DPE", "DownstreamProtocolError";
    /// The stream lasted longer than the route allows.
    MAX_DURATION = 19, "UMSDR", "UpstreamMaxStreamDurationReached";
    /// Its filter chain's configuration can't be served.
    NO_FILTER_CONFIG = 21, "NFCF", "NoFilterConfigFound";
    /// The request took too long as a whole.
    DURATION_TIMEOUT = 22, "DT", "DurationTimeout";
    /// The upstream broke the protocol.
    UPSTREAM_PROTOCOL_ERROR = 23, "UPE", "UpstreamProtocolError";
    /// The route's cluster doesn't exist.
    NO_CLUSTER = 24, "NC", "NoClusterFound";
    /// The proxy has too much to do.
    OVERLOAD = 25, "OM", "OverloadManagerTerminated";
    /// A host name could not be resolved.
    DNS_FAILURE = 26, "DF", "DnsResolutionFailed";
    /// The control plane asked for such requests to be dropped.
    DROPPED = 27, "DO", "DropOverload";
    /// The client reset the stream.
    DOWNSTREAM_RESET = 28, "DR", "DownstreamRemoteReset";
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
        let known = Self::NAMES.iter().find(|(_, short, _)| *short == name);
        known.map(|(flag, ..)| *flag)
    }

    /// Appends the short names, with commas; `-` where there is none.
    pub fn write(self, out: &mut String) {
        self.write_names(false, out);
    }

    /// Appends the long names, with commas; `-` where there is none.
    pub fn write_long(self, out: &mut String) {
        self.write_names(true, out);
    }

    fn write_names(self, long_names: bool, out: &mut String) {
        let start = out.len();
        for (flag, short, long) in Self::NAMES {
            if self.contains(*flag) {
                if out.len() > start {
                    out.push(',');
                }
                out.push_str(if long_names { long } else { short });
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
