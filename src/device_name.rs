// SPDX-License-Identifier: GPL-2.0-only
//! The name of a device, as the host and the stream have it.
#![forbid(unsafe_code)]

use std::fmt;
use std::sync::Arc;

/// A device's name: bytes, which on the destination are the peer's. Cloning shares them.
///
/// As text it is UTF-8 as far as the bytes are that. What would not print is escaped, so that a hostile name
/// can neither forge a line of the log nor write escape codes to a terminal.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct DeviceName(Arc<[u8]>);

impl DeviceName {
    /// The bytes, without a terminating NUL.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<&[u8]> for DeviceName {
    fn from(bytes: &[u8]) -> DeviceName {
        DeviceName(bytes.into())
    }
}

impl From<&str> for DeviceName {
    fn from(text: &str) -> DeviceName {
        DeviceName(text.as_bytes().into())
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        for c in String::from_utf8_lossy(&self.0).chars() {
            if matches!(c, '\'' | '"' | '\\') {
                f.write_char(c)?;
            } else {
                write!(f, "{}", c.escape_debug())?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}
