//! The table's lines for route.

use super::Row;

pub(super) const ROWS: &[Row] = &[];
