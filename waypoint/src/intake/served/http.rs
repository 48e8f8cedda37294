//! The table's lines for http.

use super::Row;

pub(super) const ROWS: &[Row] = &[];
