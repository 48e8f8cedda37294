//! A module in what it is packed in: gzip, tar, or one in the other. Bounded, whatever a packer says.

use std::io::{Cursor, Read};
use std::path::Path;

use bytes::Bytes;
use flate2::read::GzDecoder;

use super::engine::LARGEST;

/// What the module is called in a container image.
const IN_IMAGE: &str = "plugin.wasm";
/// Files of an archive that are looked at.
const MOST_FILES: usize = 10_000;

/// The module in the layer of a container image.
///
/// # Errors
/// There is none, or it is larger than it may be.
pub(super) fn layer(packed: &[u8]) -> Result<Bytes, String> {
    let plain = gunzipped(packed)?;
    from_tar(&plain, |path| path.file_name() == Some(IN_IMAGE.as_ref()))?
        .ok_or_else(|| format!("the image has no {IN_IMAGE} in its last layer"))
}

/// The module in a document: itself, or the first file of an archive.
///
/// # Errors
/// There is none, or it is larger than it may be.
pub(super) fn document(bytes: Bytes) -> Result<Bytes, String> {
    let plain = match bytes.starts_with(&[0x1f, 0x8b]) {
        true => gunzipped(&bytes)?,
        false => bytes,
    };
    match plain.get(257..262) == Some(b"ustar") {
        true => from_tar(&plain, |_| true)?.ok_or_else(|| "the archive is empty".to_owned()),
        false => Ok(plain),
    }
}

fn gunzipped(packed: &[u8]) -> Result<Bytes, String> {
    if !packed.starts_with(&[0x1f, 0x8b]) {
        return Ok(Bytes::copy_from_slice(packed));
    }
    let mut plain = Vec::new();
    let limit = LARGEST as u64 + 1;
    let read = GzDecoder::new(packed).take(limit).read_to_end(&mut plain);
    read.map_err(|error| format!("this is no gzip: {error}"))?;
    match plain.len() > LARGEST {
        true => Err(format!("unpacked it is larger than {LARGEST} bytes")),
        false => Ok(plain.into()),
    }
}

fn from_tar(plain: &Bytes, wanted: impl Fn(&Path) -> bool) -> Result<Option<Bytes>, String> {
    let told = |error: std::io::Error| format!("this is no tar: {error}");
    let mut archive = tar::Archive::new(Cursor::new(plain));
    for entry in archive.entries().map_err(told)?.take(MOST_FILES) {
        let entry = entry.map_err(told)?;
        if !entry.header().entry_type().is_file() || !wanted(&entry.path().map_err(told)?) {
            continue;
        }
        // Where it stands in what is there already: nothing is copied.
        let start = usize::try_from(entry.raw_file_position()).map_err(|_| "too large")?;
        let size = usize::try_from(entry.size()).map_err(|_| "too large")?;
        let end = start.checked_add(size).filter(|end| *end <= plain.len());
        let end = end.ok_or("the archive breaks off")?;
        return Ok(Some(plain.slice(start..end)));
    }
    Ok(None)
}

/// Bytes as hexadecimal digits.
pub(super) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn tarred(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, contents) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(contents.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, *contents).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn zipped(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_module_is_found_in_what_it_is_packed_in() {
        let tar = tarred(&[("etc/other", b"no"), ("./plugin.wasm", b"\0asm")]);
        assert_eq!(layer(&zipped(&tar)).unwrap(), &b"\0asm"[..]);
        assert_eq!(layer(&tar).unwrap(), &b"\0asm"[..]);
        let without = layer(&zipped(&tarred(&[("other", b"no")])));
        assert!(without.unwrap_err().contains("plugin.wasm"));
        let first = tarred(&[("any.wasm", b"\0asm")]);
        for packed in [zipped(&first), first, zipped(b"\0asm"), b"\0asm".to_vec()] {
            assert_eq!(document(packed.into()).unwrap(), &b"\0asm"[..]);
        }
    }

    #[test]
    fn what_grows_beyond_all_bounds_is_not_unpacked() {
        let bomb = zipped(&vec![0; LARGEST + 1]);
        assert!(bomb.len() < LARGEST / 100);
        assert!(document(bomb.into()).unwrap_err().contains("larger"));
        let mut broken = tarred(&[("plugin.wasm", &[1; 4096])]);
        broken.truncate(1024);
        assert!(layer(&broken).is_err());
    }
}
