//! What policies become, condition by condition, and that none with a hole gets through.
