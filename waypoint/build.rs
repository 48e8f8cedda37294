//! Compiles our own protobuf files to Rust, and makes the descriptors by which Envoy's resources are
//! read and written as JSON. Envoy's own files come with the crate `envoy-types`: what is described
//! is always what the generated types of that crate have.

use std::path::{Path, PathBuf};
use std::process::Command;

use protox::file::{File, FileResolver, GoogleFileResolver};

/// Folders of Envoy's files that are described, with everything those import.
const DESCRIBED: &[&str] = &[
    "envoy/admin/v3",
    "envoy/config/accesslog/v3",
    "envoy/config/bootstrap/v3",
    "envoy/config/cluster/v3",
    "envoy/config/core/v3",
    "envoy/config/endpoint/v3",
    "envoy/config/listener/v3",
    "envoy/config/rbac/v3",
    "envoy/config/route/v3",
    "envoy/config/trace/v3",
    "envoy/config/upstream",
    "envoy/extensions/access_loggers/file",
    "envoy/extensions/access_loggers/filters",
    "envoy/extensions/access_loggers/grpc",
    "envoy/extensions/access_loggers/open_telemetry",
    "envoy/extensions/access_loggers/stream",
    "envoy/extensions/clusters/common",
    "envoy/extensions/clusters/dns",
    "envoy/extensions/clusters/dynamic_forward_proxy",
    "envoy/extensions/clusters/original_dst",
    "envoy/extensions/common/dynamic_forward_proxy",
    "envoy/extensions/common/matching",
    "envoy/extensions/compression",
    "envoy/extensions/filters/common",
    "envoy/extensions/filters/http/buffer",
    "envoy/extensions/filters/http/compressor",
    "envoy/extensions/filters/http/composite",
    "envoy/extensions/filters/http/cors",
    "envoy/extensions/filters/http/decompressor",
    "envoy/extensions/filters/http/dynamic_forward_proxy",
    "envoy/extensions/filters/http/ext_authz",
    "envoy/extensions/filters/http/ext_proc",
    "envoy/extensions/filters/http/fault",
    "envoy/extensions/filters/http/grpc_stats",
    "envoy/extensions/filters/http/grpc_web",
    "envoy/extensions/filters/http/header_mutation",
    "envoy/extensions/filters/http/health_check",
    "envoy/extensions/filters/http/jwt_authn",
    "envoy/extensions/filters/http/local_ratelimit",
    "envoy/extensions/filters/http/lua",
    "envoy/extensions/filters/http/ratelimit",
    "envoy/extensions/filters/http/rbac",
    "envoy/extensions/filters/http/router",
    "envoy/extensions/filters/http/set_filter_state",
    "envoy/extensions/filters/http/stateful_session",
    "envoy/extensions/filters/http/wasm",
    "envoy/extensions/filters/listener",
    "envoy/extensions/filters/network/connection_limit",
    "envoy/extensions/filters/network/direct_response",
    "envoy/extensions/filters/network/ext_authz",
    "envoy/extensions/filters/network/http_connection_manager",
    "envoy/extensions/filters/network/local_ratelimit",
    "envoy/extensions/filters/network/rbac",
    "envoy/extensions/filters/network/set_filter_state",
    "envoy/extensions/filters/network/sni_cluster",
    "envoy/extensions/filters/network/sni_dynamic_forward_proxy",
    "envoy/extensions/filters/network/tcp_proxy",
    "envoy/extensions/filters/network/wasm",
    "envoy/extensions/formatter",
    "envoy/extensions/http",
    "envoy/extensions/load_balancing_policies",
    "envoy/extensions/matching",
    "envoy/extensions/network/dns_resolver",
    "envoy/extensions/path",
    "envoy/extensions/rbac",
    "envoy/extensions/request_id",
    "envoy/extensions/retry",
    "envoy/extensions/tracers/opentelemetry",
    "envoy/extensions/transport_sockets/http_11_proxy",
    "envoy/extensions/transport_sockets/internal_upstream",
    "envoy/extensions/transport_sockets/proxy_protocol",
    "envoy/extensions/transport_sockets/raw_buffer",
    "envoy/extensions/transport_sockets/tcp_stats",
    "envoy/extensions/transport_sockets/tls",
    "envoy/extensions/upstreams",
    "envoy/extensions/wasm",
    "envoy/type/matcher/v3",
    "envoy/type/metadata/v3",
    "envoy/type/tracing/v3",
    "xds/type/matcher/v3",
];

/// Packages below `envoy.extensions.common` that Envoy's files name relative to their own package,
/// in a way that protox takes for another one's (`envoy.extensions.clusters.common`).
const AMBIGUOUS: [&str; 3] = ["dynamic_forward_proxy", "ratelimit", "tap"];

