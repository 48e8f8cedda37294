//! (made by its first commit)
fn main() {}
