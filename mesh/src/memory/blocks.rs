//! `memcpy` and `memmove` for the static programs. musl's, which they would have otherwise, copy by
//! `rep movsq`: that takes longer to begin than most copies of a proxy should last, and a `memmove` of
//! bytes to where they are, which rustls asks for whenever a record is incomplete, goes backwards byte
//! by byte. What links this crate has these instead, since its symbols come before the C library's.
//!
//! Needs nothing that a processor of this architecture could lack (SSE2), so there is nothing to find
//! out at run time. Other architectures keep musl's, which are good there.
#![allow(
    unsafe_code,
    reason = "the room that owns these two symbols: every copy of the program goes through them"
)]

// Both may overlap, which costs one comparison, and only in what is over 128 bytes: up to there
// everything is loaded before anything is stored. Pieces of a size that is not known overlap each
// other, rather than being looked for: 17 bytes are the first 16 and the last 16.
//
// In: rdi where to, rsi where from, rdx how many. Out: rax where to. No stack, no saved register.
core::arch::global_asm!(
    ".pushsection .text.culvert_memmove,\"ax\",@progbits",
    ".globl culvert_memmove",
    ".type culvert_memmove,@function",
    // What the compiler and the libraries call. Where glibc is linked, which has good ones, they stay.
    #[cfg(target_env = "musl")]
    ".globl memcpy, memmove",
    #[cfg(target_env = "musl")]
    ".type memcpy,@function; .type memmove,@function",
    ".p2align 6",
    #[cfg(target_env = "musl")]
    "memcpy: memmove:",
    "culvert_memmove:",
    ".cfi_startproc",
    "    mov rax, rdi",
    "    cmp rdx, 16",
    "    jb 20f",
    "    cmp rdx, 32",
    "    ja 2f",
    "    movups xmm0, [rsi]",
    "    movups xmm1, [rsi + rdx - 16]",
    "    movups [rdi], xmm0",
    "    movups [rdi + rdx - 16], xmm1",
    "    ret",
    "2:", // 33 to 64
    "    cmp rdx, 64",
    "    ja 3f",
    "    movups xmm0, [rsi]",
    "    movups xmm1, [rsi + 16]",
    "    movups xmm2, [rsi + rdx - 32]",
    "    movups xmm3, [rsi + rdx - 16]",
    "    movups [rdi], xmm0",
    "    movups [rdi + 16], xmm1",
    "    movups [rdi + rdx - 32], xmm2",
    "    movups [rdi + rdx - 16], xmm3",
    "    ret",
    "3:", // 65 to 128
    "    cmp rdx, 128",
    "    ja 4f",
    "    movups xmm0, [rsi]",
    "    movups xmm1, [rsi + 16]",
    "    movups xmm2, [rsi + 32]",
    "    movups xmm3, [rsi + 48]",
    "    movups xmm4, [rsi + rdx - 64]",
    "    movups xmm5, [rsi + rdx - 48]",
    "    movups xmm6, [rsi + rdx - 32]",
    "    movups xmm7, [rsi + rdx - 16]",
    "    movups [rdi], xmm0",
    "    movups [rdi + 16], xmm1",
    "    movups [rdi + 32], xmm2",
    "    movups [rdi + 48], xmm3",
    "    movups [rdi + rdx - 64], xmm4",
    "    movups [rdi + rdx - 48], xmm5",
    "    movups [rdi + rdx - 32], xmm6",
    "    movups [rdi + rdx - 16], xmm7",
    "    ret",
    "4:", // More: 64 bytes a turn, stored where a line of the cache is not crossed.
    "    mov rcx, rdi",
    "    sub rcx, rsi",
    "    je 7f", // To where they are.
    "    cmp rcx, rdx",
    "    jb 10f", // To further on within what is copied: from the end.
    // From the beginning. What comes first and what comes last is loaded before and stored after
    // everything else, which may overwrite where they come from.
    "    cmp rdx, 3072",
    "    jae 8f",
    "6:",
    "    movups xmm8, [rsi]",
    "    movups xmm4, [rsi + rdx - 64]",
    "    movups xmm5, [rsi + rdx - 48]",
    "    movups xmm6, [rsi + rdx - 32]",
    "    movups xmm7, [rsi + rdx - 16]",
    "    lea r8, [rdi + rdx - 64]", // Where the last 64 go.
    "    lea r9, [rdi + 16]",
    "    and r9, -16",  // Where the turns begin: 1 to 16 bytes in.
    "    sub rsi, rdi", // From `to` to `from`.
    ".p2align 5",
    "5:",
    "    movups xmm0, [r9 + rsi]",
    "    movups xmm1, [r9 + rsi + 16]",
    "    movups xmm2, [r9 + rsi + 32]",
    "    movups xmm3, [r9 + rsi + 48]",
    "    movaps [r9], xmm0",
    "    movaps [r9 + 16], xmm1",
    "    movaps [r9 + 32], xmm2",
    "    movaps [r9 + 48], xmm3",
    "    add r9, 64",
    "    cmp r9, r8",
    "    jb 5b",
    "    movups [r8], xmm4",
    "    movups [r8 + 16], xmm5",
    "    movups [r8 + 32], xmm6",
    "    movups [r8 + 48], xmm7",
    "    movups [rdi], xmm8",
    "7:",
    "    ret",
    "8:", // Long ones are worth the processor's own way, from a line of the cache on,
    "    neg rcx",
    "    cmp rcx, 64",
    "    jb 6b", // unless it would read what it has just stored.
    "    movups xmm0, [rsi]",
    "    movups xmm1, [rsi + 16]",
    "    movups xmm2, [rsi + 32]",
    "    movups xmm3, [rsi + 48]",
    "    lea r8, [rdi + rdx - 16]",
    "    movups xmm4, [rsi + rdx - 16]",
    "    lea rcx, [rdi + rdx]",
    "    sub rsi, rdi",
    "    add rdi, 64",
    "    and rdi, -64",
    "    add rsi, rdi",
    "    sub rcx, rdi",
    "    shr rcx, 3",
    "    rep movsq",
    "    movups [r8], xmm4",
    "    movups [rax], xmm0",
    "    movups [rax + 16], xmm1",
    "    movups [rax + 32], xmm2",
    "    movups [rax + 48], xmm3",
    "    ret",
    "10:", // From the end, in the same way.
    "    movups xmm8, [rsi + rdx - 16]",
    "    movups xmm4, [rsi]",
    "    movups xmm5, [rsi + 16]",
    "    movups xmm6, [rsi + 32]",
    "    movups xmm7, [rsi + 48]",
    "    lea r8, [rdi + 64]", // Where the first 64 end.
    "    lea r10, [rdi + rdx - 16]",
    "    lea r9, [rdi + rdx - 1]",
    "    and r9, -16", // Where the turns end: 1 to 16 bytes before the end.
    "    sub rsi, rdi",
    ".p2align 5",
    "11:",
    "    movups xmm0, [r9 + rsi - 16]",
    "    movups xmm1, [r9 + rsi - 32]",
    "    movups xmm2, [r9 + rsi - 48]",
    "    movups xmm3, [r9 + rsi - 64]",
    "    movaps [r9 - 16], xmm0",
    "    movaps [r9 - 32], xmm1",
    "    movaps [r9 - 48], xmm2",
    "    movaps [r9 - 64], xmm3",
    "    sub r9, 64",
    "    cmp r9, r8",
    "    ja 11b",
    "    movups [rdi], xmm4",
    "    movups [rdi + 16], xmm5",
    "    movups [rdi + 32], xmm6",
    "    movups [rdi + 48], xmm7",
    "    movups [r10], xmm8",
    "    ret",
    "20:", // Up to 15
    "    cmp edx, 8",
    "    jb 21f",
    "    mov r8, [rsi]",
    "    mov r9, [rsi + rdx - 8]",
    "    mov [rdi], r8",
    "    mov [rdi + rdx - 8], r9",
    "    ret",
    "21:",
    "    cmp edx, 4",
    "    jb 22f",
    "    mov r8d, [rsi]",
    "    mov r9d, [rsi + rdx - 4]",
    "    mov [rdi], r8d",
    "    mov [rdi + rdx - 4], r9d",
    "    ret",
    "22:",
    "    cmp edx, 1",
    "    jb 23f",
    "    movzx r8d, byte ptr [rsi]", // With two or three, the first, and the last two.
    "    je 24f",
    "    movzx r9d, word ptr [rsi + rdx - 2]",
    "    mov [rdi + rdx - 2], r9w",
    "24:",
    "    mov [rdi], r8b",
    "23:",
    "    ret",
    ".cfi_endproc",
    ".size culvert_memmove, . - culvert_memmove",
    #[cfg(target_env = "musl")]
    ".size memcpy, . - memcpy; .size memmove, . - memmove",
    ".popsection",
);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    unsafe extern "C" {
        fn culvert_memmove(to: *mut u8, from: *const u8, count: usize) -> *mut u8;
    }

    /// Moves within `bytes`, which has to have room for both.
    fn shift(bytes: &mut [u8], to: usize, from: usize, count: usize) {
        assert!(to + count <= bytes.len() && from + count <= bytes.len());
        let start = bytes.as_mut_ptr();
        // SAFETY: both ranges lie within the slice, and may overlap.
        let told = unsafe { culvert_memmove(start.add(to), start.add(from), count) };
        assert_eq!(told.addr(), start.addr() + to);
    }

    /// What differs everywhere, so that a byte out of place shows.
    fn pattern(len: usize) -> Vec<u8> {
        (0..len)
            .map(|n| (n ^ (n >> 8).wrapping_mul(167)) as u8)
            .collect()
    }

    fn check(len: usize, to: usize, from: usize, count: usize) {
        let mut bytes = pattern(len);
        let mut expected = bytes.clone();
        expected.copy_within(from..from + count, to);
        shift(&mut bytes, to, from, count);
        assert!(bytes == expected, "{count} bytes from {from} to {to}");
    }

    #[test]
    fn every_short_length_arrives_and_nothing_beside_it_changes() {
        for count in 0..=400 {
            for (to, from) in [(16, 500), (500, 16), (17, 501), (507, 23), (31, 512)] {
                check(1000, to, from, count);
            }
        }
    }

    #[test]
    fn what_overlaps_moves_either_way_at_every_distance() {
        for count in [
            1, 7, 15, 16, 31, 33, 64, 65, 128, 129, 200, 3071, 3072, 3073, 5000,
        ] {
            for distance in 0..=150 {
                check(6000, 200 + distance, 200, count);
                check(6000, 200, 200 + distance, count);
            }
        }
    }

    #[test]
    fn nothing_outside_is_even_read() {
        const PAGE: usize = 4096;
        let outer = 4 * PAGE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: new pages of our own, of which the first and the last may not be touched.
        let start = unsafe {
            let none = libc::PROT_NONE;
            let pages = libc::mmap(std::ptr::null_mut(), outer, none, flags, -1, 0);
            assert_ne!(pages, libc::MAP_FAILED);
            let inner = pages.cast::<u8>().add(PAGE);
            let both = libc::PROT_READ | libc::PROT_WRITE;
            assert_eq!(libc::mprotect(inner.cast(), 2 * PAGE, both), 0);
            inner
        };
        for count in (0..=300).chain([3072, 3500, PAGE]) {
            let (first, last) = (0, 2 * PAGE - count);
            for (to, from) in [
                (first, last),
                (last, first),
                (first, first + 1),
                (last - 1, last),
            ] {
                if from + count <= 2 * PAGE {
                    // SAFETY: both ranges lie within the two pages.
                    unsafe { culvert_memmove(start.add(to), start.add(from), count) };
                }
            }
        }
        // SAFETY: nobody has kept a pointer to it.
        assert_eq!(unsafe { libc::munmap(start.sub(PAGE).cast(), outer) }, 0);
    }

    proptest! {
        #[test]
        fn any_part_goes_anywhere(
            to in 0..9000_usize,
            from in 0..9000_usize,
            count in prop_oneof![0..300_usize, 3000..3200_usize, 0..9000_usize],
        ) {
            check(18_000, to, from, count);
        }
    }
}
