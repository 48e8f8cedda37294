//! Why the programs did what they did: one table for both sides, with stable names for metrics.

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Sent to one of our listeners.
    Captured,
    /// Let through untouched, though the pod is enrolled.
    Passed,
    /// Refused.
    Refused,
}

impl Verdict {
    /// The stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Captured => "captured",
            Self::Passed => "passed",
            Self::Refused => "refused",
        }
    }
}

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $number:literal, $verdict:ident, $name:literal;)+) => {
        /// An index of the map `COUNTERS`.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason { $($(#[$doc])* $variant = $number,)+ }

        impl Reason {
            /// All of them, by index.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// What becomes of a connection for this reason.
            pub const fn verdict(self) -> Verdict {
                match self { $(Self::$variant => Verdict::$verdict,)+ }
            }

            /// The stable name, for metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

reasons! {
    /// A pod opened a connection; it goes to the outbound listener.
    Outbound = 0, Captured, "outbound";
    /// A connection reached a pod; it went to the inbound listener.
    Inbound = 1, Captured, "inbound";
    /// A connection reached a pod's HBONE port.
    Hbone = 2, Captured, "hbone";

    /// The pod called its own loopback address.
    Loopback = 3, Passed, "loopback";
    /// The pod called one of its own addresses.
    Itself = 4, Passed, "itself";
    /// The pod called an IPv6 link-local address: it never leaves the link, and cannot be kept as
    /// an original destination without its interface.
    LinkLocal = 5, Passed, "link_local";
    /// A socket of ztunnel's own.
    Own = 6, Passed, "own";
    /// A process of the node called a captured pod: the kubelet's probes.
    Node = 7, Passed, "node";
    /// A trusted connection reached its pod.
    Trusted = 8, Passed, "trusted";

    /// A pod called an address of a family of which it has no address itself.
    NoPodAddress = 9, Refused, "no_pod_address";
    /// The kernel had no memory for the socket's storage.
    NoStorage = 10, Refused, "no_storage";
    /// A connection came to a pod for which no ztunnel listens: it was killed or starts.
    NoListener = 11, Refused, "no_listener";
    /// The outbound listener got a connection without an original destination: somebody called
    /// port 15001 directly, or the table of handshakes overflowed. Counted in user space.
    NoOriginal = 12, Refused, "no_original";
    /// A table of handshakes took no entry.
    TableFull = 13, Refused, "table_full";
}

impl Reason {
    /// Entries of the map `COUNTERS`.
    pub const COUNT: u32 = Self::ALL.len() as u32;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_dense_and_its_names_are_unique() {
        for (i, a) in Reason::ALL.iter().enumerate() {
            assert_eq!(*a as usize, i, "{}", a.name());
            assert!(a.name().chars().all(|c| c.is_ascii_lowercase() || c == '_'));
            assert!(Reason::ALL[i + 1..].iter().all(|b| a.name() != b.name()));
        }
    }
}
