//! Envoy beside our waypoint, as an oracle and as a yardstick.
