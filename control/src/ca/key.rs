//! A plugged-in authority's private key in the one form that our signer takes. `openssl genrsa` and
//! `openssl ecparam -genkey` write, depending on their age, the algorithm's own form (PKCS#1, SEC 1);
//! PKCS#8 is that with the algorithm's name around it (RFC 5208).

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use x509_parser::pem::Pem;

/// 1.2.840.113549.1.1.1 rsaEncryption, and its parameters, which are NULL.
const RSA: &[u8] = &[
    0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00,
];
/// 1.2.840.10045.2.1 ecPublicKey.
const EC: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// 1.2.840.10045.3.1.7 prime256v1 and 1.3.132.0.34 secp384r1.
const CURVES: [&[u8]; 2] = [
    &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
    &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22],
];
const SEQUENCE: u8 = 0x30;
const OCTET_STRING: u8 = 0x04;
/// INTEGER 0, the version.
const VERSION: &[u8] = &[0x02, 0x01, 0x00];

/// The key as PKCS#8, or why it is none that can sign here. The key itself is in no message.
pub fn pkcs8(pem: &str) -> Result<String, String> {
    for block in Pem::iter_from_buffer(pem.as_bytes()) {
        let block = block.map_err(|error| format!("its private key is no PEM: {error}"))?;
        let wrapped = match block.label.as_str() {
            // What openssl writes before a key of this kind.
            "EC PARAMETERS" => continue,
            "PRIVATE KEY" => block.contents,
            "RSA PRIVATE KEY" => wrap(RSA.to_vec(), &block.contents),
            "EC PRIVATE KEY" => {
                let has = |curve: &&&[u8]| {
                    block
                        .contents
                        .windows(curve.len())
                        .any(|part| part == **curve)
                };
                let curve = CURVES
                    .iter()
                    .find(has)
                    .ok_or("its private key is on another curve than P-256 and P-384")?;
                wrap([EC, curve].concat(), &block.contents)
            }
            "ENCRYPTED PRIVATE KEY" => {
                return Err(
                    "its private key is encrypted: store it without a passphrase".to_owned(),
                );
            }
            other => return Err(format!("its private key is a PEM block {other:?}")),
        };
        let text = BASE64_STANDARD.encode(wrapped);
        let lines: Vec<&str> = text
            .as_bytes()
            .chunks(64)
            .filter_map(|line| std::str::from_utf8(line).ok())
            .collect();
        return Ok(format!(
            "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
            lines.join("\n")
        ));
    }
    Err("its private key is no PEM".to_owned())
}

fn wrap(algorithm: Vec<u8>, key: &[u8]) -> Vec<u8> {
    let body = [
        VERSION.to_vec(),
        tlv(SEQUENCE, &algorithm),
        tlv(OCTET_STRING, key),
    ];
    tlv(SEQUENCE, &body.concat())
}

/// One element of DER: tag, length, value.
fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = value.len().to_be_bytes();
    let significant = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    let mut all = vec![tag];
    match (significant, u8::try_from(significant.len())) {
        ([short], _) if *short < 0x80 => all.push(*short),
        ([], _) => all.push(0),
        // Never longer than the eight octets of a usize.
        (long, count) => {
            all.push(0x80 | count.unwrap_or_default());
            all.extend_from_slice(long);
        }
    }
    all.extend_from_slice(value);
    all
}

#[cfg(test)]
mod tests {
    use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384};
    use x509_parser::der_parser::asn1_rs::{Any, FromDer};

    use super::*;

    /// The algorithm's own form inside a PKCS#8 key.
    fn bare(pkcs8: &[u8]) -> Vec<u8> {
        let (_, all) = Any::from_der(pkcs8).unwrap();
        let (rest, _version) = Any::from_der(all.data).unwrap();
        let (rest, _algorithm) = Any::from_der(rest).unwrap();
        let (_, key) = Any::from_der(rest).unwrap();
        key.data.to_vec()
    }

    fn pem(label: &str, der: &[u8]) -> String {
        let text = BASE64_STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
    }

    #[test]
    fn a_key_in_the_form_of_its_curve_is_the_same_key() {
        for pair in [
            KeyPair::generate().unwrap(),
            KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(),
        ] {
            let whole = pair.serialize_der();
            // Ours has no curve inside; openssl's has.
            let curve = CURVES
                .iter()
                .find(|curve| whole.windows(curve.len()).any(|part| part == **curve));
            let inner = with_curve(&bare(&whole), curve.unwrap());
            let text = format!(
                "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{}",
                pem("EC PRIVATE KEY", &inner)
            );
            let read = KeyPair::from_pem(&pkcs8(&text).unwrap()).unwrap();
            assert_eq!(read.public_key_pem(), pair.public_key_pem());
        }
    }

    /// `ECPrivateKey` with its parameters, between the key and the public key (RFC 5915).
    fn with_curve(key: &[u8], curve: &[u8]) -> Vec<u8> {
        let (_, all) = Any::from_der(key).unwrap();
        let (rest, _version) = Any::from_der(all.data).unwrap();
        let (public, _key) = Any::from_der(rest).unwrap();
        let before = &all.data[..all.data.len() - public.len()];
        tlv(SEQUENCE, &[before, &tlv(0xa0, curve), public].concat())
    }

    #[test]
    fn lengths_of_all_sizes_are_written_as_der_wants_them() {
        for length in [0, 1, 127, 128, 255, 256, 70_000] {
            let written = tlv(OCTET_STRING, &vec![7; length]);
            let (rest, read) = Any::from_der(&written).unwrap();
            assert_eq!((rest.len(), read.data.len()), (0, length));
        }
    }

    #[test]
    fn what_is_no_usable_key_is_named() {
        for (text, why) in [
            ("", "no PEM"),
            (&pem("ENCRYPTED PRIVATE KEY", b"x"), "passphrase"),
            (&pem("CERTIFICATE", b"x"), "CERTIFICATE"),
            (&pem("EC PRIVATE KEY", b"x"), "curve"),
        ] {
            let error = pkcs8(text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
