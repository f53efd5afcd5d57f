//! CRC32C (Castagnoli) as EROFS uses it: begun with all ones, not inverted at the end.

const POLYNOMIAL_REVERSED: u32 = 0x82F6_3B78;

/// The checksum of `bytes`. Bit by bit: it is computed once an image, over 3 KiB.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            let low = crc & 1;
            crc = (crc >> 1) ^ (POLYNOMIAL_REVERSED * low);
        }
    }
    crc
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_published_check_value_is_met() {
        assert_eq!(!super::crc32c(b"123456789"), 0xE306_9283);
    }
}
