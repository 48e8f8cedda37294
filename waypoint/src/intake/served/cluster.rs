//! The table's lines for cluster.

use super::Row;

pub(super) const ROWS: &[Row] = &[];
