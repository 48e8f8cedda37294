//! (made by its first commit)