/// Messages that ours are made of or stand beside, and where the crate `envoy-types` has them.
const EXTERNAL: [(&str, &str); 9] = [
    (".google.protobuf", "google::protobuf"),
    (".validate", "validate"),
    (".xds.annotations.v3", "xds::annotations::v3"),
    (".xds.core.v3", "xds::core::v3"),
    (".xds.type.matcher.v3.ListStringMatcher", MATCHER),
    (".xds.type.matcher.v3.Matcher", MATCHER),
    (".xds.type.matcher.v3.Matcher.OnMatch", ON_MATCH),
    (".xds.type.matcher.v3.RegexMatcher", MATCHER),
    (".xds.type.matcher.v3.StringMatcher", MATCHER),
];
const MATCHER: &str = "xds::r#type::matcher::v3";
const ON_MATCH: &str = "xds::r#type::matcher::v3::matcher::OnMatch";

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    // A static program relocates itself as it starts, by a table that stays resident: 0.7 MB of it,
    // or 10 KB in the packed form, which musl knows as well.
    if std::env::var("CARGO_CFG_TARGET_ENV")? == "musl" {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    let (own, mesh) = (PathBuf::from("proto"), PathBuf::from("../mesh/proto"));
    for input in [Path::new("build.rs"), &own, &mesh] {
        println!("cargo::rerun-if-changed={}", input.display());
    }
    let ours = protos(&own, "")?;
    let mut roots = vec![own, mesh];
    for root in std::fs::read_dir(envoy_protos()?)? {
        let root = root?.path();
        roots.extend([root.join("proto"), root]);
    }

    let descriptors = protox::Compiler::with_file_resolver(Files(roots.clone()))
        .include_imports(true)
        .open_files(&ours)?
        .file_descriptor_set();
    let mut rust = tonic_prost_build::configure().compile_well_known_types(true);
    for (package, path) in EXTERNAL {
        rust = rust.extern_path(package, format!("::envoy_types::pb::{path}"));
    }
    rust.compile_fds(descriptors)?;

    let mut described = ours;
    described.push("workload.proto".to_owned());
    described.push("google/protobuf/wrappers.proto".to_owned());
    for folder in DESCRIBED {
        let Some(root) = roots.iter().find(|root| root.join(folder).exists()) else {
            return Err(format!("{folder} is not among Envoy's files any more").into());
        };
        described.extend(protos(root, folder)?);
    }
    let set = protox::Compiler::with_file_resolver(Files(roots))
        .include_imports(true)
        .include_source_info(false)
        .open_files(described)?
        .encode_file_descriptor_set();
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("proto.descriptors"), set)?;
    Ok(())
}

/// Files below these folders, Envoy's without ambiguous names.
struct Files(Vec<PathBuf>);

impl FileResolver for Files {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        let mut paths = self.0.iter().map(|root| root.join(name));
        let Some(path) = paths.find(|path| path.exists()) else {
            return GoogleFileResolver::new().open_file(name);
        };
        let mut source = std::fs::read_to_string(path).map_err(protox::Error::new)?;
        if name.starts_with("envoy/extensions/") {
            for package in AMBIGUOUS {
                let clear = format!(" .envoy.extensions.common.{package}.");
                source = source.replace(&format!(" common.{package}."), &clear);
            }
        }
        File::from_source(name, &source)
    }
}

/// The `.proto` files in a folder below `root` and those below it, by their names from `root`.
fn protos(root: &Path, folder: &str) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = Path::new(folder).join(entry.file_name());
        let name = name.to_string_lossy().into_owned();
        if entry.path().is_dir() {
            names.extend(protos(root, &name)?);
        } else if name.ends_with(".proto") {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// The folder of `.proto` files in the package of the crate `envoy-types`, wherever cargo has it. Cargo
/// answers once it has all of the workspace's packages for this platform; on a fresh machine it has only
/// those of the build under way, and fetches the others, which a test would fetch anyway.
fn envoy_protos() -> Result<PathBuf, Error> {
    let cargo = std::env::var("CARGO")?;
    let platform = std::env::var("HOST")?;
    let asked = ["metadata", "--format-version=1", "--locked"];
    let output = Command::new(cargo)
        .args(asked)
        .args(["--filter-platform", &platform])
        .output()?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("cargo metadata: {why}").into());
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().into_iter().flatten();
    let manifest = packages
        .filter(|package| package["name"] == "envoy-types")
        .find_map(|package| package["manifest_path"].as_str())
        .ok_or("envoy-types is no dependency")?;
    Ok(Path::new(manifest).with_file_name("proto"))
}
