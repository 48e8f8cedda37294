//! Names of images, and what registries say and want to hear.

use super::*;

#[test]
fn an_image_is_named_as_docker_names_them() {
    let parsed = |uri: &str| {
        let image = Image::parse(uri).unwrap();
        format!(
            "{} {} {}",
            image.registry, image.repository, image.reference
        )
    };
    assert_eq!(parsed("oci://ghcr.io/a/b:v1"), "ghcr.io a/b v1");
    assert_eq!(parsed("oci://localhost:5000/a"), "localhost:5000 a latest");
    assert_eq!(parsed("oci://guard"), "docker.io library/guard latest");
    assert_eq!(parsed("oci://me/guard:1"), "docker.io me/guard 1");
    let digest = "oci://r.test/a:v1@sha256:12";
    assert_eq!(parsed(digest), "r.test a sha256:12");
    assert_eq!(Image::parse(digest).unwrap().digest(), Some("12"));
    for bad in [
        "oci://",
        "oci://r.test/",
        "oci://r.test/a?b",
        "oci://r.test/a b:c",
        "oci://r.test/a@sha512:12",
        "oci://r.test/a@12",
    ] {
        assert!(Image::parse(bad).is_err(), "{bad}");
    }
}

#[test]
fn what_a_registry_asks_for_is_found_between_its_quotes() {
    let asked =
        r#"realm="https://a.test/token?x=1",service="a.test",scope="repository:a:pull,push""#;
    assert_eq!(parameter(asked, "realm"), Some("https://a.test/token?x=1"));
    assert_eq!(parameter(asked, "service"), Some("a.test"));
    assert_eq!(parameter(asked, "scope"), Some("repository:a:pull,push"));
    assert_eq!(parameter(asked, "other"), None);
}

#[test]
fn credentials_are_found_by_the_registrys_host() {
    let auth = BASE64_STANDARD.encode("me:secret");
    let secret = serde_json::json!({"auths": {
        "https://index.docker.io/v1/": {"auth": auth},
        "r.test": {"username": "you", "password": "word"},
    }});
    let secret = secret.to_string();
    let of = |registry: &str| credentials(&secret, registry).unwrap();
    assert_eq!(of(DOCKER).as_deref(), Some("me:secret"));
    assert_eq!(of("r.test").as_deref(), Some("you:word"));
    assert_eq!(of("other.test"), None);
    for bad in ["", "null", "{", r#"{"auths":{"r.test":{"auth":"?"}}}"#] {
        assert!(credentials(bad, "r.test").is_err(), "{bad}");
    }
}
