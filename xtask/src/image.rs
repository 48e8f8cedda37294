//! Image archives of the product: one static binary each, not root where the work allows it.
//! `REGISTRY` names them; nothing is pushed and nothing is pulled.
