//! Tests of the workload model and its parsing.
