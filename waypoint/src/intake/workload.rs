//! `istio.workload.Workload` → who is behind an address, by mesh's own parser.

use mesh::proto::workload as pb;
use mesh::workload::Workload;
use prost::Message as _;

use super::error::Refused;

/// The workload of this name.
///
/// # Errors
/// It can't be read, or is incomplete.
pub fn workload(name: &str, bytes: &[u8]) -> Result<Workload, Refused> {
    let message = pb::Workload::decode(bytes)
        .map_err(|error| Refused::new(format!("is no istio.workload.Workload: {error}")))?;
    if message.uid != name {
        return Err(Refused::new(format!("is {:?} inside", message.uid)).under("uid"));
    }
    Workload::try_from(message).map_err(|invalid| Refused::new(invalid.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_is_known_by_its_uid() {
        let bytes = pb::Workload {
            uid: "Kubernetes//Pod/a/b".to_owned(),
            name: "b".to_owned(),
            namespace: "a".to_owned(),
            ..pb::Workload::default()
        }
        .encode_to_vec();
        assert_eq!(&*workload("Kubernetes//Pod/a/b", &bytes).unwrap().name, "b");
        let other = workload("Kubernetes//Pod/a/c", &bytes).unwrap_err();
        assert!(other.to_string().starts_with("uid:"), "{other}");
        assert!(workload("", &[0xff]).is_err());
    }
}
