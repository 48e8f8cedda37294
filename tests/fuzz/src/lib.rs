//! Fuzz targets: input that nobody meant, and what must hold of it. A target takes bytes and panics
//! where something doesn't hold; whatever else it does is no finding. libFuzzer drives each from
//! `targets/` (`cargo xtask fuzz`), and `tests/replay.rs` without it.

pub mod edge;
pub mod grpc_web;
pub mod resources;
pub mod seeds;
pub mod texts;
pub mod xds;

/// A target, by name.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name on the command line, and that of its folders.
    pub name: &'static str,
    /// Looks at one input.
    pub check: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 5] = [
    Target {
        name: "xds",
        check: xds::check,
        seeds: seeds::messages,
    },
    Target {
        name: "resources",
        check: resources::check,
        seeds: seeds::documents,
    },
    Target {
        name: "texts",
        check: texts::check,
        seeds: seeds::texts,
    },
    Target {
        name: "edge",
        check: edge::check,
        seeds: seeds::streams,
    },
    Target {
        name: "grpc_web",
        check: grpc_web::check,
        seeds: seeds::bodies,
    },
];
