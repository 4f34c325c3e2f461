//! Holds no code: the benches stand in `benches/`.
