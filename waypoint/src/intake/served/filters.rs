//! The table's lines for filters.

use super::Row;

pub(super) const ROWS: &[Row] = &[];
