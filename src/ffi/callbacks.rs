// SPDX-License-Identifier: GPL-2.0-only
//! What the host calls back: with a ticket that it was given, from any thread, and perhaps twice or too late.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

use libc::{c_int, c_void};

use super::pointer::Pointer;
use super::tables::BlockDriverState;
use super::tickets::{self, Parked, redeem};
use crate::error::{Errno, Error};
use crate::instance::panic_text;

/// Keeps a panic from C. A request that it drops has failed, and fails the migration.
fn catch(callback: impl FnOnce()) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(callback)) {
        let _ = catch_unwind(AssertUnwindSafe(|| log::error!("{}", Error::Panic(panic_text(&*panic)))));
    }
}

/// A request of the host's block layer has ended.
pub(super) unsafe extern "C" fn completed(opaque: *mut c_void, ret: c_int) {
    catch(|| {
        let result = Errno::check(ret.into());
        match redeem(opaque, |parked| matches!(parked, Parked::Read { .. } | Parked::Write(_))) {
            Some(Parked::Read { request, clock }) => {
                // SAFETY: the host has given a function of this type, to be called from any thread.
                let now = clock.map_or(0, |clock| unsafe { clock() });
                request.complete(now, result);
            }
            Some(Parked::Write(request)) => request.complete(result),
            _ => log::error!("the host completed a request that is not in flight; ignored"),
        }
    });
}

/// The host's stream has done with a buffer.
pub(super) unsafe extern "C" fn released(opaque: *mut c_void) {
    catch(|| {
        if redeem(opaque, |parked| matches!(parked, Parked::Lent(_))).is_none() {
            log::error!("the host released a buffer that it does not have; ignored");
        }
    });
}

/// The host's block layer has come to a device.
pub(super) unsafe extern "C" fn visit(opaque: *mut c_void, bs: *mut BlockDriverState) {
    catch(|| {
        if let Some(bs) = NonNull::new(bs) {
            tickets::visited(opaque, Pointer(bs));
        }
    });
}
